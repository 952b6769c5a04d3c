"""What a reassignment means for memberships: a profile is forgotten and folded anew from the log.

Identity assigns events anew when a merge is undone, identifiers are linked by hand, the graph is rebuilt or a person
is deleted. Each profile concerned is announced to its partition with its parts as they are from then on; their events
are all in the log. What was said of it in an earlier epoch and comes later, events and merges, is passed over.

Audiences whose members do not follow from events (static and paused ones) keep the profiles that they hold, as long
as those are alive. A profile that left such an audience because it was merged enters again when it is a profile of its
own again, and a survivor that was in it only because of such a profile leaves. What left with a profile that is gone
and has no survivor is not given to anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.api.identity.v1.profile_pb2 import Reassignment, ResolvedEvent
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database, Document
from headrace_audience.batching import batched
from headrace_audience.engine.engine import Engine, Flip
from headrace_audience.evaluation import Evaluation
from headrace_audience.memberships import membership_rows
from headrace_audience.store import CHANGES, MEMBERSHIPS, membership_key
from headrace_audience.threads import in_thread

PROFILES_AT_A_TIME = 500
"""So many profiles are loaded and folded at a time: a rebuild announces very many."""
KEYS_AT_A_TIME = 10_000


@dataclass
class Loaded:
    """What reassignments bring to the partitions that are held here."""

    reassignments: list[Reassignment] = field(default_factory=list)
    events: list[ResolvedEvent] = field(default_factory=list)
    """Events of the profiles' parts, with the profile as their profile."""
    constant: list[tuple[str, str, bool, str]] = field(default_factory=list)
    """(audience, profile, member, cause) of memberships that do not follow from events."""


def as_messages(stored: event_log.StoredReassignment) -> Iterator[Reassignment]:
    """A reassignment of the log as it is announced."""
    for item in stored.items:
        yield Reassignment(
            profile_id=item.profile_id,
            parts=item.parts,
            survivor=item.survivor,
            epoch=stored.epoch,
            erased=stored.erased,
        )


def newest(
    engine: Engine, reassignments: Iterable[Reassignment], held: Collection[int], partition_of: Callable[[str], int]
) -> list[Reassignment]:
    """The last word on each profile of the held partitions; what was overtaken is left out.

    An erasure without an epoch was asked for by this service: it changes nothing of which words are the newest.
    """
    found: dict[str, Reassignment] = {}
    for one in reassignments:
        profile_id = one.profile_id
        if partition_of(profile_id) not in held:
            continue
        known = found.get(profile_id)
        epoch = known.epoch if known is not None else engine.epoch_of(profile_id)
        if one.erased and not one.epoch:
            erasure = found[profile_id] = Reassignment()
            erasure.CopyFrom(one)
            erasure.epoch = epoch
        elif one.epoch > epoch:
            found[profile_id] = one
    return list(found.values())


def in_time(engine: Engine, events: Sequence[ResolvedEvent]) -> Sequence[ResolvedEvent]:
    """Events of a stream but for those that were placed before a reassignment of their profile: the log has them."""
    if not engine.has_epochs:
        return events
    return [e for e in events if e.epoch >= engine.epoch_of(e.profile_id)]


async def follow(
    db: Database,
    evaluation: Evaluation,
    reassignments: Sequence[Reassignment],
    lock: asyncio.Lock,
    partition_of: Callable[[str], int],
    now_us: int,
) -> None:
    """Forget profiles and fold them anew; doing it again changes nothing.

    Args:
        db: Database with the log.
        evaluation: The workspace.
        reassignments: What newest() gave.
        lock: Held by whoever uses an engine.
        partition_of: Gives the partition of a profile.
        now_us: Moment at which memberships that do not follow from events change, in microseconds.
    """
    for some in batched(reassignments, PROFILES_AT_A_TIME):
        loaded = await load(db, evaluation, some)
        async with lock:
            held = [one for one in loaded.reassignments if partition_of(one.profile_id) in evaluation.missing]
            loaded.reassignments = held
            await in_thread(apply, evaluation, loaded, now_us)
        await membership_rows.remove(db, evaluation.workspace_id, [one.profile_id for one in held if one.erased])


async def load(db: Database, evaluation: Evaluation, reassignments: Sequence[Reassignment]) -> Loaded:
    """Read what reassignments bring; changes nothing."""
    loaded = Loaded(reassignments=list(reassignments))
    # A part may be named by an older word on another profile too, of which the newer one is still to come.
    alive = sorted((one for one in reassignments if one.parts and not one.erased), key=lambda one: one.epoch)
    holder: dict[str, str] = {}
    wanted = {part: one.profile_id for one in alive for part in one.parts}
    while wanted:
        holder |= wanted
        merged: dict[str, str] = {}
        for parts in batched(wanted, PROFILES_AT_A_TIME):
            async for resolved in event_log.events_of_profiles(db, evaluation.workspace_id, parts):
                resolved.profile_id = holder[resolved.profile_id]
                loaded.events.append(resolved)
                # The announcement of a merge that came after the reassignment may have been quicker than this one.
                merged.update(
                    (part, resolved.profile_id) for merge in resolved.decision.merges for part in merge.loser_parts
                )
        wanted = {part: profile_id for part, profile_id in merged.items() if part not in holder}
    constants = evaluation.constants
    if constants and alive:
        loaded.constant = await _constant(db, evaluation, constants, alive)
    return loaded


