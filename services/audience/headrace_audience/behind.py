"""Which continuous audiences of groups may be behind, so that they are to be computed anew.

Such an audience is behind when anything that it reads may have changed since it was computed: an event, a merge, the
members or the definition of an audience that it names; or when a moment has come at which time alone changes what it
reads. What is known here is known to this replica only, and is lost with it: whoever takes partitions takes everything
for changed. That an audience is computed once too often does no harm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from headrace.domain.times import SECOND_US
from headrace_audience.batch_audiences import named_by
from headrace_audience.catalog import Audience

REST = 10
"""After computing, such audiences rest so many times as long as that took."""


class Behind:
    """What happened to the continuous audiences of groups of one workspace since they were computed."""

    def __init__(self) -> None:
        """Nothing happened."""
        self._touched: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._rests_until_us = 0

    def touch(self, audiences: Iterable[Audience]) -> None:
        """Anything that these read may have changed."""
        self._touched.update((a.audience_id, a.generation) for a in audiences if a.is_kept_up)

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
        self._rests_until_us = now_us + int(REST * seconds * SECOND_US)

    def is_due(self, audience: Audience, now_us: int, every_us: int) -> bool:
        """Whether an audience is to be computed anew now, at least so long after the last time."""
        rests = now_us < max(self._rests_until_us, audience.at_us + every_us)
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
