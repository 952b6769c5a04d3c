"""The parts that definitions of users share: keys, names, paths, durations, times, tests of values, predicates.

Definitions are JSON and are parsed strictly: what is unknown or wrong is refused, with its place and what to write
instead.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any

import re2

from headrace.domain.event_names import canonical
from headrace.domain.times import parse_duration_us

MAX_NAME = 200
MAX_LIST = 10_000
MAX_TEXT = 1_000
MAX_DURATION_US = 100 * 366 * 24 * 3600 * 1_000_000

LONGEST_PATH = 1_000
"""Characters of a place in an error: so deep nobody nests by hand."""
LONGEST_REASON = 1_000
"""Characters of what an error says: answers of services hold some thousand."""

Scalar = str | float | bool

TEXT_OPS = ("contains", "not_contains", "starts_with", "ends_with", "matches")
NUMBER_OPS = ("gt", "gte", "lt", "lte", "between")
TIME_OPS = ("before", "after")
MOVING_OPS = ("in_last", "in_next")
OPS = ("eq", "neq", "in", "not_in", *TEXT_OPS, *NUMBER_OPS, "exists", *TIME_OPS, *MOVING_OPS)
TOO_LONG = "must be shorter than 100 years"
ALL_COUNT = "without a window all events count"
"""What helps with a window that is too long."""
CASE_OPS = ("eq", "neq", "in", "not_in", *TEXT_OPS)


class DefinitionError(ValueError):
    """A definition is wrong at a place: `path` names it (empty: the whole), `reason` says what to do.

    Both are made of what somebody wrote: they are cut when they are very long, and what cannot be printed is escaped.
    """

    def __init__(self, path: str, reason: str) -> None:
        path, reason = _shown(path, LONGEST_PATH), _shown(reason, LONGEST_REASON)
        super().__init__(f"{path}: {reason}" if path else f"the definition {reason}")
        self.path = path
        self.reason = reason


def _shown(text: str, longest: int) -> str:
    """A text as it can be sent and printed."""
    cut = text if len(text) <= longest else f"{text[:longest]}..."
    return "".join(c if c.isprintable() or c == " " else ascii(c)[1:-1] for c in cut)


@dataclass(frozen=True, slots=True)
class Test:
    """A comparison of a JSON value that may be missing.

    `values` holds the operands: one for most, several for "in", "not_in" and "between". Numbers are floats. Times and
    durations ("before", "after", "in_last", "in_next") are floats of whole microseconds. "exists" holds one bool.
    """

    op: str
    values: tuple[Scalar, ...]
    ignore_case: bool = False

    __test__ = False  # keeps pytest from collecting it


@dataclass(frozen=True, slots=True)
class Predicate:
    """A test of one property of an event."""

    path: tuple[str, ...]
    test: Test


MAX_NESTING = 100
"""Levels of a JSON text that any definition gets along with."""


def load_json(source: str | bytes, max_bytes: int) -> Any:
    """A definition as decoded JSON.

    Args:
        source: The JSON.
        max_bytes: So long at most.

    Raises:
        DefinitionError: It is too long, no JSON, nested too deep, or an object has a key twice.
    """
    if len(source) > max_bytes:
        raise DefinitionError("", f"is longer than {max_bytes // 1024} KiB")
    try:
        found = json.loads(source, object_pairs_hook=_object, parse_int=_whole)
        _refuse_twice("", found)
    except RecursionError:
        text = source if isinstance(source, str) else source.decode(errors="replace")
        raise DefinitionError("", too_deep(text)) from None
    except DefinitionError:
        raise
    except ValueError as error:
        raise DefinitionError("", f"is no valid JSON: {error}") from None
    return found


def too_deep(text: str) -> str:
    """What is said of a JSON text that has too much nesting: where it goes beyond MAX_NESTING, from 1 on."""
    depth, place = 0, 1
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > MAX_NESTING:
            place = found.start() + 1
            break
    return f"is nested too deep from character {place} on; flatten it"


class _Twice(dict[str, Any]):
    """An object in which a key stands twice."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = _Twice(found)
    seen: set[str] = set()
    twice.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # None
    return twice


def _refuse_twice(path: str, found: Any) -> None:
    """Refuse an object in which a key stands twice, by its place."""
    if isinstance(found, _Twice):
        raise DefinitionError(path, f"has the key {found.key!r} twice in one object")
    if isinstance(found, dict):
        for key, value in found.items():
            _refuse_twice(f"{path}.{key}" if path else key, value)
    elif isinstance(found, list):
        for index, value in enumerate(found):
            _refuse_twice(f"{path}[{index}]", value)


