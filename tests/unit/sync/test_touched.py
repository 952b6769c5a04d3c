"""Events that may change what a list holds of a person."""

from __future__ import annotations

from headrace_sync.lists.touched import Touched

from headrace.api.identity.v1.profile_pb2 import Handover, Merge, ResolvedEvent
from tests.support import resolved


def profiles(touched: Touched, events: list[ResolvedEvent], merges: list[Merge]) -> set[str]:
    """Who is found, and marked."""
    found = touched.find(events, merges)
    touched.remember(found)
    return found.profiles


def test_traits_new_pairs_of_identifiers_and_merges_touch_a_profile() -> None:
    touched = Touched()
    pair = [("anonymous_id", "a"), ("user_id", "u")]
    assert profiles(touched, [resolved.event("p1", "Viewed", identifiers=pair[:1])], []) == set()
    assert profiles(touched, [resolved.event("p1", "Viewed", identifiers=pair)], []) == {"p1"}
    assert profiles(touched, [resolved.event("p1", "Viewed", identifiers=pair[::-1])], []) == set()  # seen already
    assert profiles(touched, [resolved.event("p2", "Viewed", identifiers=pair)], []) == {"p2"}
    assert profiles(touched, [resolved.event("p1", traits={"city": "Pune"})], []) == {"p1"}
    assert profiles(touched, [resolved.event("p1", traits={"city": "Pune"})], []) == {"p1"}
    assert profiles(touched, [resolved.event("", traits={"city": "Pune"})], []) == set()
    assert profiles(touched, [], [Merge(loser="l", survivor="s")]) == {"s"}


def test_who_could_not_be_marked_is_found_again() -> None:
    touched = Touched()
    event = resolved.event("p1", "Viewed", identifiers=[("anonymous_id", "a"), ("user_id", "u")])
    assert touched.find([event], []).profiles == {"p1"}  # and then the store did not answer
    assert profiles(touched, [event], []) == {"p1"}
    assert profiles(touched, [event], []) == set()


def test_a_device_that_changes_hands_touches_both() -> None:
    logout = resolved.event("p2", "Signed Out", identifiers=[("anonymous_id", "a")])
    logout.decision.handovers.append(Handover(from_profile="p1"))
    assert profiles(Touched(), [logout], []) == {"p1", "p2"}
