"""Takes the body of a batch apart, so that one bad message never spoils the others. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace_ingest import lenient
from headrace_ingest.limits import Limits
from headrace_ingest.messages import Scalar
from headrace_ingest.refusal import Code, Refused


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch in parts.

    Attributes:
        messages: Each message as it came.
        sent_at: `sentAt` of the batch.
        context: Context of the batch, for all its messages.
        write_key: `writeKey` of the batch.
    """

    messages: list[bytes]
    sent_at: Scalar = None
    context: dict[str, Any] | None = None
    write_key: str = ""


class _Body(msgspec.Struct):
    batch: list[msgspec.Raw] | None = None
    sentAt: Scalar = None  # noqa: N815 - the wire's name
    context: dict[str, Any] | None = None
    writeKey: str | None = None  # noqa: N815


class _Key(msgspec.Struct):
    writeKey: str | None = None  # noqa: N815


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_key = msgspec.json.Decoder(_Key).decode
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{},"]', re.DOTALL)
_MEMBER = re.compile(r'\s*("(?:[^"\\]|\\.)*+")\s*:(.*)', re.DOTALL)


def read_batch(body: bytes, limits: Limits) -> Batch:
    """Take a batch apart.

    Raises:
        Refused: The body is no batch at all: MALFORMED_JSON, NOT_AN_OBJECT, INVALID_TYPE, EMPTY_BATCH or
            BATCH_TOO_LONG.
    """
    try:
        read = _decode_body(body)
        if read.context is not None and lenient.suspicious(body, limits.depth):
            batch = _apart(body, limits.depth)
        elif read.batch is None:
            raise _no_batch()
        else:
            batch = Batch([bytes(m) for m in read.batch], read.sentAt, read.context, read.writeKey or "")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        batch = _apart(body, limits.depth)
    if not batch.messages:
        raise Refused(Code.EMPTY_BATCH, "The batch holds no message.", "batch")
    if len(batch.messages) > limits.batch_messages:
        raise Refused(Code.BATCH_TOO_LONG, f"A batch has at most {limits.batch_messages} messages.", "batch")
    return batch


def write_key_in(body: bytes) -> str:
    """`writeKey` at the top of a body, of one message or of a batch; "" when there is none."""
    try:
        return _decode_key(body).writeKey or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # what strict JSON is not may still have a key
    try:
        value = _value(_members(_text(body)).get("writeKey", "null"), 1)
    except Refused:
        return ""
    return value if isinstance(value, str) else ""


def message_id_in(message: bytes) -> str:
    """`messageId` of a message that was refused, as far as it can be read; "" when not."""
    try:
        value = _value(_members(_text(message)).get("messageId", "null"), 1)
    except Refused:
        return ""
    return value if isinstance(value, str) and len(value) <= 100 and value.isprintable() else ""


def _apart(body: bytes, depth: int) -> Batch:
    """Take apart what strict JSON is not: only the outermost structure must be right."""
    members = _members(_text(body))
    listed = members.get("batch", "null").strip()
    if not listed.startswith("["):
        raise _no_batch()
    messages = [item.strip().encode(errors="surrogateescape") for item in _items(listed)]
    sent_at = _value(members.get("sentAt", "null"), 1)
    context = lenient.clean_text(_value(members.get("context", "null"), depth), [])
    if context is not None and not isinstance(context, dict):
        raise Refused(Code.INVALID_TYPE, "context must be a JSON object.", "context")
    if sent_at is not None and (isinstance(sent_at, bool) or not isinstance(sent_at, str | int | float)):
        raise Refused(Code.INVALID_TYPE, "sentAt must be text or a number.", "sentAt")
    key = _value(members.get("writeKey", "null"), 1)
    return Batch(messages, sent_at, context, key if isinstance(key, str) else "")


def _text(body: bytes) -> str:
    """Text of a body in which some message may not be UTF-8; its bytes come back by "surrogateescape"."""
    return body.removeprefix(lenient.BOM).decode(errors="surrogateescape").strip()


def _value(text: str, depth: int) -> Any:
    return lenient.read(text.encode(errors="surrogateescape"), depth)[0]


def _members(text: str) -> dict[str, str]:
    """Names and texts of the members of an object."""
    if not text.startswith("{"):
        if text[:1] in {"[", '"'} or text in {"null", "true", "false"} or text[:1].isdigit():
            raise Refused(Code.NOT_AN_OBJECT, "The body must be a JSON object.")
        raise _malformed()
    members: dict[str, str] = {}
    for part in _parts(text):
        match = _MEMBER.fullmatch(part)
        if match is None:
            raise _malformed()
        name = _value(match[1], 1)
        members[name] = match[2]
    return members


def _items(text: str) -> list[str]:
    """Texts of the items of an array."""
    return list(_parts(text))


def _parts(text: str) -> Iterator[str]:
    """What stands between the commas of the outermost object or array; without recursion, whatever is nested."""
    depth = 0
    start = 1
    end = -1
    parts: list[str] = []
    for match in _TOKEN.finditer(text):
        mark = match[0]
        if mark == '"':
            raise _malformed()  # a string without an end
        if mark in "[{":
            depth += 1
        elif mark in "]}":
            depth -= 1
            if depth == 0:
                end = match.start()
                break
        elif mark == "," and depth == 1:
            parts.append(text[start : match.start()])
            start = match.end()
    if end != len(text) - 1 or {"{": "}", "[": "]"}[text[0]] != text[end]:
        raise _malformed()
    last = text[start:end]
    if parts or last.strip():
        parts.append(last)
    if any(not part.strip() for part in parts):
        raise _malformed()
    yield from parts


def _no_batch() -> Refused:
    return Refused(Code.INVALID_TYPE, "batch must be an array of messages.", "batch")


def _malformed() -> Refused:
    return Refused(Code.MALFORMED_JSON, "The body is not JSON.")