_MOST_DIGITS = 400
"""A number of more digits is larger than any that there is; Python takes long to read it, or refuses to."""


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def meant(said: str, known: Iterable[str]) -> str:
    """What is added to an error about a name that is none: the nearest known one, if there is one."""
    near = get_close_matches(said, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_keys(path: str, raw: Mapping[str, Any], allowed: Sequence[str], required: Sequence[str]) -> None:
    """Refuse unknown keys by name, and missing ones."""
    for key in raw:
        if key not in allowed:
            place = f"{path}.{key}" if path else str(key)
            known = f"known here: {', '.join(allowed)}{meant(str(key), allowed)}"
            raise DefinitionError(place, f"unknown key {key!r}; {known}")
    for key in required:
        if key not in raw:
            raise DefinitionError(path, f"needs {key!r}")


def need_list(path: str, raw: object) -> list[Any]:
    """A list that is not empty."""
    if not isinstance(raw, list):
        raise DefinitionError(path, "must be a list")
    if not raw:
        raise DefinitionError(path, "must not be an empty list")
    if len(raw) > MAX_LIST:
        raise DefinitionError(path, f"has more than {MAX_LIST} entries")
    return raw


def need_name(path: str, raw: object, longest: int = MAX_NAME) -> str:
    """A text that is not empty."""
    if not isinstance(raw, str) or not raw.strip():
        raise DefinitionError(path, "must be a text that is not empty")
    _check_characters(path, raw)
    if "\0" in raw:
        raise DefinitionError(path, "is no valid text: it has a NUL character")
    if len(raw) > longest:
        raise DefinitionError(path, f"is longer than {longest} characters")
    return raw


def _check_characters(path: str, text: str) -> None:
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise DefinitionError(path, "is no valid text: it has half a surrogate pair")


def need_path(path: str, raw: object) -> tuple[str, ...]:
    """A path of keys with dots between them."""
    parts = tuple(need_name(path, raw).split("."))
    if not all(parts):
        raise DefinitionError(path, 'must be keys with single dots between them, such as "address.city"')
    # The JSON path of SQL engines gives these a meaning of their own.
    if any(c in '"\\*' or ord(c) < 32 for part in parts for c in part):
        raise DefinitionError(path, "must not contain quotes, backslashes, asterisks or control characters")
    return parts


def parse_duration(path: str, raw: object, *, too_long: str = TOO_LONG, units: str = "s, m, h, d, w") -> int:
    """A duration such as "30d", in microseconds.

    Args:
        path: Place in the definition.
        raw: What stands there.
        too_long: What is said of one that is longer than any.
        units: What is said to be possible.

    Raises:
        DefinitionError: It is no duration, or none that is possible.
    """
    if not isinstance(raw, str):
        raise DefinitionError(path, 'must be a duration such as "30d"')
    if re.fullmatch(r"[0-9]+cd", raw):
        raise DefinitionError(path, f"calendar days ({raw!r}) are not possible here; {raw[:-2]}d is {raw[:-2]} x 24 h")
    try:
        duration = parse_duration_us(raw)
    except ValueError:
        if re.fullmatch(r"[0-9]+[smhdw]", raw):
            raise DefinitionError(path, too_long) from None
        reason = f"{raw!r} is no duration: write a whole number and one of {units}"
        raise DefinitionError(path, reason) from None
    if duration <= 0:
        raise DefinitionError(path, "must be longer than nothing")
    if duration > MAX_DURATION_US:
        raise DefinitionError(path, too_long)
    return duration


_TIME = re.compile(
    r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})-\d\d-\d\d"
    r"([T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?(Z|[+-]([01]\d|2[0-3]):?[0-5]\d)?)?",
    re.ASCII,
)
TIME_PATTERN = f"^(?:{_TIME.pattern})$".replace(r"\d", "[0-9]")
"""What is a time, as a pattern that every engine of patterns reads in the same way."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(text: str) -> int | None:
    """Microseconds of an ISO 8601 date or time; without a zone it is UTC. None when it is no such time."""
    if _TIME.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def parse_time(path: str, raw: object) -> int:
    """An ISO 8601 time, in microseconds."""
    moment = time_of(raw) if isinstance(raw, str) else None
    if moment is None:
        raise DefinitionError(path, 'must be a time such as "2026-01-31" or "2026-01-31T12:00:00Z"')
    return moment


def parse_test(path: str, raw: Mapping[str, Any], *, subject: str, moving: bool) -> Test:
    """The one comparison among the keys of a condition or predicate.

    `subject` is the key that names what is compared; `moving` allows "in_last" and "in_next".
    """
    ops = [key for key in raw if key in OPS]
    check_keys(path, raw, allowed=(subject, *OPS, "ignore_case"), required=(subject,))
    if len(ops) != 1:
        found = f"has {ops[0]!r} and {ops[1]!r}" if ops else "has no comparison"
        raise DefinitionError(path, f"{found}; write one of {', '.join(OPS)}")
    op = ops[0]
    ignore_case = raw.get("ignore_case", False)
    if not isinstance(ignore_case, bool):
        raise DefinitionError(f"{path}.ignore_case", "must be true or false")
    if ignore_case and op not in CASE_OPS:
        raise DefinitionError(f"{path}.ignore_case", f"goes only with {', '.join(CASE_OPS)}")
    place = f"{path}.{op}"
    if op in MOVING_OPS and not moving:
        raise DefinitionError(
            place, f'"{op}" goes only with traits, and with a count of events; "before" and "after" go everywhere'
        )
    return Test(op, _operands(place, op, raw[op]), ignore_case)


def parse_event_names(path: str, raw: object) -> tuple[str, ...]:
    """The names of events in a definition, one or a list, in their stored spelling, sorted."""
    listed = need_list(path, raw) if isinstance(raw, list) else [raw]
    places = [f"{path}[{i}]" for i in range(len(listed))] if isinstance(raw, list) else [path]
    # Events are stored in the canonical spelling; a definition may name them in any.
    return tuple(sorted({canonical(need_name(place, name)) for place, name in zip(places, listed, strict=True)}))


def parse_predicates(path: str, raw: object, *, moving: bool = False) -> tuple[Predicate, ...]:
    """Tests of the properties of an event: a list of objects such as {"property": "value", "gt": 5}.

    `moving` allows "in_last" and "in_next".
    """
    if not isinstance(raw, list):
        raise DefinitionError(path, 'must be a list of predicates such as {"property": "value", "gt": 5}')
    predicates: list[Predicate] = []
    for i, item in enumerate(raw):
        place = f"{path}[{i}]"
        if not isinstance(item, Mapping) or "property" not in item:
            raise DefinitionError(place, 'must be an object such as {"property": "value", "gt": 5}')
        property_path = need_path(f"{place}.property", item["property"])
        predicates.append(Predicate(property_path, parse_test(place, item, subject="property", moving=moving)))
    return tuple(predicates)


def _operands(place: str, op: str, raw: object) -> tuple[Scalar, ...]:
    if op in ("eq", "neq"):
        return (_scalar(place, raw),)
    if op in ("in", "not_in"):
        return tuple(dict.fromkeys(_scalar(f"{place}[{i}]", item) for i, item in enumerate(need_list(place, raw))))
    if op in ("contains", "not_contains"):
        return (_scalar(place, raw),)
    if op in ("starts_with", "ends_with", "matches"):
        if not isinstance(raw, str) or not raw:
            raise DefinitionError(place, "must be a text that is not empty")
        if op == "matches":
            _check_pattern(place, raw)
        return (_scalar(place, raw),)
    if op == "between":
        if not isinstance(raw, list) or len(raw) != 2:
            raise DefinitionError(place, "must be a list of two numbers, the least and the greatest")
        low, high = _number(f"{place}[0]", raw[0]), _number(f"{place}[1]", raw[1])
        if high < low:
            raise DefinitionError(place, "the second number is less than the first")
        return (low, high)
    if op in NUMBER_OPS:
        return (_number(place, raw),)
    if op == "exists":
        if not isinstance(raw, bool):
            raise DefinitionError(place, "must be true or false")
        return (raw,)
    if op in TIME_OPS:
        return (float(parse_time(place, raw)),)
    return (float(parse_duration(place, raw)),)


def _scalar(place: str, raw: object) -> Scalar:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str):
        if len(raw) > MAX_TEXT:
            raise DefinitionError(place, f"is longer than {MAX_TEXT} characters")
        _check_characters(place, raw)
        return raw
    if isinstance(raw, int | float):
        return _number(place, raw)
    raise DefinitionError(place, 'must be a text, a number, true or false (for "has no value" write "exists": false)')


def _number(place: str, raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise DefinitionError(place, 'must be a number (times are compared with "before" and "after")')
    try:
        number = float(raw)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DefinitionError(place, "must be a finite number")
    return number


def _check_pattern(place: str, pattern: str) -> None:
    _scalar(place, pattern)
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        reason = (
            error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else str(error)
        )
        raise DefinitionError(place, f"is no RE2 regular expression: {reason}") from None
