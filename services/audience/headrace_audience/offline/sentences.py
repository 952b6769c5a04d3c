"""What an explanation says in plain words: of each condition what holds and what is missing, and a summary of all.

One function for each kind of condition, in `_SENTENCES`. They are made of the condition and of what `explain` found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.domain.definitions import Predicate, Test
from headrace.domain.times import format_time_us
from headrace_audience.language.definition import (
    Aggregate,
    All,
    Any_,
    AudienceMember,
    ComputedTest,
    ComputedValue,
    Condition,
    ConsentTest,
    DatedCount,
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
from headrace_audience.language.spans import Calendar, Span
from headrace_audience.offline.fewest import Change, Fewest, Found

MOST_SAID = 5
"""A summary names so many conditions; of more it says how many."""

_UNITS = ((86_400_000_000, "day"), (3_600_000_000, "hour"), (60_000_000, "minute"))
_OPS = {
    "eq": "{}",
    "neq": "other than {}",
    "in": "one of {}",
    "not_in": "none of {}",
    "contains": "containing {}",
    "not_contains": "not containing {}",
    "starts_with": "starting with {}",
    "ends_with": "ending with {}",
    "matches": "matching {}",
    "gt": "more than {}",
    "gte": "at least {}",
    "lt": "less than {}",
    "lte": "at most {}",
    "before": "before {}",
    "after": "after {}",
    "in_last": "in the last {}",
    "in_next": "in the next {}",
}
_FUNCTIONS = {
    "sum": "the sum of",
    "avg": "the average of",
    "min": "the smallest",
    "max": "the largest",
    "distinct": "the number of different values of",
}


def sentence(condition: Condition, found: Found) -> str:
    """What holds of a condition, or is missing, and when time alone changes that.

    Args:
        condition: The condition.
        found: What `explain` found of it, with the sentences of its parts.
    """
    said = _SENTENCES[type(condition)](condition, found)
    if found["changes_at"] is None:
        return f"{said}."
    word = "no longer so" if found["holds"] else "so"
    return f"{said}; {word} from {found['changes_at']} on if no event comes."


def summary(found: Found, enough: Fewest, *, tells_time: bool = True) -> str:
    """Why somebody is in or out, what would change that, and when it changes by itself.

    Args:
        found: What `explain` found of the whole condition, with all sentences.
        enough: The fewest conditions whose change is enough.
        tells_time: Whether it is known when it changes by itself.
    """
    is_in = found["holds"]
    told = [f"{'In' if is_in else 'Out'}: {_listed(_reasons(found))}", _change(enough, "leave" if is_in else "enter")]
    if found["changes_at"] is not None:
        told.append(f"By time alone it {'leaves' if is_in else 'enters'} at {found['changes_at']}.")
    elif is_in and tells_time:
        told.append("Time alone does not end it.")
    return " ".join(told)


def missing(enough: Fewest) -> list[str]:
    """Of each condition that would have to change what is wanted, and what was found."""
    return [f"{_wish(change)} (found: {change.found['sentence'].removesuffix('.')})." for change in enough.changes]


def _change(enough: Fewest, verb: str) -> str:
    number = len(enough.changes)
    if number:
        perhaps = "" if enough.is_certain else ", perhaps of fewer"
        wishes = _listed([f"{_wish(change)}." for change in enough.changes])
        return f"To {verb}, a change of {_counted(number, 'condition')} is enough{perhaps}: {wishes}"
    if enough.is_certain:
        return f"To {verb}, no change of conditions is enough."
    return f"What is enough to {verb} was not found: too many conditions are named several times."


def _wish(change: Change) -> str:
    return f"must {'hold' if change.must_hold else 'no longer hold'}: {change.found['text']}"


def _reasons(found: Found) -> list[str]:
    """The sentences of the conditions that make it what it is."""
    if found["kind"] == "not":
        return _reasons(found["parts"][0])
    if found["kind"] in ("all", "any"):
        parts = found["parts"]
        if (found["kind"] == "all") is not found["holds"]:
            parts = [part for part in parts if part["holds"] is found["holds"]]
        return list(dict.fromkeys(said for part in parts for said in _reasons(part)))
    return [found["sentence"]]


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - MOST_SAID
    said = " ".join(text[:1].upper() + text[1:] for text in texts[:MOST_SAID])
    return f"{said} And {_counted(more, 'more condition')}." if more > 0 else said or "there are no conditions."


def _counted(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number:,} {noun}s"


# What is said of values.


def _value(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)


def _wanted(test: Test) -> str:
    """What a test wants a value to be."""
    if test.op == "exists":
        return "any value" if test.values[0] else "no value"
    if test.op == "between":
        return f"from {_value(test.values[0])} to {_value(test.values[1])}"
    if test.op in ("before", "after"):
        said = format_time_us(int(float(test.values[0])))
    elif test.op in ("in_last", "in_next"):
        said = _duration(int(float(test.values[0])))
    else:
        said = " or ".join(map(_value, test.values))
    return _OPS[test.op].format(said) + (" in any case" if test.ignore_case else "")


def _compared(what: str, value: Any, test: Test, holds: bool) -> str:
    """What a value is beside what it should be."""
    if value is None:
        return f"{what} is not known" + (", as it may be" if holds else f" (wanted: {_wanted(test)})")
    return f"{what} is {_value(value)} (wanted: {_wanted(test)})"


def _of_path(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


# What is said of events.


def _names(names: Sequence[str], where: Sequence[Predicate] = ()) -> str:
    tests = " and ".join(f"{'.'.join(p.path)} {_wanted(p.test)}" for p in where)
    return " or ".join(names) + (f" with {tests}" if tests else "")


def _duration(us: int) -> str:
    for unit, name in _UNITS:
        if us >= unit and us % unit == 0:
            return _counted(us // unit, name)
    return _counted(us // 1_000_000, "second") if us % 1_000_000 == 0 else f"{us / 1e6:g} seconds"


def _span(span: Span) -> str:
    if isinstance(span, Calendar):
        return f"{_counted(span.days, 'calendar day')} ({span.zone})"
    return _duration(span.us)


def _window(window: Window) -> str:
    """Where events count, with a space before it; empty for ever."""
    if window.within is not None and window.older_than is not None:
        return f" between {_span(window.within)} and {_span(window.older_than)} ago"
    if window.within is not None:
        return f" in the last {_span(window.within)}"
    if window.from_us is None and window.to_us is None:
        return ""
    ends = [
        f"{word} {format_time_us(us)}"
        for word, us in (("from", window.from_us), ("to", window.to_us))
        if us is not None
    ]
    return f" {' '.join(ends)}"


def _accepted(accept: Sequence[bool]) -> str:
    """Which numbers of events are right."""
    last = len(accept) - 1
    runs: list[tuple[int, int]] = []
    for number, is_right in enumerate(accept):
        if is_right and runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        elif is_right:
            runs.append((number, number))
    said = [_run(first, until, is_open=until == last) for first, until in runs]
    return " or ".join(said) if said else "an impossible number"


def _run(first: int, until: int, *, is_open: bool) -> str:
    if is_open:
        return f"at least {first:,}" if first else "any number"
    if first == 0:
        return f"at most {until:,}" if until else "none"
    return f"exactly {first:,}" if first == until else f"{first:,} to {until:,}"


def _count(condition: EventCount | DatedCount, found: Found) -> str:
    counted, accept = found["counted"], condition.accept
    events, window = _names(condition.names, condition.where), _window(condition.window)
    if isinstance(condition, DatedCount):
        events += " whose " + " and ".join(f"{'.'.join(p.path)} lies {_wanted(p.test)}" for p in condition.dated)
    said = f"{counted:,} {events}{window}"
    if counted == 0:
        said = f"no {events}{window}" if window else f"never performed {events}"
    if tuple(accept) == (False, True):  # one is enough
        return said
    said += f" ({_accepted(accept)} wanted)"
    if found["holds"]:
        return said
    above = next((n for n in range(counted + 1, len(accept)) if accept[n]), None)
    below = next((n for n in range(min(counted, len(accept)) - 1, -1, -1) if accept[n]), None)
    if above is not None:
        more = above - counted
        return f"{said}; {'the next' if more == 1 else f'{more:,} more'} would be enough"
    return f"{said}; {counted - below:,} too many" if below is not None else said


def _aggregate(condition: Aggregate, found: Found) -> str:
    what = f"{_FUNCTIONS[condition.function]} {'.'.join(condition.path)}"
    of = f" over {_counted(found['counted'], 'event')} {_names(condition.names, condition.where)}"
    if found["passed_over"]:
        kind = "value" if condition.function == "distinct" else "number"
        of += f" ({found['passed_over']:,} of them without a {kind} there)"
    return _compared(f"{what}{of}{_window(condition.window)}", found["value"], condition.test, found["holds"])


def _computed(condition: ComputedValue | ComputedTest, found: Found) -> str:
    return _compared(f"the computed trait {condition.trait_id}", found.get("value"), condition.test, found["holds"])


def _newest(found: Found) -> str:
    events = found["events"]
    return f"the latest was at {events[0]['timestamp']}" if events else "there was none"


def _first(condition: FirstTime, found: Found) -> str:
    return _occurrence("first", condition, (), found["first"])


def _last(condition: LastTime, found: Found) -> str:
    newest = found["events"][0]["timestamp"] if found["events"] else None
    return _occurrence("latest", condition, condition.where, newest)


def _occurrence(word: str, condition: FirstTime | LastTime, where: Sequence[Predicate], at: str | None) -> str:
    if at is None:
        return f"never performed {_names(condition.names)}"
    wanted = f"one{_names((), where)}{_window(condition.window) or ' at any time'}"
    return f"the {word} {_names(condition.names)} was at {at} (wanted: {wanted})"


def _restarted(condition: Restarted, found: Found) -> str:
    began = "began" if found["holds"] else "did not begin"
    return f"{began} {_names(condition.names)} again in the last {_span(condition.active_within)}; {_newest(found)}"


def _regularly(condition: Regularly, found: Found) -> str:
    have = "have" if found["holds"] else "do not have"
    periods = f"{condition.at_least:,} of the last {condition.periods:,} periods of {_duration(condition.period_us)}"
    return f"{periods} {have} the right number of {_names(condition.names)} ({_accepted(condition.accept)})"


def _in_order(condition: InOrder, found: Found) -> str:
    came = "came" if found["holds"] else "did not come"
    return f"the sequence {', then '.join(map(_step, condition.steps))} {came}{_window(condition.window)}"


def _step(step: Step) -> str:
    said = f"{'not ' if step.negated else ''}{_names(step.names, step.where)}"
    if step.same:
        said += f" with the same {' and '.join('.'.join(path) for path in step.same)}"
    return said if step.within_us is None else f"{said} within {_duration(step.within_us)}"


# What is said of people.


def _attribute(condition: TraitTest | TouchTest, found: Found) -> str:
    if isinstance(condition, TouchTest):
        what = f"the {condition.which} {'.'.join(condition.path)}"
        return _compared(what, found["value"], condition.test, found["holds"])
    value = _of_path(found["value"], condition.path[1:])
    return _compared(f"the trait {'.'.join(condition.path)}", value, condition.test, found["holds"])


def _consent(condition: ConsentTest, found: Found) -> str:
    return _compared(f"consent to {condition.purpose}", found["value"], condition.test, found["holds"])


def _identifier(condition: IdentifierExists, found: Found) -> str:
    has = condition.exists is found["holds"]
    wanted = "" if found["holds"] else f"; {'one' if condition.exists else 'none'} is wanted"
    return f"has {'an' if has else 'no'} identifier {condition.namespace}{wanted}"


def _member(condition: AudienceMember, found: Found) -> str:
    return f"{'in' if found['holds'] else 'not in'} the audience {condition.audience_id}"


def _members(condition: Members, found: Found) -> str:
    wanted = {"any": "one is enough", "all": "all wanted", "none": "none wanted"}[condition.quantifier]
    if found["members"] == 0:
        return f"the group has no members ({wanted})"
    holding = found["members_holding"]
    return f"{holding:,} of {_counted(found['members'], 'member')} with {found['of']} ({wanted})"


def _combined(word: str) -> Callable[[Any, Found], str]:
    def said(condition: All | Any_, found: Found) -> str:
        holding = sum(part["holds"] for part in found["parts"])
        return f"{holding:,} of {_counted(len(found['parts']), 'condition')} hold ({word} wanted)"

    return said


def _not(condition: Not, found: Found) -> str:
    return "what must not hold does not" if found["holds"] else "what must not hold does"


_SENTENCES: dict[type[Condition], Callable[[Any, Found], str]] = {
    All: _combined("all"),
    Any_: _combined("one"),
    Not: _not,
    EventCount: _count,
    DatedCount: _count,
    Aggregate: _aggregate,
    ComputedValue: _computed,
    ComputedTest: _computed,
    FirstTime: _first,
    LastTime: _last,
    Restarted: _restarted,
    Regularly: _regularly,
    InOrder: _in_order,
    TraitTest: _attribute,
    TouchTest: _attribute,
    ConsentTest: _consent,
    IdentifierExists: _identifier,
    AudienceMember: _member,
    Members: _members,
}
"""What is said of each kind of condition."""
