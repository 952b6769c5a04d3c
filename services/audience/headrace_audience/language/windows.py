"""Windows of time in audience definitions: durations, days of the calendar, dates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from headrace.domain.definitions import ALL_COUNT, TOO_LONG, DefinitionError, parse_duration, parse_time
from headrace_audience.language.definition import EVER, Window
from headrace_audience.language.spans import Calendar, Fixed, Span

WINDOW_KEYS = ("within", "between", "since", "older_than")

_MAX_DAYS = 36_600
_UNITS = "s, m, h, d, w, or cd for days of the calendar"


def parse_zone(path: str, raw: object) -> str:
    """Name of a time zone of the IANA database."""
    if not isinstance(raw, str) or not is_zone(raw):
        raise DefinitionError(path, 'must be a time zone such as "Europe/Berlin"')
    return raw


def is_zone(name: str) -> bool:
    """Whether the IANA database has a time zone of that name."""
    try:
        return bool(name) and ZoneInfo(name).key == name
    except (ValueError, OSError, LookupError):
        return False


def parse_span(path: str, raw: object, zone: str, *, hint: str = "") -> Span:
    """A duration such as "30d", or days of the calendar such as "30cd"; `hint` helps when it is too long."""
    more = f"; {hint}" if hint else ""
    if not isinstance(raw, str) or re.fullmatch(r"[0-9]+cd", raw) is None:
        return Fixed(parse_duration(path, raw, too_long=f"{TOO_LONG}{more}", units=_UNITS))
    days = int(raw[:-2]) if len(raw) < len(str(_MAX_DAYS)) + 3 else _MAX_DAYS + 1
    if not days:
        raise DefinitionError(path, "must be longer than nothing")
    if days > _MAX_DAYS:
        raise DefinitionError(path, f"must be at most {_MAX_DAYS} days{more}")
    return Calendar(days, zone)


def check_shorter(path: str, shorter: Span, key: str, longer: Span, other: str) -> None:
    """Refuse a pair of spans of which the one does not lie inside the other."""
    if isinstance(shorter, Calendar) is not isinstance(longer, Calendar):
        raise DefinitionError(f"{path}.{key}", f"{key} and {other} must both be durations or both calendar days")
    if _length(shorter) >= _length(longer):
        raise DefinitionError(f"{path}.{key}", f"{key} must be shorter than {other}")


def _length(span: Span) -> int:
    return span.days if isinstance(span, Calendar) else span.us


def parse_window(path: str, raw: Mapping[str, Any], zone: str) -> Window:
    """The window among the keys of a condition; ever when there is none."""
    present = [key for key in WINDOW_KEYS if key in raw]
    if not present:
        return EVER
    if present == ["within"]:
        return Window(within=parse_span(f"{path}.within", raw["within"], zone, hint=ALL_COUNT))
    if present == ["within", "older_than"]:
        within = parse_span(f"{path}.within", raw["within"], zone, hint=ALL_COUNT)
        older = parse_span(f"{path}.older_than", raw["older_than"], zone)
        check_shorter(path, older, "older_than", within, "within")
        return Window(within=within, older_than=older)
    if present == ["older_than"]:
        raise DefinitionError(f"{path}.older_than", 'needs "within" beside it: the far end of the window')
    if present == ["since"]:
        return Window(from_us=parse_time(f"{path}.since", raw["since"]))
    if present == ["between"]:
        ends = raw["between"]
        if not isinstance(ends, list) or len(ends) != 2:
            raise DefinitionError(f"{path}.between", "must be a list of two times, the first and the last moment")
        first = parse_time(f"{path}.between[0]", ends[0])
        last = parse_time(f"{path}.between[1]", ends[1])
        if last < first:
            raise DefinitionError(f"{path}.between", "the second time is before the first")
        return Window(from_us=first, to_us=last)
    raise DefinitionError(path, f"{present[0]!r} and {present[1]!r} do not go together: write one window")
