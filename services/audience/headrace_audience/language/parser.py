"""Reads audience definitions: from JSON to the tree, or an error that says where and what to do.

Parsing is strict: what is unknown or wrong is refused. How large and how deep a definition is allowed to be is bounded,
so that none can exhaust the engine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from headrace.domain.consent import purpose_of
from headrace.domain.definitions import (
    MAX_DURATION_US,
    MOVING_OPS,
    NUMBER_OPS,
    DefinitionError,
    Predicate,
    Test,
    check_keys,
    load_json,
    meant,
    need_list,
    need_name,
    need_path,
    parse_duration,
    parse_event_names,
    parse_predicates,
    parse_test,
)
from headrace.domain.times import DAY_US, MINUTE_US
from headrace_audience.language.counts import parse_count
from headrace_audience.language.definition import (
    CAMPAIGN_PARTS,
    TOUCHES,
    Aggregate,
    All,
    Any_,
    AudienceMember,
    ComputedTest,
    Condition,
    ConsentTest,
    DatedCount,
    Definition,
    EventCount,
    FirstTime,
    IdentifierExists,
    InOrder,
    LastTime,
    Members,
    Not,
    Regularly,
    Restarted,
    Step,
    TouchTest,
    TraitTest,
    Window,
)
from headrace_audience.language.spans import Calendar, Fixed, Span
from headrace_audience.language.windows import WINDOW_KEYS, check_shorter, parse_span, parse_window, parse_zone

MAX_DEPTH = 50
MAX_CONDITIONS = 300
TOO_MANY_CONDITIONS = (
    f'there are more than {MAX_CONDITIONS} conditions, tests of properties and steps; use "in" or split it'
)
MAX_DEFINITION_BYTES = 256 * 1024
MAX_STEPS = 10
MAX_PERIODS = 100
MIN_REFRESH_US = MINUTE_US
MAX_REFRESH_US = 366 * DAY_US

AGGREGATES = ("sum", "avg", "min", "max", "distinct")
_AGGREGATE_OPS = ("eq", "neq", *NUMBER_OPS)
_QUANTIFIERS = ("any", "all", "none")
_STATUSES = ("granted", "denied")


def parse_definition(source: str | bytes | Mapping[str, Any]) -> Definition:
    """Read a definition from JSON text or from the parsed object.

    Raises:
        DefinitionError: It is no definition; the error names the place and says what to write instead.
    """
    raw = decoded(source)
    if not isinstance(raw, Mapping):
        raise DefinitionError("", 'must be an object such as {"where": {"event": "Purchased"}}')
    check_keys("", raw, allowed=("kind", "of", "refresh", "time_zone", "where"), required=("where",))
    kind = raw.get("kind", "dynamic")
    if kind not in ("dynamic", "static"):
        raise DefinitionError("kind", f'must be "dynamic" or "static", not {kind!r}')
    of = raw.get("of", "people")
    if of not in ("people", "groups"):
        raise DefinitionError("of", f'must be "people" or "groups", not {of!r}')
    refresh_us = _refresh(raw.get("refresh", "continuous"))
    if refresh_us and kind == "static":
        raise DefinitionError("refresh", "a static audience is computed once; leave it out, or use kind dynamic")
    zone = parse_zone("time_zone", raw["time_zone"]) if "time_zone" in raw else "UTC"
    where = _Parser(zone, of).condition("where", raw["where"], 1)
    return Definition(kind=kind, where=where, of=of, refresh_us=refresh_us)


def decoded(source: str | bytes | Mapping[str, Any]) -> Any:
    """The JSON of a definition, which may be decoded already. Raises DefinitionError."""
    return source if isinstance(source, Mapping) else load_json(source, MAX_DEFINITION_BYTES)


def _refresh(raw: object) -> int:
    """How often an audience is computed, in microseconds; 0: all the time."""
    if raw == "continuous":
        return 0
    if not isinstance(raw, str):
        raise DefinitionError("refresh", 'must be "continuous" or a duration such as "6h"')
    possible = 'must be "1m" to "366d", or "continuous"'
    refresh_us = parse_duration("refresh", raw, too_long=possible)
    if not MIN_REFRESH_US <= refresh_us <= MAX_REFRESH_US:
        raise DefinitionError("refresh", possible)
    return refresh_us


class _Parser:
    """Counts conditions over the whole tree."""

    def __init__(self, zone: str, of: str) -> None:
        self._zone = zone
        self._of = of
        self._count = 0
        self._leaves: dict[str, Callable[[str, Mapping[str, Any]], Condition]] = {
            "event": self._event,
            "first_time": self._first_time,
            "last_time": self._last_time,
            "stopped": self._stopped,
            "restarted": self._restarted,
            "regularly": self._regularly,
            "sequence": self._sequence,
            "trait": _trait,
            "computed": _computed,
            "consent": _consent,
            "first_touch": partial(_touch, "first"),
            "last_touch": partial(_touch, "last"),
            "identifier": _identifier,
            "audience": _audience,
        }
        self._of_groups = ("trait", "members", "audience")

    def condition(self, path: str, raw: object, depth: int) -> Condition:
        """A condition at a place."""
        if depth > MAX_DEPTH:
            raise DefinitionError(path, f"is nested more than {MAX_DEPTH} deep; flatten it or use another audience")
        self._count += 1 + _tests_in(raw)
        if self._count > MAX_CONDITIONS:
            raise DefinitionError(path, TOO_MANY_CONDITIONS)
        leaves = self._of_groups if self._of == "groups" else tuple(self._leaves)
        all_kinds = ("all", "any", "not", *leaves)
        if not isinstance(raw, Mapping):
            raise DefinitionError(path, f"must be an object with one of {', '.join(all_kinds)}")
        for key in raw:
            if not isinstance(key, str):
                raise DefinitionError(path, f"the key {key!r} is no text")
        kinds = [key for key in all_kinds if key in raw]
        if len(kinds) > 1:
            raise DefinitionError(path, f'has both {kinds[0]!r} and {kinds[1]!r}; combine conditions with "all"')
        if not kinds and self._of == "groups" and not self._leaves.keys().isdisjoint(raw):
            kind = next(key for key in self._leaves if key in raw)
            reason = f'{kind!r} is about people: write {{"members": "any", "where": ...}} around it'
            raise DefinitionError(path, reason)
        if not kinds and "members" in raw:
            raise DefinitionError(path, '"members" goes only with "of": "groups"')
        if not kinds:
            said = next(iter(raw), "")
            named = f"unknown key {said!r}; " if raw else "is empty; "
            raise DefinitionError(
                path, f"{named}a condition needs one of {', '.join(all_kinds)}{meant(said, all_kinds)}"
            )
        kind = kinds[0]
        if kind in ("all", "any"):
            check_keys(path, raw, allowed=(kind,), required=(kind,))
            items = need_list(f"{path}.{kind}", raw[kind])
            parts = tuple(self.condition(f"{path}.{kind}[{i}]", item, depth + 1) for i, item in enumerate(items))
            return All(parts) if kind == "all" else Any_(parts)
        if kind == "not":
            check_keys(path, raw, allowed=("not",), required=("not",))
            return Not(self.condition(f"{path}.not", raw["not"], depth + 1))
        if kind == "members":
            return self._members(path, raw, depth)
        return self._leaves[kind](path, raw)

    def _members(self, path: str, raw: Mapping[str, Any], depth: int) -> Condition:
        check_keys(path, raw, allowed=("members", "where"), required=("members", "where"))
        if raw["members"] not in _QUANTIFIERS:
            raise DefinitionError(f"{path}.members", f"must be one of {', '.join(_QUANTIFIERS)}")
        self._of = "people"
        part = self.condition(f"{path}.where", raw["where"], depth + 1)
        self._of = "groups"
        return Members(raw["members"], part)

    def _window(self, path: str, raw: Mapping[str, Any]) -> Window:
        return parse_window(path, raw, self._zone)

    def _span(self, path: str, raw: Mapping[str, Any], key: str) -> Span:
        return parse_span(f"{path}.{key}", raw[key], self._zone)

    def _event(self, path: str, raw: Mapping[str, Any]) -> Condition:
        check_keys(path, raw, allowed=("event", "where", "count", *AGGREGATES, *WINDOW_KEYS), required=("event",))
        names = parse_event_names(f"{path}.event", raw["event"])
        every = parse_predicates(f"{path}.where", raw["where"], moving=True) if "where" in raw else ()
        where = tuple(p for p in every if p.test.op not in MOVING_OPS)
        dated = tuple(p for p in every if p.test.op in MOVING_OPS)
        window = self._window(path, raw)
        present = [key for key in ("count", *AGGREGATES) if key in raw]
        if len(present) > 1:
            raise DefinitionError(path, f'has both {present[0]!r} and {present[1]!r}; combine two events with "all"')
        if not present or present == ["count"]:
            accept = parse_count(f"{path}.count", raw["count"]) if present else (False, True)
            return (
                DatedCount(names, where, dated, window, accept) if dated else EventCount(names, where, window, accept)
            )
        function = present[0]
        if dated:
            raise DefinitionError(
                f"{path}.where", f'"{dated[0].test.op}" goes with a count of events, not with {function!r}'
            )
        property_path, test = _aggregate(f"{path}.{function}", raw[function])
        return Aggregate(names, where, window, function, property_path, test)

    def _first_time(self, path: str, raw: Mapping[str, Any]) -> Condition:
        check_keys(path, raw, allowed=("first_time", *WINDOW_KEYS), required=("first_time",))
        return FirstTime(parse_event_names(f"{path}.first_time", raw["first_time"]), self._window(path, raw))

    def _last_time(self, path: str, raw: Mapping[str, Any]) -> Condition:
        check_keys(path, raw, allowed=("last_time", "where", *WINDOW_KEYS), required=("last_time",))
        names = parse_event_names(f"{path}.last_time", raw["last_time"])
        return LastTime(names, _where(path, raw), self._window(path, raw))

    def _stopped(self, path: str, raw: Mapping[str, Any]) -> Condition:
        keys = ("stopped", "active_within", "inactive_for")
        check_keys(path, raw, allowed=keys, required=keys)
        names = parse_event_names(f"{path}.stopped", raw["stopped"])
        active, inactive = self._span(path, raw, "active_within"), self._span(path, raw, "inactive_for")
        check_shorter(path, inactive, "inactive_for", active, "active_within")
        # Whose latest event lies between the two ends was active before the one and is inactive since.
        return LastTime(names, (), Window(within=active, older_than=inactive))

    def _restarted(self, path: str, raw: Mapping[str, Any]) -> Condition:
        keys = ("restarted", "inactive_for", "active_within")
        check_keys(path, raw, allowed=keys, required=keys)
        names = parse_event_names(f"{path}.restarted", raw["restarted"])
        active, inactive = self._span(path, raw, "active_within"), self._span(path, raw, "inactive_for")
        if isinstance(active, Fixed) and isinstance(inactive, Fixed):
            return Restarted(names, active, Fixed(active.us + inactive.us))
        if isinstance(active, Calendar) and isinstance(inactive, Calendar):
            return Restarted(names, active, Calendar(active.days + inactive.days, self._zone))
        raise DefinitionError(
            f"{path}.inactive_for", "inactive_for and active_within must both be durations or both calendar days"
        )

    def _regularly(self, path: str, raw: Mapping[str, Any]) -> Condition:
        needed = ("regularly", "period", "periods", "at_least")
        check_keys(path, raw, allowed=(*needed, "count"), required=needed)
        names = parse_event_names(f"{path}.regularly", raw["regularly"])
        period = parse_duration(f"{path}.period", raw["period"])
        periods = _whole(f"{path}.periods", raw["periods"], 1, MAX_PERIODS)
        at_least = _whole(f"{path}.at_least", raw["at_least"], 1, MAX_PERIODS)
        if at_least > periods:
            raise DefinitionError(f"{path}.at_least", "at_least must not be greater than periods")
        if periods * period > MAX_DURATION_US:
            raise DefinitionError(f"{path}.periods", "periods of that length must together be shorter than 100 years")
        accept = parse_count(f"{path}.count", raw["count"]) if "count" in raw else (False, True)
        return Regularly(names, period, periods, at_least, accept)

    def _sequence(self, path: str, raw: Mapping[str, Any]) -> Condition:
        check_keys(path, raw, allowed=("sequence", *WINDOW_KEYS), required=("sequence",))
        items = need_list(f"{path}.sequence", raw["sequence"])
        if not 2 <= len(items) <= MAX_STEPS:
            raise DefinitionError(f"{path}.sequence", f"must have 2 to {MAX_STEPS} steps")
        steps = tuple(_step(f"{path}.sequence[{i}]", item, first=i == 0) for i, item in enumerate(items))
        for i, step in enumerate(steps[1:]):
            if step.negated and steps[i].negated:
                reason = "two negated steps must not follow each other: name both events in one"
                raise DefinitionError(f"{path}.sequence[{i + 1}]", reason)
        window = self._window(path, raw)
        last = steps[-1]
        if last.negated and last.within_us is not None and last.within_us >= _longest(window.within):
            # That it did not come is known when its time is over, and then the step before has left the window.
            reason = f"must be shorter than {path}.within: else the step before is too old when this one has not come"
            raise DefinitionError(f"{path}.sequence[{len(steps) - 1}].within", reason)
        return InOrder(steps, window)


def _longest(span: Span | None) -> int:
    """How far a window may reach back at most, in microseconds; days of the calendar at a change of the clock."""
    if span is None:
        return sys.maxsize
    return span.us if isinstance(span, Fixed) else (span.days + 1) * DAY_US


def _tests_in(raw: object) -> int:
    """How many tests of properties, and steps of a sequence, a condition has: each costs as much as a condition."""
    if not isinstance(raw, Mapping):
        return 0
    tests, steps = raw.get("where"), raw.get("sequence")
    within = len(tests) if isinstance(tests, list) else 0
    return within + (sum(1 + _tests_in(step) for step in steps) if isinstance(steps, list) else 0)


def _where(path: str, raw: Mapping[str, Any]) -> tuple[Predicate, ...]:
    return parse_predicates(f"{path}.where", raw["where"]) if "where" in raw else ()


def _aggregate(path: str, raw: object) -> tuple[tuple[str, ...], Test]:
    if not isinstance(raw, Mapping) or "of" not in raw:
        raise DefinitionError(path, 'must be an object such as {"of": "value", "gte": 500}')
    check_keys(path, raw, allowed=("of", *_AGGREGATE_OPS), required=("of",))
    property_path = need_path(f"{path}.of", raw["of"])
    ops = [key for key in raw if key != "of"]
    if len(ops) != 1:
        found = f"has {ops[0]!r} and {ops[1]!r}" if ops else "has no comparison"
        raise DefinitionError(path, f"{found}; write one of {', '.join(_AGGREGATE_OPS)}")
    test = parse_test(path, raw, subject="of", moving=False)
    if any(isinstance(value, bool | str) for value in test.values):
        raise DefinitionError(f"{path}.{test.op}", "must be a number")
    return property_path, test


def _step(path: str, raw: object, *, first: bool) -> Step:
    if not isinstance(raw, Mapping) or "event" not in raw:
        raise DefinitionError(path, 'must be an object such as {"event": "Purchased", "within": "1h"}')
    for key in ("within", "negated", "same"):
        if first and key in raw:
            raise DefinitionError(f"{path}.{key}", f"the first step has no {key!r}: there is no step before it")
    check_keys(path, raw, allowed=("event", "where", "within", "negated", "same"), required=("event",))
    within = parse_duration(f"{path}.within", raw["within"]) if "within" in raw else None
    negated = raw.get("negated", False)
    if not isinstance(negated, bool):
        raise DefinitionError(f"{path}.negated", "must be true or false")
    paths = _same(f"{path}.same", raw["same"]) if "same" in raw else ()
    return Step(parse_event_names(f"{path}.event", raw["event"]), _where(path, raw), within, negated, paths)


def _same(path: str, raw: object) -> tuple[tuple[str, ...], ...]:
    if not isinstance(raw, str | list):
        raise DefinitionError(path, 'must be a property such as "product_id", or a list of them')
    return tuple(need_path(path, item) for item in ([raw] if isinstance(raw, str) else need_list(path, raw)))


def _whole(path: str, raw: object, least: int, most: int) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= most:
        raise DefinitionError(path, f"must be a whole number from {least} to {most}")
    return raw


def _trait(path: str, raw: Mapping[str, Any]) -> Condition:
    trait_path = need_path(f"{path}.trait", raw["trait"])
    return TraitTest(trait_path, parse_test(path, raw, subject="trait", moving=True))


def _computed(path: str, raw: Mapping[str, Any]) -> Condition:
    trait_id = need_name(f"{path}.computed", raw["computed"])
    for op in MOVING_OPS:
        if op in raw:
            raise DefinitionError(f"{path}.{op}", f'"{op}" does not go with computed traits; "before" and "after" do')
    return ComputedTest(trait_id, parse_test(path, raw, subject="computed", moving=False))


def _consent(path: str, raw: Mapping[str, Any]) -> Condition:
    check_keys(path, raw, allowed=("consent", "eq", "neq", "exists"), required=("consent",))
    purpose = purpose_of(need_name(f"{path}.consent", raw["consent"]))
    if purpose is None:
        raise DefinitionError(f"{path}.consent", "is no purpose: write 1 to 64 printable characters")
    test = parse_test(path, raw, subject="consent", moving=False)
    if test.op != "exists" and test.values[0] not in _STATUSES:
        raise DefinitionError(f"{path}.{test.op}", 'must be "granted" or "denied"')
    return ConsentTest(purpose, test)


def _touch(which: str, path: str, raw: Mapping[str, Any]) -> Condition:
    key = f"{which}_touch"
    touch_path = need_path(f"{path}.{key}", raw[key])
    name, *inside = touch_path
    parts = CAMPAIGN_PARTS if name == "campaign" else ()
    known = [*(f"campaign.{part}" for part in CAMPAIGN_PARTS), *(touch for touch in TOUCHES if touch != "campaign")]
    if name not in TOUCHES or len(inside) > 1 or (inside and inside[0] not in parts):
        said = ".".join(touch_path)
        raise DefinitionError(f"{path}.{key}", f"{said!r} is none of campaign, {', '.join(known)}{meant(said, known)}")
    test = parse_test(path, raw, subject=key, moving=False)
    if name == "campaign" and not inside and test.op != "exists":
        whole = f'a whole campaign can only be tested by "exists"; use one of {", ".join(known[: len(parts)])}'
        raise DefinitionError(f"{path}.{key}", whole)
    return TouchTest(which, touch_path, test)


def _identifier(path: str, raw: Mapping[str, Any]) -> Condition:
    check_keys(path, raw, allowed=("identifier", "exists"), required=("identifier", "exists"))
    namespace = need_name(f"{path}.identifier", raw["identifier"])
    if not isinstance(raw["exists"], bool):
        raise DefinitionError(f"{path}.exists", "must be true or false")
    return IdentifierExists(namespace, raw["exists"])


def _audience(path: str, raw: Mapping[str, Any]) -> Condition:
    check_keys(path, raw, allowed=("audience",), required=("audience",))
    return AudienceMember(need_name(f"{path}.audience", raw["audience"]))
