"""What becomes of an event at a forwarding sync."""

from __future__ import annotations

from headrace_sync.planning.rules import SETTLE_US, Forwarding, event_sync_message_id, plan, without_accounted

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import time_ordered_floor
from headrace.domain.times import SECOND_US

MADE_US = 1_000 * SECOND_US


def sync(
    *, names: tuple[str, ...] = (), paused: bool = False, changed_us: int = 0, offline_only: bool = False
) -> Forwarding:
    return Forwarding(
        key="k",
        workspace_id="acme",
        destination_key="d",
        event_names=frozenset(names),
        paused=paused,
        created_us=MADE_US,
        changed_us=changed_us,
        offline_only=offline_only,
    )


def event(name: str, at_us: int, index: int = 0, *, online: bool = False) -> ResolvedEvent:
    return ResolvedEvent(
        event=Event(message_id=f"{name}{at_us}-{index}", name=name, online=online),
        segment_id=time_ordered_floor(at_us),
        segment_index=index,
    )


def test_events_from_before_the_sync_are_not_its_business() -> None:
    made = plan(sync(), [event("a", MADE_US - 1_000), event("a", MADE_US), event("a", MADE_US + 1_000)])
    assert len(made.deliver) == 2
    assert not made.filtered
    assert not made.unsettled


def test_names_and_pauses_filter_with_their_reason() -> None:
    late = MADE_US + SECOND_US
    events = [event("a", late, 0), event("b", late, 1), event("c", late, 2)]
    made = plan(sync(names=("a",)), events)
    assert [e.event.name for e in made.deliver] == ["a"]
    assert set(made.filtered[events[1].segment_id, "event_name"]) == {1, 2}
    paused = plan(sync(names=("a",), paused=True), events)
    assert not paused.deliver
    assert set(paused.filtered[events[0].segment_id, "paused"]) == {0, 1, 2}


def test_destinations_for_offline_events_refuse_those_of_websites() -> None:
    late = MADE_US + SECOND_US
    events = [event("a", late, 0), event("a", late, 1, online=True), event("b", late, 2, online=True)]
    made = plan(sync(names=("a",), offline_only=True), events)
    assert [e.segment_index for e in made.deliver] == [0]
    assert {reason: set(places) for (_, reason), places in made.filtered.items()} == {
        "online_source": {1}, "event_name": {2},
    }  # fmt: skip
    assert len(plan(sync(), events).deliver) == 3


def test_around_a_change_plans_are_compared_with_what_was_planned() -> None:
    changed = MADE_US + 100 * SECOND_US
    changing = sync(changed_us=changed)
    assert plan(changing, [event("a", changed - SECOND_US)]).unsettled
    assert plan(changing, [event("a", changed + SETTLE_US - 1_000)]).unsettled
    assert not plan(changing, [event("a", changed + SETTLE_US)]).unsettled


def test_what_is_accounted_for_is_not_planned_again() -> None:
    late = MADE_US + SECOND_US
    events = [event(name, late, index) for index, name in enumerate("abcd")]
    segment = events[0].segment_id
    made = plan(sync(names=("a", "b")), events)
    rest = without_accounted(made, {events[0].event.message_id, events[2].event.message_id}, {segment: {1}})
    assert not rest.deliver  # a was planned, b was filtered under an earlier form of the sync
    assert set(rest.filtered[segment, "event_name"]) == {3}  # c was planned under an earlier form


def test_the_same_change_always_has_the_same_message_id() -> None:
    assert event_sync_message_id("k", "p", 3) == event_sync_message_id("k", "p", 3)
    assert event_sync_message_id("k", "p", 3) != event_sync_message_id("k", "p", 4)
