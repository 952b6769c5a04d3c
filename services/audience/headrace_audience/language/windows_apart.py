"""Counts of events in different windows that nobody can have together: three in the last week, none in the last month.

Of two counts the one *holds* the other when every event that the other counts is counted by it too: the other's events
are among its events, the other's tests are at least its tests, and the other's window lies within its window, at every
moment. Then it is never less than the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf

from headrace.domain.definitions import DefinitionError, Predicate
from headrace_audience.language.definition import (
    All,
    Any_,
    Condition,
    DatedCount,
    EventCount,
    FirstTime,
    LastTime,
    Members,
    Not,
    Window,
)
from headrace_audience.language.spans import Calendar, Fixed, Span


@dataclass(frozen=True)
class _Bounds:
    """How many events of a kind in a window somebody must have, from the least to the most."""

    place: str
    names: frozenset[str]
    where: frozenset[str]
    """The tests of properties, as texts that tell `1` from `true`."""
    window: Window
    least: float
    most: float

    def holds(self, other: _Bounds) -> bool:
        """Whether this counts every event that the other one counts."""
        return other.names <= self.names and self.where <= other.where and _is_within(other.window, self.window)


def check_windows(place: str, condition: Condition) -> None:
    """Refuse counts that must hold together and cannot.

    Args:
        place: Place of the condition.
        condition: All of a definition.

    Raises:
        DefinitionError: There is such a pair; it names the places of both.
    """
    for together in _groups(place, condition):
        for number, later in enumerate(together):
            for earlier in together[:number]:
                for inner, outer in ((later, earlier), (earlier, later)):
                    if outer.holds(inner) and inner.least > outer.most:
                        raise DefinitionError(later.place, _reason(later, earlier, inner, outer))


def _reason(later: _Bounds, earlier: _Bounds, inner: _Bounds, outer: _Bounds) -> str:
    least, most = f"at least {int(inner.least)}", f"at most {int(outer.most)}" if outer.most else "none"
    here, there = (least, most) if later is inner else (most, least)
    counted = "each of those counts here too" if later is outer else "each of these counts there too"
    return f"cannot hold together with {earlier.place}: {there} there, {here} here, and {counted}: nobody would be in"


def _groups(place: str, condition: Condition) -> Iterator[list[_Bounds]]:
    """The bounds that must hold together: those of each part of the condition that no other `all` is around."""
    together: list[_Bounds] = []
    apart: list[tuple[str, Condition]] = []
    _collect(place, condition, True, together, apart)
    yield together
    for at, part in apart:
        yield from _groups(at, part)


def _collect(
    place: str, condition: Condition, wanted: bool, together: list[_Bounds], apart: list[tuple[str, Condition]]
) -> None:
    """Put bounds that hold whenever the condition is as wanted into `together`, parts of alternatives into `apart`."""
    if isinstance(condition, Not):
        _collect(f"{place}.not", condition.part, not wanted, together, apart)
    elif isinstance(condition, All | Any_):
        word = "all" if isinstance(condition, All) else "any"
        parts = [(f"{place}.{word}[{i}]", part) for i, part in enumerate(condition.parts)]
        if isinstance(condition, All) is wanted:
            for at, part in parts:
                _collect(at, part, wanted, together, apart)
        elif wanted:
            apart += parts
    elif isinstance(condition, Members):
        apart.append((f"{place}.where", condition.part))
    elif isinstance(condition, EventCount | DatedCount):
        numbers = [number for number, is_right in enumerate(condition.accept) if is_right is wanted]
        if numbers:
            dated = condition.dated if isinstance(condition, DatedCount) else ()
            most = inf if condition.accept[-1] is wanted else numbers[-1]
            kind = frozenset(condition.names), _tests((*condition.where, *dated))
            together.append(_Bounds(place, *kind, condition.window, numbers[0], most))
    elif isinstance(condition, FirstTime) and wanted:
        together.append(_Bounds(place, frozenset(condition.names), frozenset(), condition.window, 1, inf))
    elif isinstance(condition, LastTime):
        together += _bounds_of_latest(place, condition, wanted)


def _bounds_of_latest(place: str, condition: LastTime, wanted: bool) -> Iterator[_Bounds]:
    """What it means for the numbers of events that the latest one lies in a window, or does not."""
    names, window, any_ = frozenset(condition.names), condition.window, frozenset[str]()
    if wanted:
        yield _Bounds(place, names, _tests(condition.where), window, 1, inf)
        if window.older_than is not None:
            yield _Bounds(place, names, any_, Window(within=window.older_than), 0, 0)
        if window.to_us is not None:
            yield _Bounds(place, names, any_, Window(from_us=window.to_us + 1), 0, 0)
    elif not condition.where and window.older_than is None and window.to_us is None:
        yield _Bounds(place, names, any_, window, 0, 0)


def _tests(predicates: Iterable[Predicate]) -> frozenset[str]:
    return frozenset(map(repr, predicates))


def _is_within(inner: Window, outer: Window) -> bool:
    """Whether a window lies within another one at every moment; False also where that cannot be told."""
    if outer.from_us is not None and (inner.from_us is None or inner.from_us < outer.from_us):
        return False
    if outer.to_us is not None and (inner.to_us is None or inner.to_us > outer.to_us):
        return False
    if outer.older_than is not None and not _reaches(inner.older_than, outer.older_than):
        return False
    return outer.within is None or _reaches(outer.within, inner.within)


def _reaches(longer: Span | None, shorter: Span | None) -> bool:
    """Whether a span reaches back at least as far as another; False also where that cannot be told, or one is none."""
    if isinstance(longer, Fixed) and isinstance(shorter, Fixed):
        return longer.us >= shorter.us
    if isinstance(longer, Calendar) and isinstance(shorter, Calendar):
        return longer.zone == shorter.zone and longer.days >= shorter.days
    return False
