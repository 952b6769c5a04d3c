"""The state at a past moment is the naive fold of the events up to it, in whatever order they are read."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from headrace_identity.people.past import Past
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.api.identity.v1.profile_pb2 import Decision, Merge, ResolvedEvent

_KINDS = [EventKind.EVENT_KIND_IDENTIFY, EventKind.EVENT_KIND_GROUP, EventKind.EVENT_KIND_TRACK]
_TRAITS = st.dictionaries(st.sampled_from(["plan", "city"]), st.sampled_from([1, "a", None]), max_size=2)
_CONSENTS = st.dictionaries(st.sampled_from(["ads", "mail"]), st.booleans(), max_size=2)


@st.composite
def histories(draw: st.DrawFn) -> list[ResolvedEvent]:
    found = []
    for n in range(draw(st.integers(0, 12))):
        context: dict[str, Any] = {"traits": draw(_TRAITS), "consent": draw(_CONSENTS)}
        event = Event(
            message_id=f"m{draw(st.integers(0, 99)):02d}{n}",
            source_id=draw(st.sampled_from(["web", "crm"])),
            kind=draw(st.sampled_from(_KINDS)),
            group_id=draw(st.sampled_from(["", "acme", "beta"])),
            timestamp_us=draw(st.integers(1, 5)),
            traits=msgspec.json.encode(draw(_TRAITS)),
            context=msgspec.json.encode(context),
        )
        decision = Decision(
            identifiers=[Identifier(namespace="user_id", value=draw(st.sampled_from("abc")))],
            merges=[Merge(loser="p2", survivor="p1")] * draw(st.integers(0, 1)),
        )
        part = draw(st.sampled_from(["p1", "p2"]))
        found.append(ResolvedEvent(event=event, profile_id=part, decision=decision))
    return found


@given(histories(), st.randoms(use_true_random=False))
def test_the_past_is_the_naive_fold(history: list[ResolvedEvent], chance: random.Random) -> None:
    past = Past()
    for resolved in chance.sample(history, len(history)):
        past.take(resolved)
    traits: dict[str, tuple[Any, str]] = {}
    consents: dict[str, tuple[bool, str]] = {}
    groups: dict[str, str] = {}
    for resolved in sorted(history, key=lambda r: (r.event.timestamp_us, r.event.message_id)):
        event = resolved.event
        context = msgspec.json.decode(event.context)
        own = {} if event.kind == EventKind.EVENT_KIND_GROUP else msgspec.json.decode(event.traits)
        traits |= {name: (value, event.message_id) for name, value in (context["traits"] | own).items()}
        consents |= {purpose: (granted, event.message_id) for purpose, granted in context["consent"].items()}
        if event.group_id:
            groups.setdefault(event.group_id, event.message_id)
    assert {n: (msgspec.json.decode(t.value), t.message_id) for n, t in past.traits.items()} == traits
    assert {p: (c.granted, c.message_id) for p, c in past.consents.items()} == consents
    assert {g: m.message_id for g, m in past.groups.items()} == groups
    assert past.identifiers == {(i.namespace, i.value) for r in history for i in r.decision.identifiers}
    assert past.parts == {r.profile_id for r in history}
    assert (past.events, past.merges) == (len(history), sum(len(r.decision.merges) for r in history))
