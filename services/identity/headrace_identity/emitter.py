"""What identity tells the services after it: resolved events and merges, by partition of their profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.api.identity.v1.profile_pb2 import ResolvedBatch, ResolvedEvent
from headrace.domain.ids import partition_of
from headrace.storage.streams import names


def parts_of(resolved: Sequence[ResolvedEvent]) -> set[str]:
    """Profile ids whose survivors must be known before these events are sent on."""
    return {r.profile_id for r in resolved if r.profile_id}


def messages(
    workspace_id: str,
    resolved: Sequence[ResolvedEvent],
    survivors: Mapping[str, str],
    traceparents: Sequence[str],
    partitions: int,
) -> list[tuple[str, bytes]]:
    """The stream messages for resolved events of one workspace.

    Args:
        workspace_id: The workspace.
        resolved: Resolved events, in order; their profile ids become the survivors'.
        survivors: Survivors of profiles that have been merged since.
        traceparents: Trace context of the resolving span of each event.
        partitions: Number of partitions of profiles.

    Returns:
        (stream, ResolvedBatch) pairs. An event without a profile goes to the partition of its message id, a merge to
        those of its loser and its survivor.
    """
    batches: dict[int, ResolvedBatch] = {}

    def batch(key: str) -> ResolvedBatch:
        partition = partition_of(key, partitions)
        known = batches.get(partition)
        if known is None:
            known = batches[partition] = ResolvedBatch(workspace_id=workspace_id, partition=partition)
        return known

    for event, traceparent in zip(resolved, traceparents, strict=True):
        event.profile_id = survivors.get(event.profile_id, event.profile_id)
        event.traceparent = traceparent
        batch(event.profile_id or event.event.message_id).events.append(event)
        for merge in event.decision.merges:
            loser, survivor = batch(merge.loser), batch(merge.survivor)
            loser.merges.append(merge)
            if survivor is not loser:
                survivor.merges.append(merge)
    return [(names.resolved(p), b.SerializeToString()) for p, b in sorted(batches.items())]
