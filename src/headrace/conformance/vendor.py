"""A fake vendor that answers as it is told, over real HTTP: refusals, errors, slow, cut and endless answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from headrace_sdk import Request, Response
from headrace_sdk.samples import NOW_US

MAX_ANSWER_BYTES = 1 << 20
"""Bytes of an answer that a connector is given, as in delivery."""


class NoAnswer(Exception):
    """No complete answer came."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the vendor does with a request.

    Attributes:
        status: HTTP status.
        body: Body.
        headers: Headers.
        times: How often the body is sent, one after the other.
        never: True when the vendor takes the request and says nothing.
        until_closed: True when nothing but the end of the connection says where the body ends.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1
    never: bool = False
    until_closed: bool = False


class FakeVendor:
    """A server that takes any request."""

    def __init__(self) -> None:
        """Describe it; nothing is started yet."""
        self.taken: list[Request] = []
        self._answer = Answer()
        self._address = ""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._take)
        self._server = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._client: aiohttp.ClientSession | None = None
        self._old_client: aiohttp.ClientSession | None = None
        self._ended = asyncio.Event()

    async def start(self) -> None:
        """Listen on this machine."""
        await self._server.setup()
        site = web.TCPSite(self._server, "127.0.0.1", 0)
        await site.start()
        host, port = self._server.addresses[0][:2]
        self._address = f"http://{host}:{port}"
        self._client = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        # In HTTP/1.0 an answer without a length ends with the connection.
        self._old_client = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, version=aiohttp.HttpVersion10
        )

    async def close(self) -> None:
        """Stop listening."""
        self._ended.set()
        for client in (self._client, self._old_client):
            if client is not None:
                await client.close()
        await self._server.cleanup()

    async def send(self, request: Request, answer: Answer, *, timeout_s: float = 10.0) -> Response:
        """Send a connector's request here in place of its vendor.

        Args:
            request: As the connector made it, without credentials.
            answer: How it is to be answered.
            timeout_s: Seconds that the vendor has.

        Raises:
            NoAnswer: No complete answer came.
        """
        client = self._old_client if answer.until_closed else self._client
        assert client is not None
        self._answer = answer
        parts = urlsplit(request.url)
        url = f"{self._address}{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with client.request(
                request.method,
                url,
                headers=request.headers,
                data=request.body or None,
                allow_redirects=False,
                timeout=timeout,
            ) as got:
                body = bytearray()
                async for chunk in got.content.iter_chunked(65_536):
                    body += chunk
                    if len(body) >= MAX_ANSWER_BYTES:
                        break
                headers = {name.lower(): value for name, value in got.headers.items()}
                return Response(
                    status=got.status, headers=headers, body=bytes(body[:MAX_ANSWER_BYTES]), received_at_us=NOW_US
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NoAnswer(type(error).__name__) from error

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.taken.append(
            Request(method=request.method, url=request.path_qs, headers=dict(request.headers), body=body, items=())
        )
        answer = self._answer
        if answer.never:
            await self._ended.wait()
        response = web.StreamResponse(status=answer.status, headers=dict(answer.headers))
        if answer.until_closed:
            response.force_close()
        elif answer.status not in (204, 304):
            response.content_length = len(answer.body) * answer.times
        try:
            await response.prepare(request)
            for _ in range(answer.times):
                await response.write(answer.body)
        except ConnectionError:
            return response  # the client had enough
        return response
