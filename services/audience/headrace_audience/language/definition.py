"""Audience definitions as a tree of frozen conditions.

The JSON is described in docs/reference/audience-definitions.md and read by `parser`. Everything that evaluates
definitions (the engine, the batch evaluator, the reference) starts from this tree; none of them looks at the JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace.domain.definitions import DefinitionError, Predicate, Test
from headrace_audience.language.spans import Span

CAMPAIGN_PARTS = ("source", "medium", "name", "term", "content", "id")
TOUCHES = ("campaign", "device", "browser", "os", "platform", "country")
"""What an event says of how it reached the person; `engine.touches` reads it."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which events count at the moment `now`, by event time: all when every field is None.

    Moving: those after `within.start(now)` and not after `older_than.start(now)`. Fixed: `[from_us, to_us]`, open at an
    end that is None.
    """

    within: Span | None = None
    older_than: Span | None = None
    from_us: int | None = None
    to_us: int | None = None

    @property
    def moves(self) -> bool:
        """Whether an event that counted may count no more, or one that came does not count yet."""
        return self.within is not None or self.older_than is not None


EVER = Window()


@dataclass(frozen=True, slots=True)
class EventCount:
    """How many events of these names, matching all predicates, lie in the window.

    `accept[c]` says whether c events are right; more than `len(accept) - 1` count as that many.
    """

    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    window: Window
    accept: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class DatedCount:
    """The same for events of which a property says a time that is to be near: `dated` tests it by "in_last", "in_next".

    So time alone moves an event in and out, beside the window.
    """

    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    dated: tuple[Predicate, ...]
    window: Window
    accept: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What becomes of a property over the events of these names that match all predicates and lie in the window.

    `function` is "sum", "avg", "min" or "max" of the numbers, or "distinct", how many different values there are.
    Numbers are compared to six decimals (see `amounts`). Of no number the sum is 0, and the others are missing.
    """

    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    window: Window
    function: str
    path: tuple[str, ...]
    test: Test


@dataclass(frozen=True, slots=True)
class FirstTime:
    """Whether the first event of these names lies in the window."""

    names: tuple[str, ...]
    window: Window


@dataclass(frozen=True, slots=True)
class LastTime:
    """Whether the latest event of these names, by (time, message id), matches all predicates and lies in the window."""

    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    window: Window


@dataclass(frozen=True, slots=True)
class Restarted:
    """Whether events of these names began again: some are older than both spans, none is in the gap, some are new.

    With A = `active_within` and G = `gone_since`, which is A and the time without events together: an event up to
    `G.start(now)`, none from there up to `A.start(now)`, one after it.
    """

    names: tuple[str, ...]
    active_within: Span
    gone_since: Span


