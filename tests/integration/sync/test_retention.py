"""Deliveries are forgotten after some weeks: the account balances before and after, and nothing is sent twice."""

from __future__ import annotations

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.leases import Lease, Leases
from headrace_sync.ledger.accounts import Accounts
from headrace_sync.ledger.retention import Retention
from headrace_sync.lists.store import ListStore
from headrace_sync.people.audiences import Audiences
from headrace_sync.registry import Registry
from headrace_sync.store import ConfigStore

from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.domain.times import DAY_US, now_us
from headrace.rpc import channel
from headrace.storage.mongo.client import Database
from tests.support import sync as support
from tests.support.sync import Hooks, Line, Others


async def test_old_deliveries_go_and_the_account_balances(
    serve: Any, hooks: Hooks, line: Line, others: Others, db: Database
) -> None:
    store = ConfigStore(db)
    registry = Registry(store)
    opened = channel.with_token(others.address, "")
    accounts = Accounts(db, DeliveryStore(db), ListStore(db), Audiences(opened))
    retention = Retention(db, store, registry, accounts, Leases(db, owner="test"), days=28)
    others.buyers.change("early", True)
    async with serve(reconcile_seconds=0.3, delivery_days=4_000) as api:
        hook = await api.destination("hook", hooks.url)
        forwarding = await api.forwarding("some", hook, event_names=["Purchased"])
        told = await api.sync("told", hook, SyncKind.SYNC_KIND_EVENT, audience=support.AUDIENCE)
        await line.send_new(5)
        await line.send_new(2, "Viewed")
        await others.buyers.enter("p1", "p2")
        await support.settled(api, forwarding)
        await support.settled(api, told)
        await registry.refresh()
        await retention.sweep(Lease(), now=now_us())
        assert (await api.ledger(forwarding)).expected == 7, "nothing is too old yet"

        sent = dict(hooks.accepted)
        passed = now_us() + 29 * DAY_US  # as if that time had passed
        await retention.sweep(Lease(), now=passed)
        # A sync that is made now is known with all that came before it to who plans an event for it.
        later = await api.forwarding("later", hook)
        new = await line.send_new(1)
        await support.settled(api, later)
        sent |= dict.fromkeys(new, 1)
        await registry.refresh()
        await retention.sweep(Lease(), now=passed)
        for name in (forwarding, told):
            ledger = await support.settled(api, name)
            assert (ledger.expected, ledger.delivered, dict(ledger.filtered)) == (0, 0, {})
            assert not await api.deliveries(name)
        assert await db["ledger"].count_documents({}) == 0

        # What is forgotten is not planned again, though all of it is still in the log and in the audience's history.
        await db["sync_state"].delete_many({"_id": {"$regex": "^(balanced|reconciled|settled)"}})
        marks = {"_id": {"$regex": "^reconciled"}}

        async def compared() -> bool:
            return await db["sync_state"].count_documents(marks) > 0

        await support.until(compared, "the syncs were compared again")
        assert hooks.accepted == sent
        assert not await api.deliveries(forwarding) + await api.deliveries(told)
    await opened.close(None)


async def test_what_waits_is_kept_however_old(
    serve: Any, hooks: Hooks, line: Line, others: Others, db: Database
) -> None:
    store = ConfigStore(db)
    registry = Registry(store)
    opened = channel.with_token(others.address, "")
    accounts = Accounts(db, DeliveryStore(db), ListStore(db), Audiences(opened))
    retention = Retention(db, store, registry, accounts, Leases(db, owner="test"), days=28)
    async with serve(reconcile_seconds=0.3, delivery_days=4_000) as api:
        hook = await api.destination("hook", hooks.url)
        forwarding = await api.forwarding("some", hook)
        early = await line.send_new(2)
        await support.settled(api, forwarding)
        paused = dest.Destination(name=hook, state=dest.DestinationState.DESTINATION_STATE_PAUSED)
        mask = FieldMask(paths=["state"])
        await api.destinations.UpdateDestination(dest.UpdateDestinationRequest(destination=paused, update_mask=mask))
        late = await line.send_new(3)

        async def wait() -> bool:
            waiting: int = (await api.ledger(forwarding)).waiting
            return waiting == 3

        await support.until(wait, "three wait")
        passed = now_us() + 29 * DAY_US  # as if that time had passed
        for _ in range(2):
            await registry.refresh()
            await retention.sweep(Lease(), now=passed)
        assert (await api.ledger(forwarding)).waiting == 3
        active = dest.Destination(name=hook, state=dest.DestinationState.DESTINATION_STATE_ACTIVE)
        await api.destinations.UpdateDestination(dest.UpdateDestinationRequest(destination=active, update_mask=mask))
        ledger = await support.settled(api, forwarding)
        assert hooks.accepted == support.once([*early, *late])
        assert ledger.delivered in (3, 5), "what came before those that waited may be forgotten"
        assert ledger.expected == ledger.delivered
    await opened.close(None)
