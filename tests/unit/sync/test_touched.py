"""Events that may change what a list holds of a person."""

from __future__ import annotations

from headrace_sync.touched import Touched

from headrace.api.identity.v1.profile_pb2 import Merge
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
