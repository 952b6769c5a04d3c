"""How time passes for the audiences of a replica: usually with the clock, after a pause by steps.

A replica that starts takes the clock from where its partitions stood: their snapshots, and the last moment for which
changes of theirs were written, say when that was. From there time passes as if somebody had been there: events are
folded in the order of their streams, an event that is later than the clock waits, and the clock stops in each second in
which anything is due. What is found there is written before it goes on, so that each change happens once, in order, and
is not found again when the replica is killed in the middle and another one begins where this one had written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from headrace.domain.times import SECOND_US
from headrace_audience.evaluation import Evaluation
from headrace_audience.partitions import streaming
from headrace_audience.partitions.held import Held

STEP_US = SECOND_US
"""What enters and leaves within one step of this length is no change."""
CATCHES_UP_FROM_US = 5 * SECOND_US
"""So far behind the clock time passes by steps; a micro-batch that takes long is no pause. Who starts takes any."""
LONGEST_S = 0.5
"""So long steps are made before leases, audiences and streams are looked at again."""


class Passing:
    """The moment up to which time has passed, and the one to which it is to pass."""

    def __init__(self) -> None:
        """Begin when take() is called."""
        self.moment_us = 0
        self._goal_us = 0
        self._starts = False
        self._owes = False
        """Whether changes of a moment that has passed by steps are yet to be written."""

    def take(self, began_us: Iterable[int], now_us: int) -> None:
        """Nothing was held until now: begin at the earliest of the moments at which the partitions stood."""
        self.moment_us = self._goal_us = min([now_us, *began_us])
        self._starts = True

    @property
    def catches_up(self) -> bool:
        """Whether time passes by steps because it is far behind."""
        return self._owes or self._goal_us - self.moment_us > (STEP_US if self._starts else CATCHES_UP_FROM_US)

    def aim(
        self,
        now_us: int,
        reading: streaming.Reading,
        held: Mapping[int, Held],
        started: Iterable[int],
        replayed_us: Mapping[int, int] = MappingProxyType({}),
    ) -> int:
        """Let time pass up to a moment that streams and log allow; returns it.

        While more of a started partition waits, time stands where its last entry stood: a window must not pass that an
        entry still to be read would have prolonged.

        Args:
            now_us: The moment at which to arrive.
            reading: What was read.
            held: The partitions.
            started: Those of which changes are told.
            replayed_us: Partition to the moment up to which the log is folded in place of its stream.
        """
        if self.catches_up:
            return self._goal_us
        running = set(started)
        limits = [
            streaming.moment_us(reading.positions[p])
            for p in reading.lagging
            if p in running or (p in held and held[p].follows)
        ]
        limits += [
            max(one.start_us, streaming.moment_us(one.position))
            for p, one in held.items()
            if one.follows
            and p not in replayed_us
            and not streaming.is_at(reading.positions.get(p, one.position), one.target)
        ]
        limits += [max(held[p].start_us, until_us) for p, until_us in replayed_us.items()]
        self._goal_us = max(self.moment_us, min([now_us, *limits]))
        if self._goal_us == now_us and not self.catches_up:
            self._starts = False
        return self._goal_us

    def passed(self, moment_us: int) -> None:
        """Time has passed up to a moment."""
        self.moment_us = max(self.moment_us, moment_us)

    async def step(
        self,
        evaluations: Mapping[str, Evaluation],
        held: Mapping[int, Held],
        ready: Callable[[], Sequence[int]],
        lock: asyncio.Lock,
        write: Callable[[], Awaitable[bool]],
        stop_at: float,
    ) -> None:
        """Pass time by steps for a while, each change written before the next is looked for.

        What of a step is not written in time is written first the next time.

        The many changes of an audience that is being filled or emptied are none that were due: time does not wait for
        them.

        Args:
            evaluations: The workspaces.
            held: The partitions.
            ready: Gives the partitions that may start at the moment that is reached.
            lock: Held by whoever uses an engine.
            write: Writes some of what waits; returns whether the store could be reached.
            stop_at: When to stop, by the monotonic clock; what takes long by itself is ended.
        """
        while True:
            while self._is_owing(evaluations):
                if not await write() or (time.monotonic() > stop_at and self._is_owing(evaluations)):
                    return
            if self.moment_us >= self._goal_us or time.monotonic() > stop_at:
                return
            async with lock:
                started = False
                for evaluation in evaluations.values():
                    started |= evaluation.start_what_is_complete(ready())
                # Whoever starts is compared at the moment at which it stood, before anything later is looked at.
                moment = self.moment_us if started else self._next_stop(evaluations, held)
                for evaluation in evaluations.values():
                    evaluation.pending.add(await asyncio.to_thread(evaluation.advance, moment))
                self.passed(moment)

    def _is_owing(self, evaluations: Mapping[str, Evaluation]) -> bool:
        self._owes = any(e.has_due_unwritten for e in evaluations.values())
        return self._owes

    def _next_stop(self, evaluations: Mapping[str, Evaluation], held: Mapping[int, Held]) -> int:
        """The end of the next second in which anything is due, or the start of a partition, or the goal."""
        due = [m for e in evaluations.values() if (m := e.engine.next_moment_us()) is not None]
        stops = [self._goal_us, *(one.start_us for one in held.values() if one.start_us > self.moment_us)]
        if due:
            stops.append(max(min(due), self.moment_us) // STEP_US * STEP_US + STEP_US)
        return min(stops)
