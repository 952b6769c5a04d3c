"""Groups are a function of the set of events: any order, any repetition, any stripe ends alike and as the naive way."""

from __future__ import annotations

import random

import msgspec
from headrace_identity.groups.statements import Groups, Mention, fold, memberships_of_person
from headrace_identity.resolving.graph import newest_traits
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.common.v1.event_pb2 import Event, EventKind

_TRAITS = st.dictionaries(st.sampled_from(["plan", "city"]), st.sampled_from(["a", "b", None]), max_size=2)


@st.composite
def mentions(draw: st.DrawFn) -> list[Mention]:
    found = []
    for sequence in range(1, 1 + draw(st.integers(1, 12))):
        is_group_call = draw(st.booleans())
        event = Event(
            message_id=f"m{sequence}",
            source_id=draw(st.sampled_from(["web", "crm"])),
            kind=EventKind.EVENT_KIND_GROUP if is_group_call else EventKind.EVENT_KIND_TRACK,
            group_id=draw(st.sampled_from(["acme", "beta"])),
            timestamp_us=draw(st.integers(1, 4)),
            traits=msgspec.json.encode(draw(_TRAITS)),
        )
        found.append(Mention.of(event, draw(st.sampled_from(["", "p1", "p2"])), sequence))
    return found


def folded(parts: list[list[Mention]]) -> tuple[object, ...]:
    """What comes of folding mentions in stripes; memberships and creation are not striped."""
    stripes = []
    whole = Groups()
    for part in parts:
        stripe = Groups()
        fold(stripe, part)
        fold(whole, part)
        stripes.append(stripe)
    traits = {g: newest_traits(s.traits[g] for s in stripes if g in s.traits) for g in whole.created}
    return {g: t for g, t in traits.items() if t}, whole.members, set(whole.created)


@given(mentions(), st.randoms(use_true_random=False), st.integers(1, 3))
def test_order_repetition_and_stripes_are_nothing(history: list[Mention], chance: random.Random, stripes: int) -> None:
    expected = folded([history])
    again = [*history, *chance.sample(history, len(history) // 2)]
    chance.shuffle(again)
    assert folded([again[i::stripes] for i in range(stripes)]) == expected


@given(mentions())
def test_a_fold_is_what_the_rules_say(history: list[Mention]) -> None:
    traits, members, groups = folded([history])
    assert groups == {m.event.group_id for m in history}
    in_order = sorted(history, key=lambda m: (m.event.timestamp_us, m.event.message_id))
    newest: dict[str, dict[str, tuple[object, str]]] = {}
    first: dict[tuple[str, str], str] = {}
    for mention in in_order:
        event = mention.event
        if event.kind == EventKind.EVENT_KIND_GROUP:
            for name, value in msgspec.json.decode(event.traits).items():
                newest.setdefault(event.group_id, {})[name] = (value, event.message_id)
        if mention.part:
            first.setdefault((event.group_id, mention.part), event.message_id)
    for values in newest.values():
        for name in [n for n, (value, _) in values.items() if value is None]:
            del values[name]
    shown = {g: {n: (msgspec.json.decode(t.value), t.message_id) for n, t in ts.items()} for g, ts in traits.items()}  # type: ignore[attr-defined]
    assert shown == {g: values for g, values in newest.items() if values}
    assert {tuple(k): m.message_id for k, m in members.items()} == first  # type: ignore[attr-defined]
    person = memberships_of_person((k.group_id, m) for k, m in members.items())  # type: ignore[attr-defined]
    assert list(person) == sorted({g for g, _ in first})
    for group_id, membership in person.items():
        mine = [m for m in in_order if m.event.group_id == group_id and m.part]
        assert membership.message_id == mine[0].event.message_id


@given(mentions())
def test_what_was_folded_before_changes_nothing(history: list[Mention]) -> None:
    groups = Groups()
    fold(groups, history)
    groups.new.clear()
    groups.changed_traits.clear()
    groups.changed_members.clear()
    fold(groups, history)
    assert not groups.new | groups.changed_traits | groups.changed_members
