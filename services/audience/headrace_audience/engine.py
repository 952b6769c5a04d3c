"""The incremental engine: exact audience membership of one workspace, kept in numpy columns.

State is a function of the *set* of folded events, so folding twice, late, in any order, or from the log beside live
traffic ends in the same memberships. Nothing here does I/O and nothing reads a clock: the caller says what time it is.

How a replica uses it::

    engine = Engine("acme", partitions_total=64, now_us=now)
    needed = engine.set_audience("buyers", definition)   # state keys whose history is still missing
    engine.fold_history(table) ...                       # one table of batch.condition_history() per key
    engine.start_audience("buyers")                      # from now on its flips are reported
    missing = engine.import_partition(7, snapshot)       # held: no flips yet
    engine.fold(events, now_us=now)                      # replay, live traffic
    engine.set_membership("buyers", stored_member_ids)   # what the store says
    engine.start_partition(7)                            # the next advance() reports the difference
    flips = engine.advance(now)                          # every second and after each micro-batch
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace_audience.definition import Definition


@dataclass(frozen=True, slots=True)
class Flip:
    """One change of one membership."""

    audience_id: str
    profile_id: str
    member: bool
    """True: entered. False: left."""
    effective_at_us: int
    """The moment from which it holds: the time of the causing event, or the edge of a window."""
    cause: str
    """"event", "time", "merge", "fill" or "definition"."""
    message_id: str = ""
    """The causing event, when an event did it."""
    traceparent: str = ""
    """Trace context of the causing event."""
    merged_into: str = ""
    """The survivor, when the profile left because it was merged."""


class Engine:
    """Audience state of the partitions of one workspace that this replica holds."""

    def __init__(self, workspace_id: str, partitions_total: int, now_us: int, *, capacity: int = 1024) -> None:
        """Make an empty engine whose clock stands at `now_us`; `capacity` profiles fit before the first growth."""

    @property
    def clock_us(self) -> int:
        """The moment up to which everything is settled: that of the last advance()."""
        raise NotImplementedError

    # --- audiences

    def set_audience(self, audience_id: str, definition: Definition) -> frozenset[str]:
        """Add an audience or replace its definition; its flips are not reported until start_audience().

        Returns the state keys whose history is not yet here: fold it with fold_history() or fold(conditions=...), live
        events may be folded meanwhile. A static audience needs none: its members are set by set_membership().
        Raises DefinitionError when the audiences would refer to each other in a circle.
        """
        raise NotImplementedError

    def start_audience(self, audience_id: str, *, cause: str = "fill") -> None:
        """The history is folded: the next advance() evaluates it for everybody and reports flips with this cause."""
        raise NotImplementedError

    def remove_audience(self, audience_id: str) -> None:
        """Forget an audience and the state that no other one needs. Reports no flips."""
        raise NotImplementedError

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
        raise NotImplementedError

    def fold_history(self, key: str, table: Any, *, partitions: Collection[int] | None = None) -> None:
        """Take in the history of one state key: a pyarrow table of batch.condition_history().

        `partitions` drops profiles of all other partitions.
        """
        raise NotImplementedError

    def merge(self, loser_id: str, survivor_id: str) -> None:
        """The loser exits everything and is remembered as merged: later events of it are ignored.

        The survivor's state is completed by the caller, who folds the events of the loser's parts.
        """
        raise NotImplementedError

    def advance(self, now_us: int) -> list[Flip]:
        """Move the clock and return all flips since the last call, by events, merges and time alone.

        A moment before the clock is taken as the clock.
        """
        raise NotImplementedError

    # --- reading

    def members(self, audience_id: str) -> list[str]:
        """Profile ids of the members as of the last advance(), sorted."""
        raise NotImplementedError

    def size(self, audience_id: str) -> int:
        """Number of members as of the last advance()."""
        raise NotImplementedError

    def is_member(self, audience_id: str, profile_id: str) -> bool:
        """Whether a profile was a member at the last advance()."""
        raise NotImplementedError

    def next_flip_us(self, audience_id: str, profile_id: str) -> int | None:
        """The next moment at which the membership flips if no further event comes; None: never."""
        raise NotImplementedError

    def next_moment_us(self) -> int | None:
        """The next moment at which time alone may change anything; None: never."""
        raise NotImplementedError

    # --- partitions

    def set_membership(self, audience_id: str, profile_ids: Iterable[str], member: bool = True) -> None:
        """Say what the store holds, so that advance() reports only the difference to it."""
        raise NotImplementedError

    def hold_partition(self, partition: int) -> None:
        """Report no flips of this partition until start_partition()."""
        raise NotImplementedError

    def start_partition(self, partition: int) -> None:
        """The partition is complete: the next advance() evaluates all its profiles."""
        raise NotImplementedError

    def export_partition(self, partition: int) -> bytes:
        """State of a partition (profiles, columns, waiting events, merged ids), without memberships. Versioned."""
        raise NotImplementedError

    def import_partition(self, partition: int, snapshot: bytes) -> frozenset[str]:
        """Load a snapshot; the partition is held until start_partition().

        Returns the state keys that the snapshot lacks: their history must be folded for this partition before it
        is started. Raises SnapshotError when the bytes are none of a known version.
        """
        raise NotImplementedError

    def drop_partition(self, partition: int) -> None:
        """Forget a partition (its lease has gone elsewhere). Reports no flips."""
        raise NotImplementedError

    def profiles_of(self, partition: int) -> Sequence[str]:
        """Profile ids known in a partition."""
        raise NotImplementedError
