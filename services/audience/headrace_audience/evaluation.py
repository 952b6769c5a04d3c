"""One workspace on one replica: the engine, which audiences it computes, and what is missing in which partition.

Nothing here does I/O. The worker asks what is missing, brings it, and says so; then partitions and audiences start.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from headrace.api.identity.v1.profile_pb2 import Reassignment, ResolvedEvent
from headrace.domain.ids import partition_of
from headrace_audience.archive.survivors import Survivors
from headrace_audience.definitions.catalog import Audience
from headrace_audience.engine.conditions import states_of
from headrace_audience.engine.engine import Engine, Flip
from headrace_audience.engine.states import PROFILES
from headrace_audience.filling.batch_audiences import BatchAudiences
from headrace_audience.filling.behind import Behind, Rest
from headrace_audience.language.definition import Definition
from headrace_audience.memberships.group_members import GroupMembers
from headrace_audience.memberships.leaving import Leaving
from headrace_audience.memberships.pending import Pending
from headrace_audience.store import ACTIVE, COMPUTED

MANY_FLIPS = 20_000
"""After so many flips the rest of an audience that starts is left for later: what is due meanwhile must not wait."""

_tickets = itertools.count(1)


@dataclass
class Missing:
    """What history a partition lacks: state keys, each with a ticket that is new for each time it was asked for.

    Who brings history looks at the tickets before and after: what was asked for meanwhile is not satisfied by a view
    of the log that was opened before.
    """

    tickets: dict[str, int] = field(default_factory=dict)

    def ask(self, keys: Iterable[str]) -> None:
        """Ask for history."""
        for key in keys:
            self.tickets[key] = next(_tickets)


@dataclass(frozen=True)
class Order:
    """What to bring: which keys for which partitions, and which batch audiences to compute."""

    tickets: Mapping[str, Mapping[int, int]]
    """Key to partition to ticket."""
    batch: Mapping[str, tuple[Audience, Mapping[int, int]]]
    """Audience id to the audience and partition to ticket."""


class Evaluation:
    """The audiences of one workspace in the partitions that this replica holds."""

    def __init__(self, workspace_id: str, partitions_total: int, now_us: int, rest: Rest | None = None) -> None:
        """Compute nothing yet; `rest` is that of the replica from computing groups."""
        self.workspace_id = workspace_id
        self._total = partitions_total
        self.engine = Engine(workspace_id, partitions_total, now_us)
        self.audiences: dict[str, Audience] = {}
        self.missing: dict[int, Missing] = {}
        self.started: set[int] = set()
        self.settled: set[int] = set()
        """Partitions all of whose profiles were evaluated since they started."""
        self.merged = Survivors()
        self.pending = Pending(self._partition_of)
        self.leaving = Leaving(self._partition_of)
        self._starting: dict[str, str] = {}
        self._evaluated: set[str] = set()
        self._batch = BatchAudiences()
        self._groups = GroupMembers(self._partition_of)
        self.behind = Behind(rest)
        self._readers: list[set[str]] = []
        """Of each reader of history the profiles that were reassigned since it began to read."""

    def _partition_of(self, profile_id: str) -> int:
        return partition_of(profile_id, self._total)

    # --- audiences

    def follow(self, wanted: Sequence[Audience], now_us: int) -> list[str]:
        """Take over the wanted state of all audiences, of which each comes after those that it names.

        Args:
            wanted: All audiences.
            now_us: Moment at which the members of those leave that end.

        Returns:
            Ids of those whose stored members must be told with set_members().
        """
        self.behind.defined()
        known = {audience.audience_id for audience in wanted}
        gone = [audience for audience_id, audience in self.audiences.items() if audience_id not in known]
        for audience in gone:
            if not audience.version_of:
                self.remove_audience(audience.audience_id)
        changed = [audience.audience_id for audience in wanted if self.set_audience(audience, now_us)]
        # Last: an audience whose version takes its place goes on with the state of the version.
        for audience in gone:
            if audience.version_of:
                self.remove_audience(audience.audience_id)
        return changed

    def set_audience(self, audience: Audience, now_us: int) -> bool:
        """Take over the wanted state of an audience.

        Who is in an audience that was computed here before is known: the members that the engine has, but for flips
        that wait to be written. So a large audience that changes or ends costs no reading.

        Args:
            audience: The audience.
            now_us: Moment at which its members leave, when it ends.

        Returns:
            Whether its stored members must be told with set_members(): nothing is known of them here.

        Raises:
            DefinitionError: Audiences would name each other in a circle.
        """
        audience_id = audience.audience_id
        old = self.audiences.get(audience_id)
        if old is not None and _form(old) == _form(audience):
            self.audiences[audience_id] = audience
            return False
        if old is not None and _is_refreshed(old, audience):
            self.audiences[audience_id] = audience
            self._batch.ask(audience, self.missing)
            return audience.reread
        if old is not None and old.definition.of != audience.definition.of:
            self.remove_audience(audience_id)
            old = None
        if audience.is_leaving:
            self._end(audience, old, now_us)
            self.behind.touch_readers([audience_id], self.audiences)
            return old is None
        before, leavers = self._withdraw(audience_id), self.leaving.drop_audience(audience_id)
        definition = audience.definition
        if audience.is_constant:
            definition = replace(definition, kind="static", refresh_us=0)
        keys = self._keeper(audience).set_audience(audience_id, definition)
        self.audiences[audience_id] = audience
        self._know_members(audience_id, dict.fromkeys(leavers, True) | before)
        self._evaluated.discard(audience_id)
        self._batch.forget(audience_id)
        for missing in self.missing.values():
            missing.ask(keys)
        self._starting[audience_id] = audience.cause if audience.is_filling else "time"
        if audience.awaits_batch:
            self._batch.ask(audience, self.missing)
        self.behind.forget(audience_id)
        self.behind.touch([audience])
        self.behind.touch_readers([audience_id], self.audiences)
        return old is None and not audience.version_of

    def _end(self, audience: Audience, old: Audience | None, now_us: int) -> None:
        """Let all members of an audience leave; of one that ends already they go on leaving."""
        audience_id = audience.audience_id
        if old is not None and not old.is_leaving:
            self._know_members(audience_id, self._withdraw(audience_id))
            members = set(self._keeper(old).members(audience_id))
            # What was tried to be written may be written or not.
            members.update(flip.profile_id for flip in self.pending.of_audiences([audience_id]))
            self._forget(audience_id)
            self.leaving.add(audience_id, members, now_us)
        self.audiences[audience_id] = audience

    def _withdraw(self, audience_id: str) -> dict[str, bool]:
        """Take back what was found of an audience and is certainly not written; returns who is a member without it."""
        before: dict[str, bool] = {}
        for flip in self.pending.withdraw(audience_id):
            before.setdefault(flip.profile_id, not flip.member)
        return before

    def _know_members(self, audience_id: str, known: Mapping[str, bool]) -> None:
        """Take it that some are members of an audience that is computed or kept, or not, without flips."""
        keeper = self._keeper(self.audiences[audience_id])
        for member in (True, False):
            some = [profile_id for profile_id, is_member in known.items() if is_member is member]
            keeper.set_membership(audience_id, some, member=member)

    def _keeper(self, audience: Audience) -> Engine | GroupMembers:
        """What keeps the members of an audience."""
        return self.engine if audience.definition.of == "people" else self._groups

    def remove_audience(self, audience_id: str) -> None:
        """Forget an audience that is gone."""
        self._forget(audience_id)
        self.behind.touch_readers([audience_id], self.audiences)
        self.audiences.pop(audience_id, None)

    def _forget(self, audience_id: str) -> None:
        self.pending.drop_audience(audience_id)
        self.leaving.drop_audience(audience_id)
        audience = self.audiences.get(audience_id)
        if audience is not None and not audience.is_leaving:
            self._keeper(audience).remove_audience(audience_id)
        self._starting.pop(audience_id, None)
        self._evaluated.discard(audience_id)
        self._batch.forget(audience_id)
        self.behind.forget(audience_id)
        self._drop_unneeded()

    def _drop_unneeded(self) -> None:
        needed = self.keys() | {PROFILES}
        for missing in self.missing.values():
            missing.tickets = {k: t for k, t in missing.tickets.items() if k in needed}

    def keys(self) -> set[str]:
        """State keys of all audiences that are computed."""
        return {k for a in self.audiences.values() if a.is_live for k in states_of(a.definition)}

    def set_members(self, audience_id: str, stored: Collection[str], partitions: Collection[int], now_us: int) -> None:
        """Say who is stored as a member in some partitions.

        Those of an audience that is being removed or archived leave.
        """
        audience = self.audiences.get(audience_id)
        if audience is None or audience.version_of:
            return
        if audience.is_leaving:
            self.leaving.add(audience_id, stored, now_us)
            return
        wanted = set(stored)
        keeper = self._keeper(audience)
        stale = [p for p in keeper.members(audience_id) if p not in wanted and self._partition_of(p) in partitions]
        keeper.set_membership(audience_id, stale, member=False)
        keeper.set_membership(audience_id, wanted)

    def members_in(self, partition: int) -> dict[str, list[str]]:
        """Audience id to its members in a partition, as was told last; of those that end, who has yet to leave."""
        found: dict[str, list[str]] = {}
        for audience_id, audience in self.audiences.items():
            if audience.version_of:
                continue
            keeper = self.leaving if audience.is_leaving else self._keeper(audience)
            found[audience_id] = keeper.members_in(audience_id, partition)
        return found

    @property
    def is_settled(self) -> bool:
        """Whether no audience and no partition misses anything that it waits for."""
        is_missing = any(missing.tickets for missing in self.missing.values()) or self._batch.is_waiting
        return not (is_missing or self._starting or self.engine.starting) and self.started == self.missing.keys()

    @property
    def stored_people(self) -> list[str]:
        """Ids of the audiences of people whose members are kept in the store: those that the engine keeps too."""
        return [a.audience_id for a in self.audiences.values() if a.is_stored and a.definition.of == "people"]

    @property
    def constants(self) -> list[str]:
        """Ids of audiences of people whose members do not follow from events: static, refreshed, paused ones."""
        return [audience_id for audience_id in self.stored_people if self.audiences[audience_id].is_constant]

    # --- partitions

    def add_partition(self, partition: int, missing_keys: Iterable[str] | None) -> None:
        """Hold a partition whose snapshot was imported; None: there is none, all history is missing."""
        if missing_keys is None:
            self.engine.hold_partition(partition)
            missing_keys = self.keys() | {PROFILES}
        missing = self.missing[partition] = Missing()
        missing.ask(missing_keys)
        self.started.discard(partition)
        self.settled.discard(partition)
        for audience in self.audiences.values():
            if audience.awaits_batch and partition not in audience.done:
                self._batch.ask_again(audience, partition)
        self.touch()

    def hold_partition(self, partition: int) -> None:
        """Report nothing of a partition until it is started again: entries of its stream were lost."""
        self.engine.hold_partition(partition)
        self.started.discard(partition)
        self.settled.discard(partition)

    def drop_partition(self, partition: int) -> None:
        """Forget a partition."""
        if partition not in self.missing:
            return
        self.engine.drop_partition(partition)
        del self.missing[partition]
        self.started.discard(partition)
        self.settled.discard(partition)
        self.pending.drop_partitions(frozenset([partition]))
        self.leaving.drop_partition(partition)
        self._batch.drop_partition(partition)
        self._groups.drop_partition(partition)

    # --- history

    def order(self) -> Order | None:
        """What history to bring; None when nothing is missing."""
        tickets: dict[str, dict[int, int]] = {}
        for partition, missing in self.missing.items():
            for key, ticket in missing.tickets.items():
                tickets.setdefault(key, {})[partition] = ticket
        batch = self._batch.order(self.audiences)
        return Order(tickets, batch) if tickets or batch else None

    def still_wanted(self, key: str, tickets: Mapping[int, int]) -> list[int]:
        """Partitions that still wait for a key with the tickets of an order."""
        return [p for p, t in tickets.items() if p in self.missing and self.missing[p].tickets.get(key) == t]

    def brought(self, key: str, partitions: Iterable[int]) -> None:
        """The history of a key is folded in these partitions."""
        for partition in partitions:
            self.missing[partition].tickets.pop(key, None)

    def batch_computed(
        self,
        audience_id: str,
        generation: int,
        tickets: Mapping[int, int],
        members: Iterable[str],
        turns_us: int | None = None,
    ) -> None:
        """Take the members of a batch audience; the differences to the known ones are flips.

        Args:
            audience_id: The audience.
            generation: The generation for which it was computed; of another one nothing is taken.
            tickets: Partition to ticket, as ordered.
            members: Ids of all members, in whichever partition.
            turns_us: The next moment at which time alone may change the members, in microseconds; None: never.
        """
        audience = self.audiences.get(audience_id)
        if audience is None or audience.generation != generation:
            return
        partitions = self._batch.take(audience_id, tickets)
        self.behind.computed(audience_id, turns_us)
        keeper = self._keeper(audience)
        wanted = {m for m in self._as_now(audience, members) if self._partition_of(m) in partitions}
        present = {m for p in partitions for m in keeper.members_in(audience_id, p)}
        for ids, member in ((sorted(present - wanted), False), (sorted(wanted - present), True)):
            keeper.set_membership(audience_id, ids, member=member)
            if audience.is_stored:
                self.pending.add(Flip(audience_id, p, member, audience.at_us, audience.cause) for p in ids)

    def divided(self, audience: Audience, members: Iterable[str]) -> dict[int, list[str]]:
        """Members of a batch audience by partition."""
        found: dict[int, list[str]] = {}
        for member in self._as_now(audience, members):
            found.setdefault(self._partition_of(member), []).append(member)
        return found

    def _as_now(self, audience: Audience, members: Iterable[str]) -> Iterable[str]:
        """Members as who they are by now: some may have been merged."""
        return map(self.merged.of, members) if audience.definition.of == "people" else members

    def batch_again(self, partition: int) -> None:
        """A merge or a reassignment came while batch audiences are computed: compute them again for a partition."""
        for audience in self.audiences.values():
            if audience.awaits_batch and partition in self.missing:
                self._batch.ask_again(audience, partition)

    # --- audiences that follow what they read

    def touch(self) -> None:
        """Anything may have happened in the workspace: continuous audiences of groups may be behind."""
        self.behind.touch_all(self.audiences.values())

    def happened(self, events: Sequence[ResolvedEvent]) -> None:
        """Events came, which continuous audiences of groups may read."""
        self.behind.happened(events, self.audiences, self.engine.clock_us)

    def written(self, flips: Iterable[Flip]) -> None:
        """Changes are stored: who reads the stored members of their audiences may be behind."""
        self.behind.touch_readers({flip.audience_id for flip in flips}, self.audiences)

    # --- reassignments

    def reassign(self, reassignments: Sequence[Reassignment]) -> None:
        """Forget profiles of held partitions whose events were assigned anew; the caller folds them then."""
        self.engine.reassign(reassignments)
        self.merged.reassign(reassignments)
        self.touch()
        for newer in self._readers:
            newer.update(one.profile_id for one in reassignments)
        if erased := {one.profile_id for one in reassignments if one.erased}:
            self.pending.drop_profiles(erased)
            self.leaving.drop_profiles(erased)
        for partition in {self._partition_of(one.profile_id) for one in reassignments}:
            self.batch_again(partition)

    @contextmanager
    def reassigned_meanwhile(self) -> Iterator[Set[str]]:
        """Profiles that are reassigned while history is read that is folded later: enter before it is read.

        What was read of them is not to be folded.
        """
        newer: set[str] = set()
        self._readers.append(newer)
        try:
            yield newer
        finally:
            # By identity: two that have seen nothing are equal.
            self._readers = [one for one in self._readers if one is not newer]

    # --- starting

    def start_what_is_complete(self, caught_up: Collection[int]) -> bool:
        """Start partitions and audiences that miss nothing; returns whether any was started."""
        # Audiences first: one that starts before any partition does needs no evaluation of its own, and the events that
        # came while its partitions were held stay the causes of their flips.
        complete: list[str] = []
        for audience_id in self._starting:
            audience = self.audiences[audience_id]
            keys = states_of(audience.definition).keys() if audience.is_live else set()
            if not any(keys & self.missing[p].tickets.keys() for p in self.started):
                complete.append(audience_id)
        for audience_id in complete:
            cause = self._starting.pop(audience_id)
            self._keeper(self.audiences[audience_id]).start_audience(audience_id, cause=cause if self.started else "")
        ready = [p for p in caught_up if p in self.missing and p not in self.started and not self.missing[p].tickets]
        for partition in ready:
            self.engine.start_partition(partition)
            self.started.add(partition)
        return bool(ready or complete)

    # --- flips

    def advance(self, now_us: int) -> list[Flip]:
        """Move the clock; returns the flips, which the caller hands to `pending`."""
        fresh = self.started - self.settled
        flips = self.engine.advance(now_us, most=MANY_FLIPS)
        versions = {a.audience_id for a in self.audiences.values() if a.version_of}
        if versions:
            flips = [flip for flip in flips if flip.audience_id not in versions]
        if fresh:
            flips = [self._filled(flip) if self._partition_of(flip.profile_id) in fresh else flip for flip in flips]
        self.settled = set(self.started)
        self._evaluated = self.audiences.keys() - self._starting.keys() - self.engine.starting
        return flips

    def take_flips(self, limit: int, others: int) -> list[Flip]:
        """Take out flips to be written.

        Args:
            limit: Most flips.
            others: Most flips of audiences that are being filled or emptied: they come behind those that are due.
        """
        last = {a for a in self.pending.audience_ids if (one := self.audiences.get(a)) and not _is_due(one)}
        for audience_id in self.leaving.audience_ids if others else ():
            last.add(audience_id)
            if not self.pending.waits_for(audience_id):
                self.pending.add(self.leaving.next(audience_id, others, self.audiences[audience_id].cause))
        return self.pending.take(limit, last, others)

    @property
    def is_busy(self) -> bool:
        """Whether flips wait to be written, or to be found of audiences that start or end."""
        return bool(len(self.pending) or self.leaving.audience_ids or self.engine.is_sweeping)

    @property
    def has_due_unwritten(self) -> bool:
        """Whether flips wait of an audience that is neither being filled nor emptied."""
        waiting = (self.audiences.get(audience_id) for audience_id in self.pending.audience_ids)
        return any(audience is None or _is_due(audience) for audience in waiting)

    def _filled(self, flip: Flip) -> Flip:
        """A flip of a partition that has just started: while its audience is being filled, that is the cause."""
        audience = self.audiences[flip.audience_id]
        if audience.is_filling and flip.cause == "time":
            return flip._replace(cause=audience.cause)
        return flip

    def compared(self, version: Audience, partitions: Collection[int]) -> dict[int, tuple[int, int, int]]:
        """How many enter, leave and stay in each of some partitions when a version takes the place of its audience."""
        keeper = self._keeper(version)
        return {p: keeper.compare(version.audience_id, version.version_of, p) for p in partitions}

    def finished(self) -> dict[str, list[int]]:
        """Audience id to partitions that are filled or emptied, written, and not yet recorded as such."""
        result: dict[str, list[int]] = {}
        for audience_id, audience in self.audiences.items():
            if _is_due(audience) or self.pending.waits_for(audience_id) or self.leaving.waits_for(audience_id):
                continue
            if audience.is_leaving:
                done = set(self.missing)
            elif audience_id in self._evaluated and (audience.version_of or audience_id) in self._evaluated:
                done = self.settled - set(self._batch.partitions_of(audience_id))
            else:
                continue
            if new := sorted(done - audience.done):
                result[audience_id] = new
        return result


def _is_refreshed(old: Audience, new: Audience) -> bool:
    """Whether an audience goes on as it is but for a refresh, to which its members stay as they are."""
    return (
        old.state == new.state == ACTIVE
        and new.awaits_batch
        and old.definition == new.definition
        and old.generation < new.generation
    )


def _is_due(audience: Audience) -> bool:
    """Whether the flips of an audience are due at their moments, and not those of its filling or emptying."""
    return not (audience.is_filling or audience.is_leaving)


def _form(audience: Audience) -> tuple[int, str, Definition]:
    """What must be the same for an audience to go on as it is."""
    group = "computed" if audience.state in COMPUTED else audience.state
    return audience.generation, group, audience.definition
