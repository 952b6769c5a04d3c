"""The incremental engine: exact audience membership of one workspace, kept in numpy columns.

State is a function of the *set* of folded events, so folding twice, late, in any order, or from the log beside live
traffic ends in the same memberships. Nothing here does I/O and nothing reads a clock: the caller says what time it is.

Where to read on: `people` (who there is), `columns` and `trait_columns` (what is kept of their events), `states` (how
events get there), `waiting` (what does not count yet), `slots` (conditions over all that), `memberships` (who is in
what), `snapshot` (partitions as bytes).

What a flip says. advance(now) compares the memberships at `now` with those that were reported before; somebody who
entered and left between two calls is not mentioned. `effective_at_us` is the moment from which the new membership has
held without a break, as far as the kept state reaches back: the time of the event that did it, or the exact edge of a
window when time did it. An event that comes late gives a moment before the last advance(). Without any such moment
(somebody is in "not" audiences from the start) it is the time of the profile's event, or `now`. The cause is "event"
when an event folded since the last advance() took effect at that moment, or came late; "time" otherwise.

How a replica uses it::

    engine = Engine("acme", partitions_total=64, now_us=now)
    needed = engine.set_audience("buyers", definition)   # state keys whose history is still missing
    engine.fold_history(table) ...                       # one table of queries.condition_history() per key
    engine.start_audience("buyers")                      # from now on its flips are reported
    missing = engine.import_partition(7, snapshot)       # held: no flips yet
    engine.fold(events, now_us=now)                      # replay, live traffic
    engine.set_membership("buyers", stored_member_ids)   # what the store says
    engine.start_partition(7)                            # the next advance() reports the difference
    flips = engine.advance(now)                          # every second and after each micro-batch
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, cast

import numpy as np

from headrace.api.identity.v1.profile_pb2 import Reassignment, ResolvedEvent
from headrace_audience.engine import history, snapshot
from headrace_audience.engine.audience import Audience, Changes, Explainer, Flip, Sweep, by_sweep
from headrace_audience.engine.conditions import states_of
from headrace_audience.engine.frames import Frame, Moment, Slot, View
from headrace_audience.engine.memberships import Memberships
from headrace_audience.engine.past import Past
from headrace_audience.engine.people import FOREVER, Bools, Ordinals, People, different
from headrace_audience.engine.slots import Slots, compile_condition
from headrace_audience.engine.snapshot import SnapshotError
from headrace_audience.engine.states import PROFILES, States
from headrace_audience.engine.waiting import Future
from headrace_audience.language.definition import Definition, Leaf, check_references, walk

__all__ = ["PROFILES", "Engine", "Flip", "SnapshotError"]

CHUNK = 1 << 14
"""So many profiles are evaluated at a time, so that intermediate arrays stay small."""


class Engine:
    """Audience state of the partitions of one workspace that this replica holds."""

    def __init__(self, workspace_id: str, partitions_total: int, now_us: int, *, capacity: int = 1024) -> None:
        """Make an empty engine whose clock stands at `now_us`; `capacity` profiles fit before the first growth."""
        self._workspace_id = workspace_id
        self._clock = now_us
        self._horizon = now_us
        self._people = People(partitions_total, capacity)
        self._future = Future()
        self._states = States(self._people, self._future)
        self._slots = Slots(self._states)
        self._memberships = Memberships(self._people.capacity)
        self._audiences: dict[str, Audience] = {}
        self._order: list[Audience] = []
        self._moving: list[Slot] = []
        self._filling: set[str] = set()
        self._lacking: dict[int, frozenset[str]] = {}
        self._started: list[Ordinals] = []
        self._stored: dict[str, list[Ordinals]] = {}
        self._dead: set[int] = set()
        self._anew: dict[str, str] = {}
        """Profiles that were forgotten and are folded anew, with the cause of the flips that come of it."""

    @property
    def clock_us(self) -> int:
        """The moment up to which everything is settled: that of the last advance()."""
        return self._clock

    # --- audiences

    def set_audience(self, audience_id: str, definition: Definition) -> frozenset[str]:
        """Add an audience or replace its definition; its flips are not reported until start_audience().

        Returns the state keys whose history is not yet here: fold it with fold_history() or fold(conditions=...), live
        events may be folded meanwhile. A static audience needs none: its members are set by set_membership().
        Raises DefinitionError when the audiences would refer to each other in a circle.
        """
        definitions = {a.id: a.definition for a in self._audiences.values()} | {audience_id: definition}
        check_references(definitions)
        keys = frozenset() if definition.kind == "static" else frozenset(states_of(definition))
        for key in sorted(keys - self._states.keys.keys()):
            self._states.add(key)
            self._filling.add(key)
        leaves = frozenset[Leaf]() if definition.kind == "static" else frozenset(walk(definition.where))
        self._audiences[audience_id] = Audience(
            audience_id,
            definition,
            leaves,
            _nothing if not leaves else compile_condition(definition.where, self._slots),
        )
        self._memberships.add(audience_id)
        self._relink(audience_id, "definition")
        return keys & self._filling

    def start_audience(self, audience_id: str, *, cause: str = "fill") -> None:
        """The history is folded: the next advance() evaluates it for everybody and reports flips with this cause."""
        audience = self._audiences[audience_id]
        audience.started = True
        if not audience.static:
            self._filling -= states_of(audience.definition).keys()
        self._relink(audience_id, cause)
        audience.cause, audience.sweep = "" if audience.static else cause, None

    def remove_audience(self, audience_id: str) -> None:
        """Forget an audience and the state that no other one needs. Reports no flips."""
        del self._audiences[audience_id]
        self._memberships.remove(audience_id)
        self._stored.pop(audience_id, None)
        self._relink(audience_id, "definition")

    # --- events

    def fold(
        self,
        events: Iterable[ResolvedEvent],
        *,
        now_us: int | None = None,
        conditions: Collection[str] | None = None,
        cause: str = "event",
    ) -> None:
        """Take events in: a set union, so order and repetition do not matter.

        Events later than the clock (or than `now_us`, when given and later) wait until advance() reaches them. Events
        without a profile and of merged profiles are ignored. `conditions` limits the fold to these state keys
        (a backfill); profiles are created in any case. `cause` is what flips say that come of it ("merge" for the
        events of a loser that are folded into its survivor, with profile_id set to the survivor).
        """
        if now_us is not None:
            self._horizon = max(self._horizon, now_us)
        self._states.fold(events, self._horizon, cause, conditions)

    def fold_history(
        self,
        key: str,
        table: Any,
        *,
        partitions: Collection[int] | None = None,
        without: Collection[str] = frozenset(),
    ) -> None:
        """Take in the history of one state key: a pyarrow table of queries.condition_history().

        `partitions` drops profiles of all other partitions, `without` these profiles: they were reassigned after the
        table was read, and folded anew.
        """
        history.fold_table(self._states, self._people, self._future, key, table, self._horizon, partitions, without)

    def merge(self, loser_id: str, survivor_id: str, *, epoch: int = 0) -> None:
        """The loser exits everything and is remembered as merged: later events of it are ignored.

        The survivor's state is completed by the caller, who folds the events of the loser's parts. A reassignment of
        the loser up to the epoch of the merge, if one is given, was overtaken by it.
        """
        if loser_id == survivor_id:
            return
        if epoch:
            self.know_epoch(loser_id, epoch)
        self._people.merged[loser_id] = survivor_id
        self._future.drop(loser_id)
        ordinal = self._people.index.get(loser_id)
        if ordinal is not None:
            self._people.alive[ordinal] = False
            self._dead.add(ordinal)
            self._states.touched.candidates.pop(ordinal, None)

    def epoch_of(self, profile_id: str) -> int:
        """The epoch of the last word on a profile, a reassignment or a merge; 0 when there was none in an epoch.

        Events of the profile and merges of it that were announced in a lower epoch say nothing any more, and so do
        reassignments of this epoch or a lower one.
        """
        return self._people.epochs.get(profile_id, 0)

    @property
    def has_epochs(self) -> bool:
        """Whether there is any profile of which epoch_of() is not 0."""
        return bool(self._people.epochs)

    def know_epoch(self, profile_id: str, epoch: int) -> None:
        """Remember a reassignment that is contained already in what is folded."""
        epochs = self._people.epochs
        epochs[profile_id] = max(epoch, epochs.get(profile_id, 0))

    def reassign(self, reassignments: Iterable[Reassignment]) -> None:
        """Forget all that is known of profiles; the caller folds the events of their parts, with cause "reassignment".

        One that is merged now, or is no profile any more, exits everything, as a merged one does. Of an erased one
        everything is forgotten at once, and no flips come of it. At most one reassignment per profile.
        """
        people = self._people
        known: list[int] = []
        erased: list[int] = []
        for one in reassignments:
            profile_id = one.profile_id
            self._future.drop(profile_id)
            people.merged.pop(profile_id, None)
            if one.epoch:
                self.know_epoch(profile_id, one.epoch)
            ordinal = people.index.get(profile_id)
            if one.erased:
                self._anew.pop(profile_id, None)
                if ordinal is not None:
                    erased.append(ordinal)
                continue
            self._anew[profile_id] = "reassignment"
            if not one.parts:
                people.merged[profile_id] = one.survivor
            if ordinal is not None:
                known.append(ordinal)
                people.alive[ordinal] = bool(one.parts)
                if one.parts:
                    self._dead.discard(ordinal)
                    self._states.touched.new.append(ordinal)
                else:
                    self._dead.add(ordinal)
                self._states.touched.candidates.pop(ordinal, None)
        self._make_room()
        if known:
            self._states.clear(np.array(known, np.int64))
        if erased:
            self._forget(np.array(erased, np.int64))

    def repair(self, profile_ids: Iterable[str], gone: Mapping[str, str]) -> None:
        """Forget what is kept of profiles, because it is wrong; the caller folds their events anew, at the same clock.

        `gone` are those that exist no more, with their survivors, or an empty text where there is none: they leave
        everything. The flips that come of it say "repair".
        """
        people = self._people
        known: list[int] = []
        for profile_id in (*profile_ids, *gone):
            is_alive = profile_id not in gone
            self._future.drop(profile_id)
            self._anew[profile_id] = "repair"
            people.merged.pop(profile_id, None)
            if gone.get(profile_id):
                people.merged[profile_id] = gone[profile_id]
            ordinal = people.index.get(profile_id)
            if ordinal is None:
                continue
            known.append(ordinal)
            people.alive[ordinal] = is_alive
            if is_alive:
                self._dead.discard(ordinal)
                self._states.touched.new.append(ordinal)
            else:
                self._dead.add(ordinal)
            self._states.touched.candidates.pop(ordinal, None)
        self._make_room()
        if known:
            self._states.clear(np.array(known, np.int64))

    def advance(self, now_us: int, *, most: int = sys.maxsize) -> list[Flip]:
        """Move the clock and return all flips since the last call, by events, merges and time alone.

        A moment before the clock is taken as the clock. The start of a large audience may bring very many flips: about
        `most` of them are found, and the rest by the next calls, while `is_sweeping` is true.
        """
        before = self._clock
        now = self._clock = self._horizon = max(now_us, self._clock, self._horizon)
        people, states = self._people, self._states
        states.release(now)
        self._make_room()
        touched = states.take_touched()
        started, self._started = self._started, []
        stored, self._stored = self._stored, {}
        dead = np.array(sorted(self._dead), np.int64)
        if len(dead):
            states.clear(dead)
            people.next_moment[dead] = FOREVER
        due = np.flatnonzero(people.next_moment[: len(people.ids)] <= now)
        fresh = [np.array(touched.new, np.int64), dead, *started]
        explainer = Explainer(people, touched.candidates, self._anew, before, now, self._view, self._past_truths)
        starting = {a.id: a for a in self._order if a.live and a.cause and a.sweep is None}
        flips = self._sweep(explainer, starting.values(), now, most)
        # Profiles are looked at for those audiences only that the changed states can move; audiences that read the
        # same changed states share the work. Of one that starts here everybody is looked at already, or will be.
        classes: dict[frozenset[str], list[Audience]] = {}
        for audience in self._order:
            if audience.live and audience.id not in starting:
                changed = audience.keys.intersection(touched.ordinals)
                if changed:
                    classes.setdefault(changed, []).append(audience)
        for keys, audiences in classes.items():
            flips += self._settle(explainer, [o for key in keys for o in touched.ordinals[key]], audiences, now, False)
        live = [a for a in self._order if a.live]
        flips += self._settle(explainer, fresh, live, now, True)
        flips += self._settle(explainer, [due], [a for a in live if a.moving], now, True)
        for audience_id, ordinals in stored.items():
            named = [a for a in live if a.id == audience_id or audience_id in a.statics]
            flips += self._settle(explainer, ordinals, named, now, False)
        flips.sort(key=attrgetter("effective_at_us", "audience_id", "profile_id"))
        self._bury(dead)
        if self._anew:
            # What comes of them in a partition that is held is found when it starts.
            self._anew = {p: c for p, c in self._anew.items() if people.partition_of(p) in people.held}
        return flips

    @property
    def starting(self) -> frozenset[str]:
        """Audiences for which not everybody was evaluated since they were started."""
        return frozenset(a.id for a in self._order if a.cause)

    @property
    def is_sweeping(self) -> bool:
        """Whether the next advance() goes on with evaluating everybody for audiences that start."""
        return any(a.sweep is not None for a in self._order)

    # --- reading

    def members(self, audience_id: str) -> list[str]:
        """Profile ids of the members as of the last advance(), sorted."""
        return sorted(self._people.ids[o] for o in self._memberships.all_of(audience_id).tolist())

    def members_in(self, audience_id: str, partition: int) -> list[str]:
        """Profile ids of the members in a partition as of the last advance()."""
        self._make_room()
        ordinals = self._people.ordinals_of(partition)
        return [self._people.ids[o] for o in ordinals[self._memberships.of(audience_id, ordinals)].tolist()]

    def size(self, audience_id: str) -> int:
        """Number of members as of the last advance()."""
        return self._memberships.size(audience_id)

    def is_member(self, audience_id: str, profile_id: str) -> bool:
        """Whether a profile was a member at the last advance()."""
        ordinal = self._people.index.get(profile_id)
        if ordinal is None or audience_id not in self._audiences:
            return False
        self._make_room()
        return bool(self._memberships.of(audience_id, np.array([ordinal]))[0])

    def compare(self, one: str, two: str, partition: int) -> tuple[int, int, int]:
        """How many of a partition are members of the one audience only, of the other only, and of both."""
        self._make_room()
        ordinals = self._people.ordinals_of(partition)
        ones, twos = self._memberships.of(one, ordinals), self._memberships.of(two, ordinals)
        return tuple(int(np.count_nonzero(found)) for found in (ones & ~twos, twos & ~ones, ones & twos))  # type: ignore[return-value]  # three of three

    def next_flip_us(self, audience_id: str, profile_id: str) -> int | None:
        """The next moment at which the membership flips if no further event comes; None: never."""
        audience = self._audiences[audience_id]
        ordinal = self._people.index.get(profile_id)
        if ordinal is None or audience.static or not self._people.alive[ordinal]:
            return None
        self._make_room()
        view = self._view(ordinal, ahead=True)
        return audience.next_change(view, self._clock)

    def next_moment_us(self) -> int | None:
        """The next moment at which time alone may change anything; None: never."""
        known = self._people.next_moment[: len(self._people.ids)]
        first = min(int(known.min()) if len(known) else FOREVER, self._states.next_release())
        return None if first >= FOREVER else first

    # --- partitions

    def set_membership(self, audience_id: str, profile_ids: Iterable[str], member: bool = True) -> None:
        """Say what the store holds, so that advance() reports only the difference to it."""
        self._memberships.ensure(self._people.capacity)
        ordinals: list[int] = []
        for profile_id in profile_ids:
            ordinal = self._people.index.get(profile_id)
            if ordinal is None:
                if not member:
                    continue
                ordinal = self._people.add(profile_id)
                self._states.touched.new.append(ordinal)
                if profile_id in self._people.merged:
                    self._dead.add(ordinal)
            ordinals.append(ordinal)
        self._make_room()
        known = np.unique(np.array(ordinals, np.int64))
        self._memberships.flip(audience_id, known[self._memberships.of(audience_id, known) != member])
        self._stored.setdefault(audience_id, []).append(known)

    def hold_partition(self, partition: int) -> None:
        """Report no flips of this partition until start_partition()."""
        self._people.held.add(partition)
        ordinals = self._people.ordinals_of(partition)
        self._people.reporting[ordinals] = False
        self._people.next_moment[ordinals] = FOREVER

    def start_partition(self, partition: int) -> None:
        """The partition is complete: the next advance() evaluates all its profiles."""
        self._people.held.discard(partition)
        self._lacking.pop(partition, None)
        ordinals = self._people.ordinals_of(partition)
        self._people.reporting[ordinals] = True
        self._started.append(ordinals)

    def export_partition(self, partition: int) -> bytes:
        """State of a partition (profiles, columns, waiting events, merged ids), without memberships. Versioned."""
        complete = self._states.keys.keys() - self._filling - self._lacking.get(partition, frozenset())
        return snapshot.write(
            self._workspace_id, partition, self._horizon, self._people, self._states, self._future, complete
        )

    def import_partition(self, partition: int, data: bytes) -> frozenset[str]:
        """Load a snapshot; the partition is held until start_partition(), at the clock of its making or a later one.

        Returns the state keys that the snapshot lacks: their history must be folded for this partition before it
        is started. Raises SnapshotError when the bytes are none of a known version.
        """
        content = snapshot.read(self._workspace_id, partition, data)
        self.hold_partition(partition)
        for loser, survivor in content.merged.items():
            self.merge(loser, survivor)
        for profile_id, epoch in content.epochs.items():
            self.know_epoch(profile_id, epoch)
        has = snapshot.load(content, self._people, self._states, self._future)
        lacking = frozenset(self._states.keys.keys() - has)
        self._lacking[partition] = lacking
        return lacking

    def drop_partition(self, partition: int) -> None:
        """Forget a partition (its lease has gone elsewhere). Reports no flips."""
        people = self._people
        ordinals = people.ordinals_of(partition)
        for profile_id in self._future.profiles():
            if people.partition_of(profile_id) == partition:
                self._future.drop(profile_id)
        for of_profile in (people.merged, people.epochs):
            for profile_id in [p for p in of_profile if people.partition_of(p) == partition]:
                del of_profile[profile_id]
        self._anew = {p: c for p, c in self._anew.items() if people.partition_of(p) != partition}
        self._forget(ordinals)
        people.held.discard(partition)
        self._lacking.pop(partition, None)

    def profiles_of(self, partition: int) -> Sequence[str]:
        """Profile ids known in a partition."""
        people = self._people
        ordinals = people.ordinals_of(partition)
        return [people.ids[o] for o in ordinals[people.alive[ordinals]].tolist()]

    # --- inside

    def _relink(self, changed: str, cause: str) -> None:
        """Work out again what follows from all audiences together, after one of them was changed."""
        audiences = self._audiences
        order = check_references({a.id: a.definition for a in audiences.values()})
        for audience_id in order:
            audience = audiences[audience_id]
            references = set() if audience.static else audience.definition.references
            named = [audiences[r] for r in sorted(references) if r in audiences]
            audience.live = audience.static or (audience.started and all(a.live for a in named))
            own = [self._slots.of(leaf) for leaf in audience.leaves]
            slots = {id(s): s for s in [*own, *(s for a in named for s in a.slots)]}
            audience.slots = tuple(slots.values())
            audience.keys = frozenset(key for s in audience.slots for key in s.keys)
            audience.moving = any(s.moving for s in audience.slots)
            audience.statics = frozenset(a.id for a in named if a.static).union(*(a.statics for a in named))
            audience.reach = {}
            audience.depends_on = frozenset(references).union(*(a.depends_on for a in named))
            if changed in audience.depends_on:
                audience.cause, audience.sweep = cause, None
        self._order = [audiences[audience_id] for audience_id in order]
        self._slots.keep_only({leaf for a in self._order for leaf in a.leaves})
        used = {key for a in self._order if not a.static for key in states_of(a.definition)}
        for key in self._states.keys.keys() - used:
            self._states.remove(key)
            self._filling.discard(key)
        self._moving = self._slots.moving()

    def _sweep(self, explainer: Explainer, starting: Collection[Audience], now: int, most: int) -> list[Flip]:
        """Evaluate everybody for these audiences and those that go on starting, until about so many flips are found."""
        if starting:
            sweep = Sweep(self._people.all_reporting())
            for audience in starting:
                audience.sweep = sweep
        flips: list[Flip] = []
        for sweep in {id(a.sweep): a.sweep for a in self._order if a.sweep is not None}.values():
            audiences = [a for a in self._order if a.live and a.sweep is sweep]
            while len(sweep.ahead) and len(flips) < most:
                some, sweep.ahead = sweep.ahead[:CHUNK], sweep.ahead[CHUNK:]
                # Some may have gone since.
                changes = self._evaluate(some[self._people.reporting[some]], audiences, now, settle=False)
                for change in changes:
                    change.cause = change.audience.cause
                flips += explainer.flips(changes)
            if not len(sweep.ahead):
                for audience in audiences:
                    audience.cause, audience.sweep = "", None
        return flips

    def _settle(
        self, explainer: Explainer, parts: list[Ordinals], audiences: list[Audience], now: int, settle: bool
    ) -> list[Flip]:
        """The flips of some profiles in some audiences; `settle` as in _evaluate()."""
        ordinals = different(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
        ordinals = ordinals[self._people.reporting[ordinals]]
        flips: list[Flip] = []
        for start in range(0, len(ordinals), CHUNK):
            changes = self._evaluate(ordinals[start : start + CHUNK], audiences, now, settle=settle)
            flips += explainer.flips(by_sweep(changes))
        return flips

    def _evaluate(self, ordinals: Ordinals, audiences: Sequence[Audience], now: int, *, settle: bool) -> list[Changes]:
        """Compare memberships with the reported ones; with `settle` all that time can move is looked at."""
        people, memberships = self._people, self._memberships
        frame = Frame(ordinals, now, self._truths)
        alive = people.alive[ordinals]
        changes: list[Changes] = []
        for audience in audiences:
            truths = frame.audience(audience.id) & alive
            changed = np.flatnonzero(truths != memberships.of(audience.id, ordinals))
            if len(changed):
                memberships.flip(audience.id, ordinals[changed])
                changes.append(Changes(audience, ordinals[changed], truths[changed]))
        if settle:
            for slot in self._moving:
                frame.leaf(slot)
            people.next_moment[ordinals] = np.where(alive, frame.edge, FOREVER)
        else:
            people.next_moment[ordinals] = np.minimum(people.next_moment[ordinals], frame.edge)
        return changes

    def _truths(self, audience_id: str, frame: Frame) -> Bools:
        audience = self._audiences.get(audience_id)
        if audience is None:
            return np.zeros(len(frame.ordinals), np.bool_)
        if audience.static:
            return self._memberships.of(audience_id, frame.ordinals)
        return cast("Bools", audience.expression(frame))

    def _past_truths(self, audience_id: str, past: Past) -> Bools:
        audience = self._audiences.get(audience_id)
        if audience is None:
            return np.zeros(len(past.ordinals), np.bool_)
        if audience.static:
            return self._memberships.of(audience_id, past.ordinals)
        return cast("Bools", audience.expression(past))

    def _view(self, ordinal: int, *, ahead: bool = False) -> View:
        future = self._future.of_profile(self._people.ids[ordinal]) if ahead else None
        return View(ordinal, self._truth_at, future)

    def _truth_at(self, audience_id: str, moment: Moment) -> bool:
        audience = self._audiences.get(audience_id)
        if audience is None:
            return False
        if audience.static:
            return bool(self._memberships.of(audience_id, np.array([moment.view.ordinal]))[0])
        return bool(audience.expression(moment))

    def _make_room(self) -> None:
        self._states.ensure_room()
        self._memberships.ensure(self._people.capacity)

    def _bury(self, dead: Ordinals) -> None:
        """Forget merged profiles of which no membership is left to be ended."""
        if len(dead):
            self._forget(dead[~self._memberships.any(dead)])

    def _forget(self, ordinals: Ordinals) -> None:
        self._make_room()
        self._states.clear(ordinals)
        self._memberships.clear(ordinals)
        for ordinal in ordinals.tolist():
            self._states.touched.candidates.pop(ordinal, None)
        self._dead.difference_update(ordinals.tolist())
        self._people.free(ordinals)


def _nothing(frame: object) -> bool:
    """The expression of a static audience, which is never evaluated."""
    raise AssertionError(f"a static audience has no condition to evaluate in {frame!r}")
