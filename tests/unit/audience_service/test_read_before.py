"""What was read of memberships beside the loop, of audiences that were changed before it is applied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from headrace_audience.definitions.catalog import Audience
from headrace_audience.evaluation import Evaluation
from headrace_audience.language.parser import parse_definition
from headrace_audience.people import merges, reassignments
from headrace_audience.store import ACTIVE, ARCHIVED, DELETING, PAUSED

from headrace.api.identity.v1.profile_pb2 import Merge, Reassignment

PAUSED_AUDIENCE = Audience(
    workspace_id="acme",
    audience_id="buyers",
    state=PAUSED,
    definition=parse_definition('{"where": {"event": "Purchased"}}'),
    generation=1,
    cause="fill",
    at_us=1,
    base=0,
    done=frozenset(),
)


def following(*states: str) -> Evaluation:
    """One that has followed an audience through these states."""
    evaluation = Evaluation("acme", 1, 1)
    evaluation.add_partition(0, None)
    for number, state in enumerate(states, start=1):
        evaluation.follow([dataclasses.replace(PAUSED_AUDIENCE, state=state, generation=number)], number)
    return evaluation


def inherit(evaluation: Evaluation) -> None:
    merge = Merge(loser="loser", survivor="survivor", loser_parts=["loser"])
    merges.apply(evaluation, merges.Loaded([merge], [], [("buyers", "survivor")]), [0], lambda _: 0, 10)


def assign_anew(evaluation: Evaluation) -> None:
    told = Reassignment(profile_id="survivor", parts=["survivor", "loser"], epoch=1)
    loaded = reassignments.Loaded([told], constant=[("buyers", "survivor", True, "merge")])
    reassignments.apply(evaluation, loaded, 10)


def entered(evaluation: Evaluation) -> list[tuple[str, bool]]:
    return [(flip.profile_id, flip.member) for flip in evaluation.pending.of_audiences(["buyers"])]


@pytest.mark.parametrize("act", [inherit, assign_anew])
def test_memberships_of_a_paused_audience_go_over(act: Callable[[Evaluation], None]) -> None:
    evaluation = following(PAUSED)
    act(evaluation)
    assert entered(evaluation) == [("survivor", True)]


@pytest.mark.parametrize("act", [inherit, assign_anew])
@pytest.mark.parametrize("state", [ARCHIVED, DELETING, ACTIVE])
def test_nobody_enters_an_audience_that_is_paused_no_more(act: Callable[[Evaluation], None], state: str) -> None:
    evaluation = following(PAUSED, state)
    act(evaluation)
    assert entered(evaluation) == []
