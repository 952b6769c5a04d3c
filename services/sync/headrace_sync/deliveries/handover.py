"""New deliveries on their way from planning to the workers.

What a worker of this process has room for is stored as taken by it and handed over at once, which saves taking it
from the store; everything else waits in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import SECOND_US, now_us
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.deliveries.work import Work
from headrace_sync.store import WAITING


class Taker(Protocol):
    """Whoever takes planned deliveries from memory (`headrace_sync.deliveries.worker.Worker`)."""

    @property
    def owner(self) -> str:
        """Name under which it holds deliveries."""
        ...

    def room(self) -> int:
        """How many it can take."""
        ...

    def offer(self, works: Iterable[Work]) -> bool:
        """Take deliveries that are stored as held by it; False when it has ended, and takes none."""
        ...

    def wake(self) -> None:
        """Look for deliveries in the store."""
        ...


class Handover:
    """Stores new deliveries and hands them to workers."""

    def __init__(self, store: DeliveryStore, *, taker_of: Callable[[str], Taker | None], lease_s: float) -> None:
        """Store deliveries here.

        Args:
            store: Deliveries.
            taker_of: The worker of a destination key in this process, None when there is none.
            lease_s: How long a delivery is this process's, in seconds.
        """
        self._store = store
        self._taker_of = taker_of
        self._lease_us = int(lease_s * SECOND_US)

    async def store(self, works: Sequence[Work]) -> int:
        """Make deliveries durable; those that exist stay as they are, and one that comes twice is one.

        Returns:
            Number of new ones.
        """
        # An event that was sent twice can be resolved twice in what is planned together: one delivery, to one taker.
        works = list({work.id: work for work in works}.values())
        by_destination: dict[str, list[Work]] = {}
        now = now_us()
        for work in works:
            if work.document["st"] == WAITING and work.document["na"] <= now:  # what is to wait waits in the store
                by_destination.setdefault(work.document["d"], []).append(work)
        taken: list[tuple[Taker, list[Work], bool]] = []
        for key, waiting in by_destination.items():
            taker = self._taker_of(key)
            if taker is not None:
                own = waiting[: taker.room()]
                token = f"{taker.owner}:{new_time_ordered_id()}"
                until = now_us() + self._lease_us
                for work in own:
                    work.document |= {"lo": token, "na": until}
                taken.append((taker, own, len(own) < len(waiting)))
        new = await self._store.insert([work.document for work in works])
        for taker, own, more in taken:
            fresh = [work for work in own if work.id in new]
            if fresh and not taker.offer(fresh):
                await self._store.unclaim([work.document for work in fresh], at=now_us())
            if more:
                taker.wake()
        return len(new)
