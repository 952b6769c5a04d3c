"""Answers of the HTTP port: JSON with `code` and `message` at the top, and the CORS headers that browsers need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from headrace_ingest import metrics
from headrace_ingest.intake import Item
from headrace_ingest.refusal import Code, Refused

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_encode = msgspec.json.Encoder().encode
_JSON = (b"content-type", b"application/json")
_SUCCESS_BODY = b'{"success": true}'
_SUCCESS_HEADERS: Headers = [_JSON, (b"content-length", str(len(_SUCCESS_BODY)).encode())]
_SUCCESS_START = {"type": "http.response.start", "status": 200, "headers": _SUCCESS_HEADERS}
_SUCCESS_END = {"type": "http.response.body", "body": _SUCCESS_BODY}
_TOO_LARGE = frozenset({Code.MESSAGE_TOO_LARGE, Code.BATCH_TOO_LARGE, Code.BATCH_TOO_LONG})
PREFLIGHT_SECONDS = 7_200


class Answer(Exception):
    """A request ends with this answer, which is no success.

    Attributes:
        status: HTTP status.
        code: Machine-readable reason.
        message: The reason in a sentence, without what was sent.
        field: The field at fault, "" when none is.
        retry_after_s: When to try again, in whole seconds; 0 says nothing about it.
    """

    def __init__(self, status: int, code: str, message: str, *, field: str = "", retry_after_s: int = 0) -> None:
        """Describe the answer."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


def of_refusal(refused: Refused) -> Answer:
    """The answer when a whole request is refused: 413 for what is too large, else 400."""
    status = 413 if refused.code in _TOO_LARGE else 400
    return Answer(status, refused.code, refused.reason, field=refused.field)


def cors(origin: bytes) -> Headers:
    """Headers that let a page of this origin read the answer; none when no browser asks."""
    if not origin:
        return []
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"retry-after"),
        (b"vary", b"origin"),
    ]


async def success(send: Send, origin: bytes, items: Iterable[Item] = ()) -> None:
    """Answer 200, naming the messages that were not accepted."""
    metrics.tally.answered(200, "ok")
    refused = [
        {
            "index": item.place,
            "message_id": item.message_id,
            "status": "rejected",
            "code": item.refused.code,
            "message": item.refused.reason,
            "field": item.refused.field,
        }
        for item in items
    ]
    if not origin and not refused:
        await send(_SUCCESS_START)
        await send(_SUCCESS_END)
        return
    body = _encode({"success": True, "results": refused}) if refused else _SUCCESS_BODY
    await respond(send, 200, body, cors(origin))


async def failure(send: Send, answer: Answer, origin: bytes) -> None:
    """Answer with an error."""
    metrics.tally.answered(answer.status, answer.code)
    details = [{"field": answer.field, "message": answer.message}] if answer.field else []
    headers = cors(origin)
    if answer.retry_after_s:
        headers.append((b"retry-after", str(answer.retry_after_s).encode()))
    if answer.status == 401:
        headers.append((b"www-authenticate", b'Basic realm="write key"'))
    if answer.status == 413:
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    body = {"code": answer.code, "message": answer.message, "details": details}
    await respond(send, answer.status, _encode(body), headers)


async def preflight(send: Send, origin: bytes, asked_method: bytes, asked_headers: bytes) -> None:
    """Answer a browser that asks whether it may: with the very headers that it asked for."""
    headers = [
        *cors(origin),
        (b"access-control-allow-methods", asked_method or b"POST"),
        (b"access-control-max-age", str(PREFLIGHT_SECONDS).encode()),
    ]
    if asked_headers:
        headers.append((b"access-control-allow-headers", asked_headers))
    metrics.tally.answered(204, "preflight")
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def respond(
    send: Send, status: int, body: bytes, headers: Headers | None = None, content_type: bytes = b"application/json"
) -> None:
    """Answer with a body."""
    complete = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        *(headers or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": complete})
    await send({"type": "http.response.body", "body": body})
