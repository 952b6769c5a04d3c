"""What a webhook's body holds: JSON, NDJSON or a form. Pure functions."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from headrace_ingest import lenient
from headrace_ingest.refusal import Code, Refused

FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 1_000


def read_body(body: bytes, content_type: str, depth: int, max_lines: int) -> list[Any]:
    """The values in a body, each on its own: one for JSON or a form, one per line for NDJSON.

    JSON is recognised under any content type, because senders say anything.

    Args:
        body: As it came, unpacked.
        content_type: As it was sent.
        depth: Greatest depth of objects and arrays.
        max_lines: Most lines of NDJSON.

    Raises:
        Refused: EMPTY_BODY, INVALID_UTF8, TOO_DEEP, INVALID_FORM, BATCH_TOO_LONG or MALFORMED_JSON.
    """
    text = body.strip().removeprefix(lenient.BOM)
    if not text:
        raise Refused(Code.EMPTY_BODY, "The body is empty.")
    try:
        return [_clean(text, depth)]
    except Refused as refused:
        if refused.code is not Code.MALFORMED_JSON:
            raise
    if content_type.partition(";")[0].strip().lower() == FORM:
        return [_form(text)]
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > max_lines:
        raise Refused(Code.BATCH_TOO_LONG, f"A body has at most {max_lines} lines.")
    return [_clean(line, depth) for line in lines]


def _clean(text: bytes, depth: int) -> Any:
    value, _ = lenient.read(text, depth)
    return lenient.clean_text(value, [])


def _form(text: bytes) -> dict[str, Any]:
    """A form as an object; a field that comes several times is an array."""
    try:
        pairs = parse_qsl(text.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except UnicodeDecodeError:
        raise Refused(Code.INVALID_UTF8, "The form is not valid UTF-8.") from None
    except ValueError:
        raise Refused(Code.INVALID_FORM, f"The body is no form of at most {_MAX_FIELDS} fields.") from None
    if not pairs or b"=" not in text:
        raise Refused(Code.INVALID_FORM, "The body is neither JSON nor a form.")
    fields: dict[str, Any] = {}
    for name, value in pairs:
        text_value = value.replace("\x00", "")
        known = fields.get(name)
        if known is None:
            fields[name] = text_value
        elif isinstance(known, list):
            known.append(text_value)
        else:
            fields[name] = [known, text_value]
    return fields
