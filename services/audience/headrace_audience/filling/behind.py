"""Which continuous audiences of groups may be behind, so that they are to be computed anew.

Such an audience is behind when anything that it reads may have changed since it was computed: an event that its
conditions read (`concerns`), somebody who belongs to a group, a group's own traits, a merge, the members or the
definition of an audience that it names; or when a moment has come at which time alone changes what it
reads. What is known here is known to this replica only, and is lost with it: whoever takes partitions takes everything
for changed. That an audience is computed once too often does no harm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.times import SECOND_US
from headrace_audience.definitions.catalog import Audience
from headrace_audience.filling.batch_audiences import named_by
from headrace_audience.filling.concerns import Belonging, Reads, reads_of

REST = 10
"""After computing, such audiences rest so many times as long as that took."""


class Rest:
    """A replica rests from computing such audiences, whatever the workspace and the partitions."""

    def __init__(self) -> None:
        """It does not rest."""
        self._until_us = 0

    def begin(self, now_us: int, seconds: float) -> None:
        """The replica has just computed for so long: for a while none is started. What overlaps adds up."""
        self._until_us = max(self._until_us, now_us) + int(REST * seconds * SECOND_US)

    def lasts(self, now_us: int) -> bool:
        """Whether it rests."""
        return now_us < self._until_us


class Behind:
    """What happened to the continuous audiences of groups of one workspace since they were computed."""

    def __init__(self, rest: Rest | None = None) -> None:
        """Nothing happened; `rest` is that of the replica."""
        self._rest = rest or Rest()
        self._touched: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._reads: dict[str, Reads] = {}
        self._belonging = Belonging()

    def touch(self, audiences: Iterable[Audience]) -> None:
        """Anything that these read may have changed."""
        self._touched.update((a.audience_id, a.generation) for a in audiences if a.is_kept_up)

    def touch_all(self, audiences: Iterable[Audience]) -> None:
        """Anything may have changed, also who is who."""
        self._belonging.forget()
        self.touch(audiences)

    def happened(self, events: Sequence[ResolvedEvent], audiences: Mapping[str, Audience], now_us: int) -> None:
        """Events came: audiences that read any of them may be behind."""
        kept_up = [audience for audience in audiences.values() if audience.is_kept_up]
        if not kept_up:
            return
        # All are looked at: who belongs to which group is to be known.
        moved = [e for e in events if e.event.group_id and self._belonging.changes(e, now_us)]
        if moved:
            self.touch(kept_up)
            return
        for audience in kept_up:
            if audience.audience_id not in self._reads:
                self._reads[audience.audience_id] = reads_of(audience.definition, audiences)
            if any(map(self._reads[audience.audience_id].concerns, events)):
                self.touch([audience])

    def defined(self) -> None:
        """Audiences may have got other definitions."""
        self._reads.clear()

    def touch_readers(self, changed: Collection[str], audiences: Mapping[str, Audience]) -> None:
        """The members or definitions of some audiences changed, which others may read."""
        self.touch(a for a in audiences.values() if a.is_kept_up and not named_by(a, audiences).isdisjoint(changed))

    def computed(self, audience_id: str, turns_us: int | None) -> None:
        """An audience was computed, and time alone changes what it reads at a moment; None: never."""
        self._turns.pop(audience_id, None)
        if turns_us is not None:
            self._turns[audience_id] = turns_us

    def rest(self, now_us: int, seconds: float) -> None:
        """This replica has just computed such audiences for so long: for a while none is started."""
        self._rest.begin(now_us, seconds)

    def is_due(self, audience: Audience, now_us: int, every_us: int) -> bool:
        """Whether an audience is to be computed anew now, at least so long after the last time."""
        rests = self._rest.lasts(now_us) or now_us < audience.at_us + every_us
        return audience.is_kept_up and not rests and self.is_behind(audience, now_us)

    def is_behind(self, audience: Audience, now_us: int) -> bool:
        """Whether an audience may be behind what it reads."""
        touched = self._touched.get(audience.audience_id)
        # The generation after the one that was known then may have been read by others before what happened was there.
        is_touched = touched is not None and audience.generation <= touched + 1
        return is_touched or self._turns.get(audience.audience_id, now_us + 1) <= now_us

    def started(self, audience_id: str) -> None:
        """A refresh was started by this replica just now: it reads all that happened."""
        self._touched.pop(audience_id, None)
        self._turns.pop(audience_id, None)

    def forget(self, audience_id: str) -> None:
        """An audience is gone, or gets another definition."""
        self.started(audience_id)
