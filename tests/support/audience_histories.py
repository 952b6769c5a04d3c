"""Random audience definitions and histories, small enough that everything happens at the edges.

All functions take their choices from a `random.Random`: a seeded one for many quick trials, or one that hypothesis
drives, which makes failing examples small.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any, ParamSpec
from unittest import mock
from zoneinfo import ZoneInfo

from headrace_audience.language.computed import bind
from headrace_audience.language.definition import Definition
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.facts import Fact
from headrace_audience.offline.reference import Audiences

from headrace.domain.computed_traits.definition import FUNCTION_NAMES
from headrace.domain.computed_traits.definition import parse_definition as parse_computed
from headrace.domain.times import SECOND_US, parse_time_us

P = ParamSpec("P")

START = 1_767_225_600 * SECOND_US  # 2026-01-01
SPAN_S = 60
"""Histories lie in so many seconds, with some events before and after."""
BEFORE_S = 10
"""So long before the span there are events too."""
APART_S = (0,)
"""Histories lie in several such spans, so many seconds apart."""

NAMES = ("A", "B", "C")
TRAITS = ("plan", "city", "due")
NAMESPACES = ("email", "user_id")
PROFILES = ("p", "q", "r")
GROUPS = ("g", "h")
PURPOSES = ("ads", "mail")
COMPUTED = ("spent", "best-loved", "nothing")
"""Computed traits, the last of which does not exist."""
CONTEXTS: tuple[dict[str, Any], ...] = (
    {"campaign": {"source": "a", "medium": "mail"}},
    {"campaign": {"source": "b"}, "userAgentData": {"brands": [{"brand": "Brave"}], "mobile": True}},
    {"location": {"country": "IN"}},
    {"location": {"country": "AE"}, "campaign": {"source": "A"}},
    {"device": {"type": "ios"}},
    {"device": {"type": "android"}, "timezone": "Asia/Calcutta"},
)
"""What events say of how they reached the person."""
ZONES = ("UTC", "Asia/Kolkata", "America/New_York")
"""Days begin in the span in UTC, and hours beside it in the others."""

CHANGES = (
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("America/New_York", "2026-03-08T07:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z"),
    ("Australia/Adelaide", "2026-04-04T16:30:00Z"),  # half hours, in the south
    ("Australia/Adelaide", "2026-10-03T16:30:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),  # by half an hour
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("America/Santiago", "2026-04-05T03:00:00Z"),  # the last hour of a day comes twice
    ("America/Santiago", "2026-09-06T04:00:00Z"),  # midnight is skipped
    ("America/Havana", "2026-11-01T05:00:00Z"),  # midnight comes twice
    ("America/St_Johns", "2010-11-07T02:31:00Z"),  # a minute after midnight, back into the day before
    ("America/St_Johns", "2010-03-14T03:31:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),  # a whole day is skipped
)
"""Zones and the moments at which their clocks change."""

SCALARS = (0, 1, 2, 2.0, -0.1, 1.5, "2", "pro", "PRO", "free", True, False)
VALUES = (*SCALARS, None)


def time(r: Random, first_s: int, last_s: int) -> int:
    """A whole second, counted from the beginning of the span, or of one of those."""
    return START + (r.choice(APART_S) + r.randint(first_s, last_s)) * SECOND_US


def moment(r: Random) -> int:
    """A moment in or around the span: on a whole second, where the edges are, or a microsecond beside it."""
    return time(r, -5, SPAN_S + 40) + r.choice((0, 0, 0, -1, 1))


def time_text(r: Random) -> str:
    """A time in or around the span as text, with a zone."""
    seconds = time(r, -20, SPAN_S + 20) // SECOND_US
    return datetime.fromtimestamp(seconds, timezone(timedelta(hours=1))).isoformat()


def some(r: Random, choices: tuple[Any, ...], least: int, most: int) -> list[Any]:
    """A few of the choices, perhaps some twice."""
    return [r.choice(choices) for _ in range(r.randint(least, most))]


def count(r: Random) -> dict[str, Any]:
    """A comparison of a number of events."""
    most = 12 if r.randint(0, 5) == 5 else 4
    op = r.choice(("gte", "eq", "neq", "gt", "lt", "lte", "between", "in", "not_in"))
    if op == "between":
        return {op: sorted([r.randint(0, most), r.randint(0, most)])}
    if op in ("in", "not_in"):
        return {op: [r.randint(0, most) for _ in range(r.randint(1, 3))]}
    return {op: r.randint(0, most)}


def span(r: Random, least: int = 1, most: int = 30) -> str:
    """A duration."""
    return f"{r.randint(least, min(most, SPAN_S // 2))}s"


@contextmanager
def crowded() -> Iterator[None]:
    """Everything happens to one person within seconds: much at the same time, and on the edges of windows."""
    with mock.patch.multiple(__name__, SPAN_S=8, BEFORE_S=4, PROFILES=("p",), NAMES=("A", "B")):
        yield


def anywhen(test: Callable[P, None]) -> Callable[P, None]:
    """A test whose `r` lets one of four histories happen in the days around a change of the clocks of some zone."""

    @functools.wraps(test)
    def changed(*args: P.args, **kwargs: P.kwargs) -> None:
        r = kwargs["r"]
        assert isinstance(r, Random)
        if r.randint(0, 3) < 3:
            test(*args, **kwargs)
            return
        zone, change = r.choice(CHANGES)
        start = r.choice((parse_time_us(change), *midnights(zone, change))) - SPAN_S // 2 * SECOND_US
        day, hour = 24 * 3600, 3600
        apart = (0, 0, 0, -day, day, -day - hour, day - hour, day + hour, 2 * day, hour // 2)
        with mock.patch.multiple(__name__, START=start, APART_S=apart, ZONES=(zone, zone, "UTC")):
            test(*args, **kwargs)

    return changed


def midnights(zone: str, change: str) -> list[int]:
    """The beginnings of the day of a change and of the next one, as the zone's own library says."""
    local = datetime.fromisoformat(change).astimezone(ZoneInfo(zone))
    days = (local.replace(hour=0, minute=0, second=0, tzinfo=None) + timedelta(days=n) for n in (0, 1))
    return [int(day.replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND_US for day in days]


def window(r: Random) -> dict[str, Any]:
    """A window, or none."""
    kind = r.choice(("ever", "within", "within", "delayed", "since", "between", "days"))
    if kind == "within":
        return {"within": span(r)}
    if kind == "delayed":
        most = min(15, SPAN_S // 2)
        older = r.randint(1, most)
        return {"within": f"{older + r.randint(1, most)}s", "older_than": f"{older}s"}
    if kind == "since":
        return {"since": time_text(r)}
    if kind == "between":
        return {"between": sorted([time_text(r), time_text(r)])}
    if kind == "days":
        older = r.randint(1, 2)
        return {"within": f"{older + r.randint(1, 2)}cd", **({"older_than": f"{older}cd"} if r.randint(0, 1) else {})}
    return {}


def number_test(r: Random, most: int = 4) -> dict[str, Any]:
    """A comparison of a number."""
    op = r.choice(("eq", "neq", "gt", "gte", "lt", "lte", "between"))
    numbers = (0, 1, 2, 1.5, -0.1, most)
    return {op: sorted(some(r, numbers, 2, 2)) if op == "between" else r.choice(numbers)}


def where(r: Random) -> dict[str, Any]:
    """Predicates, or none."""
    if r.randint(0, 2) < 2:
        return {}
    return {"where": [{"property": r.choice(("x", "deep.y")), **comparison(r)} for _ in range(r.randint(1, 2))]}


def names(r: Random) -> Any:
    """A name, or some."""
    return r.choice(NAMES) if r.randint(0, 3) else some(r, NAMES, 1, 2)


def sequence(r: Random) -> dict[str, Any]:
    """A sequence of two to four steps."""
    steps: list[dict[str, Any]] = []
    for number in range(r.randint(2, 4)):
        step: dict[str, Any] = {"event": names(r), **where(r)}
        if number:
            if r.randint(0, 1):
                step["within"] = span(r, 1, 20)
            if r.randint(0, 2) == 2 and not steps[-1].get("negated"):
                step["negated"] = True
            if r.randint(0, 3) == 3:
                step["same"] = r.choice(("x", ["x", "deep.y"]))
        steps.append(step)
    found = window(r)
    last, whole = steps[-1], found.get("within", "")
    if last.get("negated") and whole.endswith("s") and int(last.get("within", "0s")[:-1]) >= int(whole[:-1]):
        del last["within"]  # it could never hold, and is refused
    return {"sequence": steps, **found}


def of_events(r: Random) -> dict[str, Any]:
    """A condition on events other than a count."""
    kind = r.choice(
        ("aggregate", "aggregate", "dated", "first_time", "last_time", "stopped", "restarted", "regularly", "sequence")
    )
    if kind == "aggregate":
        function = r.choice(("sum", "avg", "min", "max", "distinct"))
        of = {"of": r.choice(("x", "deep.y")), **number_test(r)}
        return {"event": names(r), **where(r), **window(r), function: of}
    if kind == "dated":
        dated = [{"property": "due", r.choice(("in_last", "in_next")): span(r, 1, 20)} for _ in range(r.randint(1, 2))]
        tests = [*where(r).get("where", []), *dated]
        return {"event": names(r), "where": tests, **window(r), **({"count": count(r)} if r.randint(0, 1) else {})}
    if kind == "first_time":
        return {"first_time": names(r), **window(r)}
    if kind == "last_time":
        return {"last_time": names(r), **where(r), **window(r)}
    if kind == "sequence":
        return sequence(r)
    if kind == "regularly":
        periods = r.randint(1, 4)
        found = {"regularly": names(r), "period": span(r, 1, 15), "periods": periods}
        return {**found, "at_least": r.randint(1, periods), **({"count": count(r)} if r.randint(0, 1) else {})}
    unit, most = ("cd", 3) if r.randint(0, 3) == 3 else ("s", min(20, SPAN_S // 2))
    inactive = r.randint(1, most)
    active = inactive + r.randint(1, most) if kind == "stopped" else r.randint(1, most)
    return {kind: names(r), "active_within": f"{active}{unit}", "inactive_for": f"{inactive}{unit}"}


def computed_traits(r: Random) -> dict[str, dict[str, Any]]:
    """Definitions of the computed traits of COMPUTED, but for "nothing"."""
    found: dict[str, dict[str, Any]] = {}
    for trait_id in COMPUTED[:-1]:
        function = r.choice(FUNCTION_NAMES)
        compute = function if function == "count" else {function: r.choice(("x", "deep.y"))}
        window = {"within": span(r)} if r.randint(0, 2) else {}
        found[trait_id] = {"event": names(r), "compute": compute, **where(r), **window}
    return found


def of_computed(r: Random) -> dict[str, Any]:
    """A test of a computed trait."""
    test = comparison(r) if r.randint(0, 2) else number_test(r, r.choice((4, 4, 10_001)))
    return {"computed": r.choice(COMPUTED), **test}


def comparison(r: Random) -> dict[str, Any]:
    """A test of a value, without its subject."""
    op = r.choice(
        (
            *("eq", "neq", "in", "not_in", "contains", "not_contains", "starts_with", "ends_with", "matches"),
            *("gt", "gte", "lt", "lte", "between", "exists", "before", "after"),
        )
    )
    case = {"ignore_case": True} if r.randint(0, 1) else {}
    if op in ("in", "not_in"):
        return {op: some(r, SCALARS, 1, 3), **case}
    if op in ("starts_with", "ends_with", "matches"):
        return {op: r.choice(("p", "pro", "r", "2", "PR")), **case}
    if op in ("gt", "gte", "lt", "lte"):
        return {op: r.choice((0, 1, 1.5, 2))}
    if op == "between":
        return {op: sorted(some(r, (0, 1, 1.5, 2), 2, 2))}
    if op == "exists":
        return {op: bool(r.randint(0, 1))}
    if op in ("before", "after"):
        return {op: time_text(r)}
    return {op: r.choice(SCALARS), **case}


def condition(r: Random, references: tuple[str, ...] = (), depth: int = 2) -> dict[str, Any]:
    """Any condition of the supported language."""
    if depth and r.randint(0, 1):
        kind = r.choice(("all", "any", "not"))
        if kind == "not":
            return {"not": condition(r, references, depth - 1)}
        return {kind: [condition(r, references, depth - 1) for _ in range(r.randint(1, 3))]}
    kinds = ("event", "event", "of_events", "of_events", "of_events", "computed", "written", "written", "identifier")
    kind = r.choice((*kinds, *(["audience"] if references else [])))
    if kind == "of_events":
        return of_events(r)
    if kind == "computed":
        return of_computed(r)
    if kind == "written":
        return of_attributes(r)
    if kind == "identifier":
        return {"identifier": r.choice(NAMESPACES), "exists": bool(r.randint(0, 1))}
    if kind == "audience":
        return {"audience": r.choice(references)}
    found: dict[str, Any] = {"event": names(r), **window(r), **where(r)}
    if r.randint(0, 2):
        found["count"] = count(r)
    return found


def of_attributes(r: Random) -> dict[str, Any]:
    """A condition on what events write: traits, consents, touches."""
    kind = r.choice(("trait", "moving", "consent", "touch"))
    if kind == "consent":
        said = r.choice(({"eq": "granted"}, {"eq": "denied"}, {"neq": "granted"}, {"exists": True}, {"exists": False}))
        return {"consent": r.choice(PURPOSES), **said}
    if kind == "touch":
        test = r.choice(
            ({"eq": "a", "ignore_case": True}, {"neq": "a"}, {"in": ["b", "IN"]}, {"exists": False}, {"contains": "i"})
        )
        path = r.choice(("campaign.source", "campaign.medium", "country", "platform", "device"))
        return {r.choice(("first_touch", "last_touch")): path, **test}
    if kind == "moving":
        return {"trait": "due", r.choice(("in_last", "in_next")): f"{r.randint(1, 20)}s"}
    return {"trait": r.choice(("plan", "city", "city.name", "due")), **comparison(r)}


def of_groups(r: Random, references: tuple[str, ...] = (), depth: int = 2) -> dict[str, Any]:
    """Any condition on groups."""
    kinds = ("members", "members", "trait", "moving", *(["audience"] if references else []))
    kind = r.choice((*kinds, "all", "any", "not") if depth else kinds)
    if kind in ("all", "any"):
        return {kind: [of_groups(r, references, depth - 1) for _ in range(r.randint(1, 3))]}
    if kind == "not":
        return {"not": of_groups(r, references, depth - 1)}
    if kind == "members":
        return {"members": r.choice(("any", "all", "none")), "where": condition(r, ("people",), 1)}
    if kind == "audience":
        return {"audience": r.choice(references)}
    if kind == "moving":
        return {"trait": "due", r.choice(("in_last", "in_next")): span(r, 1, 20)}
    return {"trait": r.choice(("plan", "due")), **comparison(r)}


@dataclass(frozen=True)
class Asked:
    """Audiences as they are given, the last of which is asked for.

    Attributes:
        audiences: Definitions in JSON, or ids of members, by id.
        computed: Definitions of computed traits in JSON, by id.
    """

    audiences: Mapping[str, Mapping[str, Any] | list[str]]
    computed: Mapping[str, Mapping[str, Any]]

    @functools.cached_property
    def meanings(self) -> Audiences:
        """What references mean."""
        computed = {trait_id: parse_computed(raw) for trait_id, raw in self.computed.items()}
        return {
            audience_id: raw if isinstance(raw, list) else bind(parse_definition(raw), computed)
            for audience_id, raw in self.audiences.items()
        }

    @property
    def definitions(self) -> dict[str, Definition]:
        """Those that are defined."""
        return {name: meaning for name, meaning in self.meanings.items() if isinstance(meaning, Definition)}

    @property
    def last(self) -> Definition:
        """The audience that is asked for."""
        return list(self.definitions.values())[-1]


def asked(r: Random, *, nobody: bool = True) -> Asked:
    """Three audiences, the later ones of which may refer to the earlier, the last one to a list of members too."""
    zone = {"time_zone": r.choice(ZONES)}
    listed: dict[str, Mapping[str, Any] | list[str]] = {"nobody": ["p", "somebody else"]} if nobody else {}
    found = {
        "one": {"where": condition(r), **zone},
        "two": {"where": condition(r, ("one",)), **zone},
        "three": {"where": condition(r, ("one", "two", "nobody")), **zone},
    }
    return Asked({**listed, **found}, computed_traits(r))


def audiences(r: Random) -> dict[str, Definition]:
    """Three audiences, the later ones of which may refer to the earlier."""
    return asked(r).definitions


def asked_one(r: Random) -> Asked:
    """One audience with one condition on events, or on what they write."""
    where = r.choice((of_events, of_events, of_attributes, of_computed))(r)
    return Asked({"three": {"where": where, "time_zone": r.choice(ZONES)}}, computed_traits(r))


def fact(r: Random, number: int) -> Fact:
    """One event of somebody; its number makes its message id, in an order that is not that of time."""
    kind = r.choice(("track", "track", "track", "identify", "page", "group"))
    group_id = r.choice(GROUPS) if kind == "group" or r.randint(0, 3) == 3 else ""
    traits: dict[str, Any] = {}
    if kind == "identify" or r.randint(0, 5) == 5:
        for name in dict.fromkeys(some(r, TRAITS, 0, 3)):
            value: Any = r.choice(VALUES)
            if name == "due" and r.randint(0, 2):
                value = time_text(r)
            elif name == "city" and r.randint(0, 1):
                value = {"name": value}
            traits[name] = value
    properties: dict[str, Any] = {}
    if r.randint(0, 1):
        properties["x"] = r.choice(VALUES) if r.randint(0, 3) else some(r, VALUES, 0, 2)
    if r.randint(0, 3) == 3:
        properties["deep"] = {"y": r.choice(VALUES)} if r.randint(0, 2) else r.choice(VALUES)
    if r.randint(0, 1):
        properties["due"] = time_text(r)
    return Fact(
        profile=r.choice(PROFILES),
        timestamp_us=time(r, -BEFORE_S, SPAN_S),
        message_id=f"{r.randint(0, 9)}-{number}",
        kind=kind,
        name=r.choice(NAMES),
        properties=properties,
        traits=traits,
        identifiers=tuple((n, "v") for n in dict.fromkeys(some(r, NAMESPACES, 0, 2))),
        consents={p: bool(r.randint(0, 1)) for p in some(r, PURPOSES, 0, 1)} if r.randint(0, 3) == 3 else {},
        group_id=group_id,
        group_traits={"plan": r.choice(VALUES), "due": time_text(r)} if kind == "group" and r.randint(0, 2) else {},
        context=r.choice(CONTEXTS) if r.randint(0, 2) == 2 else {},
    )


def history(r: Random, most: int = 24) -> list[Fact]:
    """A list of different events."""
    return [fact(r, number) for number in range(r.randint(0, most))]
