"""JSON as clients really write it, made exact: what strict readers cannot take is repaired, or refused with a reason.

The fast path reads strict JSON only. What it cannot read, or what `suspicious` notices, comes here:

- `NaN`, `Infinity` and numbers beyond double precision become null;
- whole numbers beyond 64 bits become the nearest floating-point number;
- lone surrogates (half of an emoji, cut by a client) become U+FFFD, and NUL characters are dropped, in free-form parts;
- invalid UTF-8, nesting that is too deep and text that is no JSON are refused.

So whoever reads an accepted event can rely on strict, finite, 64-bit JSON of limited depth. Each repair is
recorded on the event.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from headrace_ingest.refusal import Code, Refused

BOM = b"\xef\xbb\xbf"

_LONG_NUMBER = b"0" * 19
_FOLD = bytes.maketrans(b"123456789[", b"000000000{")
_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1
_SURROGATES = re.compile("[\ud800-\udfff]")
_REPLACED = "\ufffd"
_MAX_DIGITS = 4_000  # Python refuses to read longer whole numbers; they are beyond double precision anyway


def suspicious(raw: bytes, depth: int) -> bool:
    """True when strict JSON may still hold what a reader downstream cannot take; false alarms are cheap.

    Args:
        raw: The text of one message.
        depth: Greatest depth allowed.
    """
    folded = raw.translate(_FOLD)
    return folded.count(b"{") > depth or _LONG_NUMBER in folded or (b"\\" in raw and b"\\u0000" in raw)


def read(raw: bytes, depth: int) -> tuple[Any, list[str]]:
    """Read one JSON value leniently.

    Args:
        raw: The text.
        depth: Greatest depth of objects and arrays.

    Returns:
        The value, and what was repaired, each as "number: ..." or "text: ...". Strings still hold lone surrogates and
        NUL characters: see `clean_text`.

    Raises:
        Refused: INVALID_UTF8, MALFORMED_JSON or TOO_DEEP.
    """
    try:
        text = raw.removeprefix(BOM).decode()
    except UnicodeDecodeError:
        raise Refused(Code.INVALID_UTF8, "The message is not valid UTF-8.") from None
    reader = _Reader()
    try:
        value = json.loads(
            text, parse_constant=reader.constant, parse_float=reader.floating, parse_int=reader.whole, strict=True
        )
    except RecursionError:
        raise _too_deep(depth) from None
    except ValueError:
        raise Refused(Code.MALFORMED_JSON, "The message is not JSON.") from None
    if depth_exceeds(value, depth):
        raise _too_deep(depth)
    return value, reader.repairs


def clean_text(value: Any, repairs: list[str]) -> Any:
    """A value whose strings hold no lone surrogate and no NUL character; the depth is already known to be small."""
    if isinstance(value, str):
        if "\x00" in value:
            value = value.replace("\x00", "")
            _note(repairs, "text: NUL characters were dropped")
        if not value.isascii() and _SURROGATES.search(value):
            value = _SURROGATES.sub(_REPLACED, value)
            _note(repairs, "text: half characters became U+FFFD")
        return value
    if isinstance(value, dict):
        return {clean_text(key, repairs): clean_text(item, repairs) for key, item in value.items()}
    if isinstance(value, list):
        return [clean_text(item, repairs) for item in value]
    return value


def has_surrogates(text: str) -> bool:
    """True when a text cannot be written as UTF-8."""
    return not text.isascii() and _SURROGATES.search(text) is not None


def depth_exceeds(value: Any, depth: int) -> bool:
    """True when objects and arrays are nested deeper than `depth`; without recursion."""
    level = [value]
    for _ in range(depth + 1):
        nested = [item for item in level if isinstance(item, dict | list)]
        if not nested:
            return False
        level = [inner for item in nested for inner in (item.values() if isinstance(item, dict) else item)]
    return True


class _Reader:
    """Reads numbers, and notes what it had to change."""

    def __init__(self) -> None:
        self.repairs: list[str] = []

    def constant(self, _: str) -> None:
        _note(self.repairs, "number: NaN or Infinity became null")

    def floating(self, text: str) -> float | None:
        value = float(text)
        if math.isfinite(value):
            return value
        _note(self.repairs, "number: beyond double precision, became null")
        return None

    def whole(self, text: str) -> int | float | None:
        if len(text) <= 18:
            return int(text)
        value = int(text) if len(text) <= _MAX_DIGITS else None
        if value is not None and _MIN_INT <= value <= _MAX_INT:
            return value
        near = self.floating(text)
        if near is not None:
            _note(self.repairs, "number: beyond 64 bits, became a floating-point number")
        return near


def _note(repairs: list[str], repair: str) -> None:
    if repair not in repairs:
        repairs.append(repair)


def _too_deep(depth: int) -> Refused:
    return Refused(Code.TOO_DEEP, f"Objects and arrays are nested deeper than {depth} levels.")
