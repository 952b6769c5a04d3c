"""What planning hands to a worker, on a real store."""

from __future__ import annotations

from collections.abc import Iterable

from headrace_sync.delivery_store import DeliveryStore
from headrace_sync.handover import Handover
from headrace_sync.store import DELIVERIES
from headrace_sync.work import Work, forwarding_document

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.storage.mongo.client import Database


class Taker:
    """Collects what it is offered."""

    owner = "process-1"

    def __init__(self) -> None:
        self.offered: list[str] = []

    def room(self) -> int:
        return 100

    def offer(self, works: Iterable[Work]) -> None:
        self.offered += [work.id for work in works]

    def wake(self) -> None: ...


def work(message_id: str) -> Work:
    event = Event(workspace_id="w", message_id=message_id)
    return Work(forwarding_document("sync", "w\x1fdestination", ResolvedEvent(event=event, profile_id="p"), 1), event)


async def test_a_delivery_that_is_planned_twice_is_handed_over_once(db: Database) -> None:
    taker = Taker()
    handover = Handover(DeliveryStore(db), taker_of=lambda key: taker, lease_s=60)
    first, second = work("m1"), work("m2")
    assert await handover.store([first, second, work("m1")]) == 2
    assert sorted(taker.offered) == sorted([first.id, second.id])
    assert await handover.store([work("m2"), work("m1")]) == 0
    assert len(taker.offered) == 2
    assert await db[DELIVERIES].count_documents({"lo": {"$regex": "^process-1:"}}) == 2
