"""What a merge means for memberships: the survivor is completed from the log.

The loser leaves everything, which its engine does. The survivor gets the events of all the loser's parts. An event that
identity was placing on the loser while the merge was committed is either in the log before the merge was announced,
and so among the events that are loaded here, or identity saw the merge and sent it to the survivor.

Audiences whose members do not follow from events (static and paused ones) go over to the survivor as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from headrace.api.identity.v1.profile_pb2 import Merge, ResolvedEvent
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database, Document
from headrace_audience.archive.survivors import Survivors
from headrace_audience.engine.engine import Flip
from headrace_audience.evaluation import Evaluation
from headrace_audience.store import MEMBERSHIPS, membership_key


@dataclass
class Loaded:
    """What merges bring to the partitions that are held here."""

    merges: list[Merge] = field(default_factory=list)
    events: list[ResolvedEvent] = field(default_factory=list)
    """Events of the losers' parts, with the survivor as their profile."""
    inherited: list[tuple[str, str]] = field(default_factory=list)
    """(audience, survivor) of memberships that go over as they are."""
    is_current: bool = False
    """The merges are those of the log, which are valid, and not those of a stream, which may be overtaken."""

    def without(self, profile_ids: Collection[str]) -> Loaded:
        """The same but for what it says of some profiles, of which something newer is known."""
        if not profile_ids:
            return self
        return Loaded(
            [m for m in self.merges if m.loser not in profile_ids],
            [e for e in self.events if e.profile_id not in profile_ids],
            [(a, p) for a, p in self.inherited if p not in profile_ids],
            self.is_current,
        )


async def load(
    db: Database,
    evaluation: Evaluation,
    merges: Iterable[Merge],
    held: Collection[int],
    partition_of: Callable[[str], int],
    known: Survivors | None = None,
) -> Loaded:
    """Read what merges bring; changes nothing.

    Args:
        db: Database.
        evaluation: The workspace.
        merges: The merges, in order.
        held: Partitions that are held here.
        partition_of: Gives the partition of a profile.
        known: All merges, when they are known and the given ones are of the log; else those in hand must do.
    """
    loaded = Loaded(merges=list(merges), is_current=known is not None)
    valid = [m for m in loaded.merges if loaded.is_current or not _is_outdated(evaluation, m, m.loser, m.survivor)]
    survivor_of = known.of if known is not None else _Chain(valid).of
    survivors: dict[str, str] = {}
    parts: dict[str, str] = {}
    for merge in valid:
        survivor = survivor_of(merge.survivor)
        if partition_of(survivor) in held and (loaded.is_current or not _is_outdated(evaluation, merge, survivor)):
            survivors[merge.loser] = survivor
            parts.update(dict.fromkeys([merge.loser, *merge.loser_parts], survivor))
    if not parts:
        return loaded
    workspace_id = evaluation.workspace_id
    async for resolved in event_log.events_of_profiles(db, workspace_id, list(parts)):
        resolved.profile_id = parts[resolved.profile_id]
        loaded.events.append(resolved)
    constants = evaluation.constants
    if constants:
        keys = [membership_key(workspace_id, a, loser) for a in constants for loser in survivors]
        query: Document = {"_id": {"$in": keys}, "w": workspace_id}
        async for row in db[MEMBERSHIPS].find(query, {"a": 1, "p": 1, "in": 1, "into": 1}):
            survivor = survivors[row["p"]]
            if row["in"] or survivor_of(row.get("into", "")) == survivor:
                loaded.inherited.append((row["a"], survivor))
    return loaded


def apply(
    evaluation: Evaluation,
    loaded: Loaded,
    held: Collection[int],
    partition_of: Callable[[str], int],
    now_us: int,
) -> None:
    """Fold what merges bring; doing it again changes nothing."""
    engine = evaluation.engine
    for merge in loaded.merges:
        if loaded.is_current or not _is_outdated(evaluation, merge, merge.loser):
            evaluation.merged.add([(merge.loser, merge.survivor)])
            if partition_of(merge.loser) in held:
                engine.merge(merge.loser, merge.survivor, epoch=merge.epoch)
        if partition_of(merge.survivor) in held:
            evaluation.batch_again(partition_of(merge.survivor))
    if loaded.events:
        engine.fold(loaded.events, now_us=now_us, cause="merge")
    # An audience may have been archived, or be computed from events, since these were read.
    constants = set(evaluation.constants)
    for audience_id, survivor in loaded.inherited:
        if audience_id in constants and not engine.is_member(audience_id, survivor):
            engine.set_membership(audience_id, [survivor])
            evaluation.pending.add([Flip(audience_id, survivor, True, now_us, "merge")])


class _Chain:
    """Where merges lead that come together, as far as they tell.

    Entries of different streams come in any order: a survivor may have been merged itself by another of these merges,
    or by one that is still to come. Then it is among the parts of a loser here, which a later merge carried along.
    """

    def __init__(self, merges: Iterable[Merge]) -> None:
        self._into: dict[str, list[str]] = {}
        for merge in merges:
            for part in (merge.loser, *merge.loser_parts):
                self._into.setdefault(part, []).append(merge.survivor)

    def of(self, profile_id: str) -> str:
        """The profile that a profile, or a part of it, is now."""
        seen = {profile_id}
        waiting = [profile_id]
        while waiting:
            part = waiting.pop()
            further = self._into.get(part)
            if further is None:
                return part
            new = [survivor for survivor in further if survivor not in seen]
            seen.update(new)
            waiting += new
        return profile_id  # merges that were undone and made the other way round lead in a circle


def _is_outdated(evaluation: Evaluation, merge: Merge, *profile_ids: str) -> bool:
    """Whether something newer than a merge is known of any of these profiles: what it says of them holds no more."""
    return any(merge.epoch < evaluation.engine.epoch_of(profile_id) for profile_id in profile_ids)
