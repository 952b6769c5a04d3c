"""Making one cohort of two whose clocks have come together.

The one that was behind is brought to the very moment of the other, and what flips until there is written. Then its
partitions go over one by one: the columns as a snapshot has them, and who is in which audience as was told last.
Nothing happens between, so nothing is overlooked and nothing is told twice.
"""

from __future__ import annotations

import asyncio
import time

from headrace_audience.evaluation import Evaluation
from headrace_audience.partitions.cohort import Cohort

LONGEST_S = 0.2
"""So long partitions go over before the others' flips are looked at again."""


async def unite(behind: Cohort, ahead: Cohort) -> None:
    """Give some partitions to the cohort that is ahead, when the other has caught up with it and misses nothing."""
    moment = ahead.passing.moment_us
    if behind.passing.moment_us != moment or behind.passing.catches_up or ahead.passing.catches_up:
        return
    if behind.replay.waiting or behind.evaluations.keys() != ahead.evaluations.keys():
        return
    async with behind.lock:
        for evaluation in behind.evaluations.values():
            if not evaluation.is_settled:
                return
            evaluation.pending.add(await asyncio.to_thread(evaluation.advance, moment))
    if behind.has_pending:
        return  # they are written before anything later is
    until = time.monotonic() + LONGEST_S
    ahead.halfway = True
    async with behind.lock, ahead.lock:
        for evaluation in ahead.evaluations.values():
            evaluation.pending.add(await asyncio.to_thread(evaluation.advance, moment))
        for partition in sorted(behind.held):
            for workspace_id, evaluation in behind.evaluations.items():
                await asyncio.to_thread(_hand_over, evaluation, ahead.evaluations[workspace_id], partition, moment)
            ahead.held[partition] = behind.held.pop(partition)
            ahead.erasures.forget(partition)
            ahead.repairs.forget(partition)
            if time.monotonic() > until:
                break
    ahead.halfway = False


def _hand_over(behind: Evaluation, ahead: Evaluation, partition: int, moment_us: int) -> None:
    """Give a partition of a workspace over; what it flips at this moment was told already."""
    members = behind.members_in(partition)
    missing = ahead.engine.import_partition(partition, behind.engine.export_partition(partition))
    ahead.add_partition(partition, missing)
    for audience_id, own in members.items():
        ahead.set_members(audience_id, own, [partition], moment_us)
    ahead.merged.add(behind.merged.pairs())
    behind.drop_partition(partition)
    ahead.start_what_is_complete([partition])
    ahead.pending.add(ahead.advance(moment_us))