def apply(evaluation: Evaluation, loaded: Loaded, now_us: int) -> None:
    """Fold what reassignments bring."""
    engine = evaluation.engine
    evaluation.reassign(loaded.reassignments)
    holders = {one.profile_id for one in loaded.reassignments}
    engine.fold((e for e in loaded.events if e.profile_id in holders), now_us=engine.clock_us, cause="reassignment")
    # An audience may have been archived, or be computed from events, since these were read.
    constants = set(evaluation.constants)
    for audience_id, profile_id, member, cause in loaded.constant:
        if profile_id not in holders or audience_id not in constants:
            continue
        if engine.is_member(audience_id, profile_id) != member:
            engine.set_membership(audience_id, [profile_id], member=member)
            evaluation.pending.add([Flip(audience_id, profile_id, member, now_us, cause)])


async def recall(
    db: Database,
    evaluation: Evaluation,
    partitions: Collection[int],
    lock: asyncio.Lock,
    partition_of: Callable[[str], int],
) -> None:
    """Know all reassignments in partitions that start without a snapshot: their history is read as it is now."""
    found: dict[str, Reassignment] = {}
    async for stored in event_log.reassignments_since(db, 0, evaluation.workspace_id):
        found.update((one.profile_id, one) for one in as_messages(stored) if partition_of(one.profile_id) in partitions)
    async with lock:
        for one in found.values():
            evaluation.engine.know_epoch(one.profile_id, one.epoch)
            if not one.parts and not one.erased:
                evaluation.engine.merge(one.profile_id, one.survivor)
    await membership_rows.remove(db, evaluation.workspace_id, [one.profile_id for one in found.values() if one.erased])


@dataclass
class _Row:
    """A membership in an audience whose members do not follow from events."""

    member: bool
    left_merging: bool
    """Left because it was merged into another profile."""
    inherited: bool = False
    """Entered because another profile was merged into this one."""

    @property
    def is_own(self) -> bool:
        """Whether the profile is in by itself, or would be if it were not merged."""
        return (self.member or self.left_merging) and not self.inherited


async def _constant(
    db: Database, evaluation: Evaluation, constants: Collection[str], alive: Sequence[Reassignment]
) -> list[tuple[str, str, bool, str]]:
    """(audience, profile, member, cause): what living profiles should be in such audiences."""
    parts = [part for one in alive for part in one.parts]
    rows = await _rows(db, evaluation, constants, parts)
    nobody = _Row(member=False, left_merging=False)
    found: list[tuple[str, str, bool, str]] = []
    for audience_id in constants:
        for one in alive:
            own = rows.get((audience_id, one.profile_id), nobody).is_own
            of_parts = any(rows.get((audience_id, p), nobody).is_own for p in one.parts if p != one.profile_id)
            cause = "merge" if of_parts and not own else "reassignment"
            found.append((audience_id, one.profile_id, own or of_parts, cause))
    return found


async def _rows(
    db: Database, evaluation: Evaluation, constants: Collection[str], profile_ids: Sequence[str]
) -> Mapping[tuple[str, str], _Row]:
    workspace_id = evaluation.workspace_id
    rows: dict[tuple[str, str], _Row] = {}
    keys = [membership_key(workspace_id, a, p) for a in constants for p in profile_ids]
    for some in batched(keys, KEYS_AT_A_TIME):
        async for d in db[MEMBERSHIPS].find({"_id": {"$in": some}}, {"a": 1, "p": 1, "in": 1, "into": 1}):
            rows[d["a"], d["p"]] = _Row(d["in"], bool(d.get("into")))
    query: Document = {"w": workspace_id, "p": {"$in": sorted({p for _, p in rows})}, "in": True}
    entries: dict[tuple[str, str], tuple[int, str]] = {}
    async for d in db[CHANGES].find(query, {"_id": 0, "a": 1, "p": 1, "v": 1, "c": 1}):
        key = (d["a"], d["p"])
        entries[key] = max(entries.get(key, (0, "")), (d["v"], d["c"]))
    for key, row in rows.items():
        row.inherited = entries.get(key, (0, ""))[1] == "merge"
    for flip in evaluation.pending.of_audiences(constants):
        row = rows.setdefault((flip.audience_id, flip.profile_id), _Row(member=False, left_merging=False))
        row.member, row.left_merging = flip.member, bool(flip.merged_into)
        if flip.member:
            row.inherited = flip.cause == "merge"
    return rows
