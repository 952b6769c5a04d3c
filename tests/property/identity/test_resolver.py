"""Properties of resolving: equal to a naive reference, deterministic, deaf to repetition and to the order of keys."""

from __future__ import annotations

import itertools
from typing import Any

from headrace_identity.resolving.graph import most_in_a_period
from headrace_identity.resolving.replay import Replay, as_json, replay
from headrace_identity.resolving.rules import DEFAULT_RULES, Rules, parse
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.ids import profile_id
from headrace.domain.times import DAY_US
from tests.support.identity import WORKSPACE, event, partition, traits_of
from tests.support.identity_reference import Reference

quickly = settings(derandomize=True, deadline=None, max_examples=60)
thoroughly = settings(derandomize=True, deadline=None, max_examples=200)

NAMESPACES = ("user_id", "email", "anonymous_id")
VALUES = {
    "user_id": ["u1", "u2", "u3", "null"],
    "email": ["a@shop.example", "A@shop.example ", "b@shop.example", "c@shop.example", "none"],
    "anonymous_id": ["dev1", "dev2", "dev3"],
}

identifiers = st.sampled_from([(n, v) for n in NAMESPACES for v in VALUES[n]])


@st.composite
def events(draw: st.DrawFn, *, aliases: bool = True) -> Event:
    """One event of few people; the message id is set by `histories`."""
    previous = draw(st.sampled_from(["", "", "u1", "u2", "dev1", "nobody"])) if aliases else ""
    return event(
        "",
        *draw(st.lists(identifiers, min_size=0 if previous else 1, max_size=4)),
        previous_id=previous,
        traits=draw(st.none() | st.dictionaries(st.sampled_from("xy"), st.integers(0, 3) | st.none(), max_size=2)),
        day=draw(st.sampled_from([0, 1, 6, 7, 8, 40])),
        name=draw(st.sampled_from(["Viewed", "Viewed", "signed_out"])),
        source_id=draw(st.sampled_from(["web", "shop"])),
    )


@st.composite
def histories(draw: st.DrawFn, *, aliases: bool = True, most: int = 12) -> list[Event]:
    """Some events with message ids of their own."""
    history = draw(st.lists(events(aliases=aliases), max_size=most))
    for number, one in enumerate(history):
        one.message_id = f"m{number:02}"
    return history


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    """A policy for shared devices."""
    form: dict[str, Any] = {"policy": draw(st.sampled_from(["conversion", "link", "isolation"]))}
    if draw(st.booleans()):
        form["source"] = "shop"
    if draw(st.integers(0, 3)) == 0:
        form["devices"] = draw(st.sampled_from([["email"], ["anonymous_id", "email"]]))
    if draw(st.integers(0, 3)) == 0:
        form["logout_events"] = []
    return form


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """Rules with limits so tight that they break."""
    names = draw(st.permutations(NAMESPACES))
    form: dict[str, Any] = {
        "namespaces": [
            {"name": n, "limit": draw(st.integers(1, 3))}
            | ({"per": per} if (per := draw(st.sampled_from([None, None, "week", "month"]))) else {})
            for n in names[: draw(st.integers(0, 3))]
        ],
        "default_limit": draw(st.integers(1, 3)),
        "protected": draw(st.sampled_from([["user_id"], [], ["email"], ["user_id", "email"]])),
        "max_merges": draw(st.sampled_from([0, 1, 2, 100])),
        "max_identifiers": draw(st.sampled_from([1, 3, 5, 1000])),
        "policies": draw(st.lists(policies(), max_size=2, unique_by=lambda p: p.get("source"))),
    }
    return parse(form)


def people(result: Replay) -> set[tuple[frozenset[tuple[str, str]], frozenset[str], str]]:
    """Each person's identifiers, messages and id."""
    found: dict[str, set[str]] = {root: set() for root in result.roots()}
    for message_id in result.resolutions:
        if root := result.root_of(message_id):
            found[root].add(message_id)
    return {(frozenset(result.identifiers(root)), frozenset(m), root) for root, m in found.items()}


@st.composite
def visits(draw: st.DrawFn) -> list[Event]:
    """Logins, logouts and what is between on two devices."""
    history = []
    for number in range(draw(st.integers(2, 10))):
        devices = draw(st.lists(st.sampled_from(["dev1", "dev2"]), min_size=1, max_size=2, unique=True))
        logins = draw(st.sampled_from([[], [], [("user_id", "u1")], [("user_id", "u2"), ("email", "b@shop.example")]]))
        history.append(
            event(
                f"m{number:02}",
                *logins,
                *[("anonymous_id", d) for d in devices],
                name=draw(st.sampled_from(["Viewed", "signed_out", "Signed Out"])),
                source_id=draw(st.sampled_from(["web", "web", "shop"])),
            )
        )
    return history


