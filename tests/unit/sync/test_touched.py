"""Events that may change what a list holds of a person."""

from __future__ import annotations

from headrace_sync.lists.touched import Touched

from headrace.api.identity.v1.profile_pb2 import Handover, Merge
from tests.support import resolved


def test_traits_new_pairs_of_identifiers_and_merges_touch_a_profile() -> None:
    touched = Touched()
    pair = [("anonymous_id", "a"), ("user_id", "u")]
    assert touched.profiles([resolved.event("p1", "Viewed", identifiers=pair[:1])], []) == set()
    assert touched.profiles([resolved.event("p1", "Viewed", identifiers=pair)], []) == {"p1"}
    assert touched.profiles([resolved.event("p1", "Viewed", identifiers=pair[::-1])], []) == set()  # seen already
    assert touched.profiles([resolved.event("p2", "Viewed", identifiers=pair)], []) == {"p2"}
    assert touched.profiles([resolved.event("p1", traits={"city": "Pune"})], []) == {"p1"}
    assert touched.profiles([resolved.event("p1", traits={"city": "Pune"})], []) == {"p1"}
    assert touched.profiles([resolved.event("", traits={"city": "Pune"})], []) == set()
    assert touched.profiles([], [Merge(loser="l", survivor="s")]) == {"s"}


def test_a_device_that_changes_hands_touches_both() -> None:
    logout = resolved.event("p2", "Signed Out", identifiers=[("anonymous_id", "a")])
    logout.decision.handovers.append(Handover(from_profile="p1"))
    assert Touched().profiles([logout], []) == {"p1", "p2"}
