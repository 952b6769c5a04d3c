"""Who answers in the author's loop: a small fake vendor, a server of the author's, or the vendor itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from headrace.domain.times import now_us
from headrace.plugins.offline import InputError, read_lines
from headrace_sdk import Request, Response

MOST_BYTES = 1_048_576
"""Of an answer: what is longer is cut, as in delivery."""


class NoAnswer(Exception):
    """No answer came; the text says why, without the address."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the fake vendor says to a request."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"errors": []}'


def read_answers(lines: Iterable[str]) -> list[Answer]:
    """Answers of an NDJSON file: {"status", "headers", "body"}, all optional; a body that is no text is sent as JSON.

    Raises:
        InputError: A line is no answer.
    """
    answers = []
    for number, value in read_lines(lines):
        status, headers = value.get("status", 200), value.get("headers", {})
        if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
            raise InputError(number, "status must be a number from 200 to 599")
        if not isinstance(headers, dict) or not all(isinstance(text, str) for text in headers.values()):
            raise InputError(number, "headers must be texts by name")
        body = value.get("body", {})
        text = body if isinstance(body, str) else json.dumps(body)
        answers.append(Answer(status, headers, text.encode()))
    return answers


@asynccontextmanager
async def fake_vendor(answers: Iterable[Answer]) -> AsyncIterator[str]:
    """A server on this machine that gives these answers by turns, the last one for ever; yields its address."""
    left = list(answers) or [Answer()]

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        said = left.pop(0) if len(left) > 1 else left[0]
        headers = {"Content-Type": "application/json", **said.headers}
        return web.Response(status=said.status, headers=headers, body=said.body)

    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def send(session: ClientSession, request: Request, *, timeout_s: float, base: str = "") -> Response:
    """Send a request once.

    Args:
        session: Sends it.
        request: With its credentials.
        timeout_s: Seconds that the answer may take.
        base: Scheme and host that take the place of the request's own; its path and query stay.

    Raises:
        NoAnswer: None came.
    """
    url = request.url
    if base:
        server, asked = urlsplit(base), urlsplit(url)
        path = server.path.rstrip("/") + (asked.path or "/")
        url = urlunsplit((server.scheme, server.netloc, path, asked.query, ""))
    try:
        async with session.request(
            request.method,
            url,
            headers=request.headers,
            data=request.body,
            timeout=ClientTimeout(total=timeout_s),
            allow_redirects=False,
        ) as answer:
            body = bytearray()
            async for part in answer.content.iter_chunked(65_536):
                body += part
                if len(body) >= MOST_BYTES:
                    break
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Response(
                status=answer.status, headers=headers, body=bytes(body[:MOST_BYTES]), received_at_us=now_us()
            )
    except TimeoutError:
        raise NoAnswer(f"no answer within {timeout_s:g} s") from None
    except (ClientError, OSError, ValueError) as error:
        raise NoAnswer(f"no answer ({type(error).__name__})") from None


def shown_body(response: Response) -> str:
    """The body of an answer for display."""
    return response.body.decode("utf-8", "replace")
