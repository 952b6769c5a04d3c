"""Jobs that are waited for, at growing intervals, because a further request needs their end.

Everything else that vendors take into jobs waits in the store (`headrace_sync.jobs`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from headrace_sync.outlets.verdicts import Kind, Verdict

LONGEST_S = 900.0
"""How long a job is asked for. What it holds is sent again then, where the vendor drops what it has already."""
LONGEST_PAUSE_S = 30.0
FIRST_PAUSE_S = 1.0
GROWTH = 1.5
ENDED = frozenset({Kind.DELIVERED, Kind.WARNED, Kind.REJECTED, Kind.SKIPPED, Kind.RETRY})
"""What an answer about a job says of an item when the job is done with it."""

Ask = Callable[[str, int], Awaitable[Sequence[Verdict]]]
"""Asks for a job with so many items: a verdict for each, PENDING while it runs, UNTRIED when nobody could be asked."""

Keep = Callable[[Sequence[int]], Awaitable[set[int]]]
"""Which of these items are still this process's; keeps them for a minute at least."""


async def follow(
    verdicts: Sequence[Verdict],
    *,
    ask: Ask,
    keep: Keep,
    stops: Callable[[], bool],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[Verdict]:
    """Verdicts of which none is PENDING any more.

    Args:
        verdicts: Of the items of a request; a PENDING one has its job as the reason.
        ask: Asks for a job.
        keep: Keeps items.
        stops: Whether nothing more is to be asked, because the destination or the process ends.
        pause: Waits for seconds.
        clock: Seconds that never go back.
    """
    found = list(verdicts)
    places = [place for place, verdict in enumerate(verdicts) if verdict.kind is Kind.PENDING]
    until = clock() + LONGEST_S

    def start(job: str, places: list[int]) -> _Following:
        return _Following(found, job, places, ask, keep, stops, pause, clock, until)

    async def run(places: Sequence[int], first_pause_s: float) -> None:
        jobs: dict[str, list[int]] = {}
        for place in places:
            jobs.setdefault(found[place].reason, []).append(place)
        await asyncio.gather(*(end(job, waiting, first_pause_s) for job, waiting in jobs.items()))

    async def end(job: str, waiting: list[int], first_pause_s: float) -> None:
        await start(job, waiting).run(first_pause_s)
        # A job may end in another one, such as one that asks for the errors of the first.
        await run([place for place in waiting if found[place].kind is Kind.PENDING], 0.0)

    await run(places, FIRST_PAUSE_S)
    return found


class _Following:
    """One job."""

    def __init__(
        self,
        found: list[Verdict],
        job: str,
        places: list[int],
        ask: Ask,
        keep: Keep,
        stops: Callable[[], bool],
        pause: Callable[[float], Awaitable[None]],
        clock: Callable[[], float],
        until: float,
    ) -> None:
        self._found = found
        self._job = job
        self._places = places
        self._ask = ask
        self._keep = keep
        self._stops = stops
        self._pause = pause
        self._clock = clock
        self._until = until

    async def run(self, first_pause_s: float) -> None:
        """Put the verdicts of the job's items in their places: none of them waits for this job any more.

        Args:
            first_pause_s: Least seconds before the job is asked for the first time.
        """
        wait_s = max(self._found[self._places[0]].after_s or 0.0, first_pause_s)
        while self._open() and not self._stops() and self._clock() < self._until:
            await self._pause(min(wait_s, LONGEST_PAUSE_S))
            wait_s = min(max(wait_s, FIRST_PAUSE_S) * GROWTH, LONGEST_PAUSE_S)
            kept = await self._keep(self._open())
            for place in self._open():
                if place not in kept:
                    self._found[place] = Verdict(Kind.GONE)
            if self._open():
                await self._ask_once()
        for place in self._open():
            self._found[place] = Verdict(Kind.LOST, "the end of the vendor's job was not seen", self._found[place].code)

    async def _ask_once(self) -> None:
        for place, verdict in zip(self._places, await self._ask(self._job, len(self._places)), strict=True):
            # What could not be asked, or not be read, is asked again: the vendor has the item.
            ended = verdict.kind in ENDED
            goes_on = verdict.kind is Kind.PENDING and verdict.reason != self._job
            if (ended or goes_on) and self._waits(place):
                self._found[place] = verdict

    def _open(self) -> list[int]:
        return [place for place in self._places if self._waits(place)]

    def _waits(self, place: int) -> bool:
        verdict = self._found[place]
        return verdict.kind is Kind.PENDING and verdict.reason == self._job
