"""Reads requests of the HTTP port: headers, the write key, the body within its limits, unpacked."""

from __future__ import annotations

import asyncio
import base64
import binascii
import zlib
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from headrace.telemetry.spans import is_valid
from headrace_ingest.http_answers import Answer, Receive, Scope
from headrace_ingest.refusal import Code, Refused

_GZIP = zlib.MAX_WBITS | 16
_MAX_QUERY = 8_192


class Disconnected(Exception):
    """The client went away before its request was complete: there is nobody to answer."""


class BodyTooLarge(Refused):
    """The body is longer than allowed; holds its beginning."""

    def __init__(self, limit: int, beginning: bytes) -> None:
        """Say the limit, keep what was read."""
        super().__init__(Code.BATCH_TOO_LARGE, f"A request has at most {limit} bytes, unpacked.")
        self.beginning = beginning


@dataclass(slots=True)
class Head:
    """Headers that ingest looks at, as sent."""

    authorization: bytes = b""
    write_key: bytes = b""
    content_type: bytes = b""
    content_encoding: bytes = b""
    content_length: bytes = b""
    origin: bytes = b""
    host: bytes = b""
    traceparent: bytes = b""
    webhook_id: bytes = b""
    idempotency_key: bytes = b""
    forwarded_for: bytes = b""
    asked_method: bytes = b""
    asked_headers: bytes = b""


_FIELDS = {
    b"authorization": "authorization",
    b"x-write-key": "write_key",
    b"content-type": "content_type",
    b"content-encoding": "content_encoding",
    b"content-length": "content_length",
    b"origin": "origin",
    b"host": "host",
    b"traceparent": "traceparent",
    b"webhook-id": "webhook_id",
    b"idempotency-key": "idempotency_key",
    b"x-forwarded-for": "forwarded_for",
    b"access-control-request-method": "asked_method",
    b"access-control-request-headers": "asked_headers",
}


def read_head(scope: Scope) -> Head:
    """The headers of a request."""
    head = Head()
    for name, value in scope["headers"]:
        field = _FIELDS.get(name)
        if field is not None:
            setattr(head, field, value)
    return head


def traceparent_of(head: Head) -> str:
    """The caller's trace context; "" when there is none that can be carried on."""
    if not head.traceparent:
        return ""
    text = head.traceparent.decode("latin-1").strip()
    return text if is_valid(text) else ""


def write_key_of(head: Head, scope: Scope) -> str:
    """The write key outside of the body: basic auth user name, bearer token, X-Write-Key or `writeKey` in the query.

    Returns:
        The key; "" when none is given there.

    Raises:
        Answer: 401, when the Authorization header cannot be read.
    """
    if head.authorization:
        return _of_authorization(head.authorization)
    if head.write_key:
        return head.write_key.decode("latin-1").strip()
    query = scope["query_string"]
    return _of_query(query) if query else ""


def _of_authorization(header: bytes) -> str:
    scheme, _, credentials = header.partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.decode("latin-1").strip()
    if scheme.lower() == b"basic":
        try:
            # Some clients leave the padding out.
            plain = base64.b64decode(credentials.strip() + b"=" * (-len(credentials.strip()) % 4), validate=True)
            return plain.decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            pass  # answered below, as an unknown scheme is
    raise Answer(
        401, "invalid_authorization", "Authorization must be Basic with the write key as user name, or Bearer."
    )


def _of_query(query: bytes) -> str:
    if b"writeKey" not in query or len(query) > _MAX_QUERY:
        return ""
    for name, value in parse_qsl(query.decode("latin-1")):
        if name == "writeKey":
            return value
    return ""


def last_part(path: str, prefix: str) -> str:
    """What follows a prefix in a path, decoded."""
    return unquote(path[len(prefix) :])


class Bodies:
    """Reads bodies, and knows how many bytes of them are in work."""

    def __init__(self, *, limit: int, seconds: float, in_work_max: int) -> None:
        """Set the limits.

        Args:
            limit: Greatest size of a body, packed or unpacked, in bytes.
            seconds: How long a client may take to send one.
            in_work_max: Bytes of all requests in work, beyond which more are refused.
        """
        self._limit = limit
        self._seconds = seconds
        self._in_work_max = in_work_max
        self.in_work = 0

    async def read(self, receive: Receive, head: Head) -> bytes:
        """The body as it came; whoever reads it calls `release` with its length when done.

        Raises:
            Refused: BODY_INCOMPLETE, or BodyTooLarge with its beginning.
            Answer: 429, when too much is in work.
            Disconnected: The client went away.
        """
        if self.in_work > self._in_work_max:
            raise Answer(429, "overloaded", "Too much is in work: send this again later.", retry_after_s=1)
        parts: list[bytes] = []
        size = 0
        more = True
        try:
            # The first part too: who sends a head and nothing else must not hold a connection for ever.
            async with asyncio.timeout(self._seconds):
                while more and size <= self._limit:
                    part, more = await _next(receive)
                    parts.append(part)
                    size += len(part)
                    self.in_work += len(part)
        except BaseException as error:
            self.in_work -= size
            if isinstance(error, TimeoutError):
                text = f"The body did not come within {self._seconds:g} seconds."
                raise Refused(Code.BODY_INCOMPLETE, text) from None
            raise
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        if size > self._limit:
            self.in_work -= size
            raise BodyTooLarge(self._limit, whole[: self._limit])
        return whole

    def release(self, count: int) -> None:
        """Say that bytes are no longer in work."""
        self.in_work -= count

    def unpack(self, body: bytes, encoding: bytes) -> bytes:
        """A body without its content encoding; never more than the limit is unpacked.

        Raises:
            Refused: UNSUPPORTED_ENCODING, INVALID_ENCODING, or BodyTooLarge with the beginning.
        """
        name = encoding.strip().lower()
        if name in {b"", b"identity"}:
            return body
        if name not in {b"gzip", b"x-gzip"}:
            raise Refused(Code.UNSUPPORTED_ENCODING, "Content-Encoding must be gzip or absent.")
        unpacked = bytearray()
        rest = body
        while rest:  # a gzip file may have several members
            stream = zlib.decompressobj(_GZIP)
            try:
                unpacked += stream.decompress(rest, self._limit + 1 - len(unpacked))
            except zlib.error:
                raise _broken() from None
            if len(unpacked) > self._limit:
                raise BodyTooLarge(self._limit, bytes(unpacked[: self._limit]))
            if not stream.eof:
                raise _broken()
            rest = stream.unused_data.lstrip(b"\0")
        return bytes(unpacked)


async def _next(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    return message.get("body", b""), message.get("more_body", False)


def _broken() -> Refused:
    return Refused(Code.INVALID_ENCODING, "The body is not gzip, or ends too early.")