@thoroughly
@given(history=histories(), under=rules())
def test_equals_the_naive_reference(history: list[Event], under: Rules) -> None:
    _assert_equals_the_reference(history, under)


@thoroughly
@given(history=visits(), policy=st.sampled_from(["conversion", "link", "isolation"]), limit=st.integers(1, 5))
def test_shared_devices_equal_the_naive_reference(history: list[Event], policy: str, limit: int) -> None:
    _assert_equals_the_reference(history, parse({"policies": [{"policy": policy}], "default_limit": limit}))


def _assert_equals_the_reference(history: list[Event], under: Rules) -> None:
    reference = Reference(under)
    reference.play(history)
    result = replay(history, under)
    assert people(result) == {
        (frozenset(h.ids), frozenset(h.messages), profile_id(WORKSPACE, h.name)) for h in reference.people
    }
    assert {
        m: [(s.identifier.namespace, s.identifier.value) for s in r.decision.set_aside if s.action == "demoted"]
        for m, r in result.resolutions.items()
    } == reference.demoted
    assert [m for m in result.resolutions if not result.root_of(m)] == reference.nobody
    decisions = {m: r.decision for m, r in result.resolutions.items()}
    assert {m: d.stems_from for m, d in decisions.items() if d.stems_from} == {
        m: profile_id(WORKSPACE, name) for m, name in reference.stems.items()
    }
    assert {
        m: {(h.identifier.namespace, h.identifier.value) for h in d.handovers}
        for m, d in decisions.items()
        if d.handovers
    } == reference.handed_over


@quickly
@given(history=histories(), under=rules())
def test_is_deterministic_and_leaves_events_alone(history: list[Event], under: Rules) -> None:
    before = [one.SerializeToString() for one in history]
    first = as_json(replay(history, under))
    assert as_json(replay(history, parse(under.as_json()))) == first
    assert [one.SerializeToString() for one in history] == before


@quickly
@given(history=histories(), under=rules(), data=st.data())
def test_repeated_events_change_nothing(history: list[Event], under: Rules, data: st.DataObject) -> None:
    repeated = list(history)
    for one in data.draw(st.lists(st.sampled_from(history), max_size=6)) if history else []:
        first = repeated.index(one)
        repeated.insert(data.draw(st.integers(first + 1, len(repeated))), one)
    assert as_json(replay(repeated, under)) == as_json(replay(history, under))


@quickly
@given(history=histories(), under=rules(), data=st.data())
def test_the_order_of_identifiers_in_an_event_is_nothing(
    history: list[Event], under: Rules, data: st.DataObject
) -> None:
    shuffled = []
    for one in history:
        copy = Event()
        copy.CopyFrom(one)
        del copy.identifiers[:]
        copy.identifiers.extend(data.draw(st.permutations(list(one.identifiers))))
        shuffled.append(copy)

    def without_blocked(result: dict[str, Any]) -> dict[str, Any]:  # these stand in the order in which they came
        for decision in result["decisions"]:
            decision["set_aside"] = [s for s in decision["set_aside"] if s["action"] != "blocked"]
        return result

    assert without_blocked(as_json(replay(shuffled, under))) == without_blocked(as_json(replay(history, under)))


LOOSE = parse({"default_limit": 1000, "namespaces": [{"name": "user_id", "limit": 1000}], "protected": []})


@quickly
@given(history=histories(aliases=False, most=7), data=st.data())
def test_without_limits_the_order_of_events_is_nothing(history: list[Event], data: st.DataObject) -> None:
    """The same people with the same traits, whatever the order: traits are the newest by (event time, message id)."""
    one = replay(history, LOOSE)
    other = replay(data.draw(st.permutations(history)), LOOSE)
    assert partition(one.graph) == partition(other.graph)
    for identifier, holder in one.graph.holders.items():
        mine = one.graph.root(holder).id
        theirs = other.graph.root(other.graph.holders[identifier]).id
        assert traits_of(one.graph, mine) == traits_of(other.graph, theirs)
        assert one.traits(mine) == other.traits(theirs)


@quickly
@given(history=histories())
def test_nobody_has_more_of_a_kind_than_the_limit(history: list[Event]) -> None:
    result = replay(history, DEFAULT_RULES)
    for root in result.roots():
        for namespace, held in itertools.groupby(result.identifiers(root), key=lambda i: i[0]):
            assert len(list(held)) <= DEFAULT_RULES.namespace(namespace).limit


@quickly
@given(
    times=st.lists(st.integers(-20, 20).map(lambda d: d * DAY_US // 2), max_size=12),
    days=st.none() | st.integers(1, 10),
)
@example(times=[0, 7 * DAY_US], days=7)
def test_most_in_a_period(times: list[int], days: int | None) -> None:
    expected = len(times)
    if days is not None:
        expected = max((sum(end - days * DAY_US < t <= end for t in times) for end in times), default=0)
    assert most_in_a_period(times, None if days is None else days * DAY_US) == expected