@dataclass(frozen=True, slots=True)
class Regularly:
    """Whether enough periods have the right number of events of these names.

    Period i of `periods` is `(now - (i + 1) * period_us, now - i * period_us]`. `accept` as in EventCount.
    """

    names: tuple[str, ...]
    period_us: int
    periods: int
    at_least: int
    accept: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a sequence.

    Attributes:
        names: Names of the event.
        where: What its properties must pass.
        within_us: At most so long after the event of the step before; None: any time.
        negated: It must not come.
        same: Properties that must be there and equal those of the event of the step before.
    """

    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    within_us: int | None = None
    negated: bool = False
    same: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class InOrder:
    """Whether there are events, one for each step that is not negated, in order of (time, message id), in the window.

    After the event before it, up to the event of the following step, a negated step must not come; with `within_us`
    only for so long. At the end that is known only when the time is over; without `within_us` it holds until it comes.
    """

    steps: tuple[Step, ...]
    window: Window


@dataclass(frozen=True, slots=True)
class TraitTest:
    """A test of a trait; the first part of the path is the trait, the rest leads into its value."""

    path: tuple[str, ...]
    test: Test


@dataclass(frozen=True, slots=True)
class ConsentTest:
    """Whether what the person said last about a purpose is "granted" or "denied", or whether anything was said."""

    purpose: str
    test: Test


@dataclass(frozen=True, slots=True)
class TouchTest:
    """A test of how the person was reached first, or last: by which campaign, device, browser and so on.

    `which` is "first" or "last"; the first part of the path is one of TOUCHES, the rest leads inside.
    Only events that say something of it count: the first campaign is that of the first event that came by one.
    """

    which: str
    path: tuple[str, ...]
    test: Test


@dataclass(frozen=True, slots=True)
class ComputedTest:
    """A test of a computed trait, by its id. Nothing evaluates it: `computed.bind` says what it means."""

    trait_id: str
    test: Test


@dataclass(frozen=True, slots=True)
class ComputedValue:
    """A test of the value of a computed trait, together with what the trait computes.

    Of events of these names that match all predicates and lie in the window; see
    `headrace.domain.computed_traits`. Without such events there is no value, for "count" too. Of no names nobody has a
    value: so is a trait that does not exist.
    """

    trait_id: str
    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    window: Window
    function: str
    path: tuple[str, ...]
    test: Test


@dataclass(frozen=True, slots=True)
class IdentifierExists:
    """Whether the person has an identifier of a namespace."""

    namespace: str
    exists: bool


@dataclass(frozen=True, slots=True)
class AudienceMember:
    """Whether the person is in another audience."""

    audience_id: str


@dataclass(frozen=True, slots=True)
class All:
    """Every one of the conditions holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Any_:  # noqa: N801  # `Any` is taken by typing
    """At least one of the conditions holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    part: Condition


@dataclass(frozen=True, slots=True)
class Members:
    """Of a group: whether a condition holds for any of its members, for all of them (and there is one), or for none.

    `quantifier` is "any", "all" or "none".
    """

    quantifier: str
    part: Condition


OfEvents = EventCount | DatedCount | Aggregate | ComputedValue | FirstTime | LastTime | Restarted | Regularly | InOrder
OfAttributes = TraitTest | ConsentTest | TouchTest
Leaf = OfEvents | OfAttributes | ComputedTest | IdentifierExists | AudienceMember | Members
Condition = All | Any_ | Not | Leaf


@dataclass(frozen=True, slots=True)
class Definition:
    """A whole audience definition; `kind` is "dynamic" or "static", `of` is "people" or "groups".

    The condition of an audience of groups is made of tests of the groups' own traits, of Members, and of other
    audiences of groups.
    """

    kind: str
    where: Condition
    of: str = "people"
    refresh_us: int = 0
    """How often a dynamic one is computed, in microseconds; 0: all the time."""

    @property
    def is_batch(self) -> bool:
        """Whether its members are computed for one moment, by the batch evaluator, and stay until the next time.

        So are those of static audiences, of those refreshed at intervals, and of all audiences of groups.
        """
        return not self.is_continuous or self.of == "groups"

    @property
    def is_continuous(self) -> bool:
        """Whether its members are those of now: of people at every moment, of groups soon after anything changed."""
        return self.kind == "dynamic" and not self.refresh_us

    @property
    def references(self) -> frozenset[str]:
        """Ids of the audiences that it names."""
        return frozenset(audience_id for audience_id, _ in self.references_of())

    def references_of(self) -> frozenset[tuple[str, str]]:
        """Ids of the audiences that it names, each with what it must be of."""
        found: set[tuple[str, str]] = set()
        for leaf in walk(self.where):
            if isinstance(leaf, AudienceMember):
                found.add((leaf.audience_id, self.of))
            elif isinstance(leaf, Members):
                found |= Definition(self.kind, leaf.part).references_of()
        return frozenset(found)

    @property
    def computed_traits(self) -> frozenset[str]:
        """Ids of the computed traits that it names."""
        found: set[str] = set()
        for leaf in walk(self.where):
            if isinstance(leaf, ComputedTest | ComputedValue):
                found.add(leaf.trait_id)
            elif isinstance(leaf, Members):
                found |= Definition(self.kind, leaf.part).computed_traits
        return frozenset(found)


def walk(condition: Condition) -> Iterator[Leaf]:
    """All leaves of a condition, in order."""
    if isinstance(condition, All | Any_):
        for part in condition.parts:
            yield from walk(part)
    elif isinstance(condition, Not):
        yield from walk(condition.part)
    else:
        yield condition


def check_references(definitions: Mapping[str, Definition], about: str | None = None) -> list[str]:
    """Check all definitions of a workspace together; returns their ids so that each comes after those it names.

    Args:
        definitions: Audience id to definition.
        about: The one whose place of the fault is told, when it takes part in it; else any that does.

    Raises:
        DefinitionError: Some name each other in a circle; the error shows it. Or one of people names one of groups, or
            the other way round. An audience that does not exist is no error here: nobody is in it.
    """
    for definition in definitions.values():
        for audience_id, of in sorted(definition.references_of()):
            named = definitions.get(audience_id)
            if named is not None and named.of != of:
                reason = f"audience {audience_id!r} is of {named.of}; here one of {of} is needed"
                raise DefinitionError(_place_of(audience_id, definition), reason)
    order: list[str] = []
    done: set[str] = set()
    for start in sorted(definitions):
        stack: list[tuple[str, Iterator[str]]] = []
        trail: list[str] = []

        def push(audience_id: str) -> None:
            trail.append(audience_id)  # noqa: B023  # called at once
            stack.append((audience_id, iter(sorted(definitions[audience_id].references))))  # noqa: B023

        if start not in done:
            push(start)
        while stack:
            audience_id, references = stack[-1]
            for reference in references:
                if reference in trail:
                    raise _circle([*trail[trail.index(reference) :], reference], definitions, about)
                if reference in definitions and reference not in done:
                    push(reference)
                    break
            else:
                stack.pop()
                trail.pop()
                done.add(audience_id)
                order.append(audience_id)
    return order


def _circle(circle: Sequence[str], definitions: Mapping[str, Definition], about: str | None) -> DefinitionError:
    """The error for audiences of which each names the next, and the last one is the first again."""
    naming = about if about is not None and about in circle[:-1] else circle[0]
    named = circle[circle.index(naming) + 1]
    reason = f"audiences refer to each other in a circle: {' -> '.join(circle)}"
    return DefinitionError(_place_of(named, definitions[naming]), reason)


def _place_of(audience_id: str, definition: Definition) -> str:
    """Where a definition names an audience first."""
    return next(place for place, named in _named(definition.where, "where") if named == audience_id)


def _named(condition: Condition, path: str) -> Iterator[tuple[str, str]]:
    """The places at which audiences are named, and their ids: a tree has the parts that the JSON has."""
    if isinstance(condition, All | Any_):
        word = "all" if isinstance(condition, All) else "any"
        for i, part in enumerate(condition.parts):
            yield from _named(part, f"{path}.{word}[{i}]")
    elif isinstance(condition, Not):
        yield from _named(condition.part, f"{path}.not")
    elif isinstance(condition, Members):
        yield from _named(condition.part, f"{path}.where")
    elif isinstance(condition, AudienceMember):
        yield f"{path}.audience", condition.audience_id
