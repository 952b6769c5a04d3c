"""What is remembered of a workspace while history is read beside it."""

from __future__ import annotations

from headrace_audience.evaluation import Evaluation

from headrace.api.identity.v1.profile_pb2 import Reassignment


def reassign(evaluation: Evaluation, *profile_ids: str) -> None:
    evaluation.reassign([Reassignment(profile_id=p, parts=[p], epoch=1) for p in profile_ids])


def test_readers_of_history_know_whom_to_pass_over_and_nothing_stays() -> None:
    evaluation = Evaluation("acme", 4, 0)
    reassign(evaluation, "before")
    with evaluation.reassigned_meanwhile() as first:
        reassign(evaluation, "a")
        with evaluation.reassigned_meanwhile() as second:
            reassign(evaluation, "b")
            assert (first, second) == ({"a", "b"}, {"b"})
        reassign(evaluation, "c")
        assert (first, second) == ({"a", "b", "c"}, {"b"})
    reassign(evaluation, "after")
    assert first == {"a", "b", "c"}
    assert evaluation._readers == []


def test_of_two_readers_that_saw_nothing_the_other_goes_on() -> None:
    evaluation = Evaluation("acme", 4, 0)
    with evaluation.reassigned_meanwhile() as first:
        with evaluation.reassigned_meanwhile():
            pass
        reassign(evaluation, "a")
        assert first == {"a"}
