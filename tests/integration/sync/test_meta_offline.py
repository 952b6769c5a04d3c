"""Offline conversions and several accounts of Meta in one workspace, through the whole sync service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.domain.times import now_us
from tests.support import sync as support
from tests.support.fake_meta import FakeMeta
from tests.support.sync import Line, Others
from tests.support.vendors.meta_conversions import FakeConversions

PLUGINS = "meta-audience,meta-conversions,meta-offline"
ORDER = {"order_id": "T-1", "revenue": 29.8, "currency": "EUR"}
DAY_US = 86_400_000_000


@pytest.fixture
async def meta() -> AsyncIterator[FakeConversions]:
    fake = FakeConversions(pixels={"1", "2", "3"})
    await fake.start()
    yield fake
    assert fake.violations == []
    await fake.stop()


async def dataset(api: support.Api, meta: FakeConversions, id: str, **more: Any) -> str:
    settings = {"dataset_id": id, "access_token": meta.token, "base_url": meta.url, **more}
    return await api.destination(f"store-{id}", "", "meta-offline", **settings)


async def pixel(api: support.Api, meta: FakeConversions, id: str, **more: Any) -> str:
    settings = {"pixel_id": id, "access_token": meta.token, "base_url": meta.url, "action_source": "email", **more}
    return await api.destination(f"site-{id}", "", "meta-conversions", **settings)


async def resolve(line: Line, count: int, name: str = "Purchased", *, online: bool = False, **more: Any) -> list[str]:
    """Events of a website, or of a store; returns their message ids."""
    events = line.make(count, name, properties=ORDER, **more)
    for event in events:
        event.event.online = online
    await line.resolve(*events)
    return [event.event.message_id for event in events]


def ids(meta: FakeConversions, pixel: str) -> list[str]:
    return sorted(event["event_id"] for event in meta.counted.get(pixel, ()))


async def test_online_events_are_refused_where_offline_ones_are_wanted(
    serve: Any, meta: FakeConversions, line: Line, others: Others
) -> None:
    others.people.put("p1", email="ada@example.com")
    async with serve() as api:
        store = await api.forwarding("store", await dataset(api, meta, "1"))
        both = await api.forwarding("both", await pixel(api, meta, "2"))
        bought = await resolve(line, 3)
        clicked = await resolve(line, 2, online=True)
        named = await api.forwarding("named", await dataset(api, meta, "3"), event_names=["Visit"])
        visited = await resolve(line, 1, "Visit")
        await resolve(line, 1, "Visit", online=True)
        stored = await support.settled(api, store)
        sent = await support.settled(api, both)
        chosen = await support.settled(api, named)
        assert not {d.message_id for d in await api.deliveries(store)} & set(clicked)
    assert ids(meta, "1") == sorted([*bought, *visited])
    assert (stored.expected, stored.delivered, dict(stored.filtered)) == (7, 4, {"online_source": 3})
    assert (sent.delivered, dict(sent.filtered)) == (7, {})
    assert set(bought + clicked) <= set(ids(meta, "2"))
    assert (chosen.delivered, dict(chosen.filtered)) == (1, {"online_source": 1})


async def test_refused_events_stay_refused_however_often_they_come(
    serve: Any, meta: FakeConversions, line: Line, others: Others
) -> None:
    others.people.put("p1", email="ada@example.com")
    async with serve() as api:
        store = await api.forwarding("store", await dataset(api, meta, "1"))
        events = line.make(4, properties=ORDER)
        for event in events[:2]:
            event.event.online = True
        await line.resolve(*events)
        await line.send(events)
        await support.settled(api, store)
        # Another form of the sync looks again at what came before, and finds it accounted for.
        await api.syncs.UpdateSync(pb.UpdateSyncRequest(sync=pb.Sync(name=store, event_names=["Purchased"])))
        await line.send(events)
        await asyncio.sleep(0.5)
        ledger = await support.settled(api, store)
    assert (ledger.expected, ledger.delivered, dict(ledger.filtered)) == (4, 2, {"online_source": 2})
    assert len(ids(meta, "1")) == 2


async def test_old_conversions_of_stores_are_sent_those_of_websites_are_not(
    serve: Any, meta: FakeConversions, line: Line, others: Others
) -> None:
    others.people.put("p1", email="ada@example.com")
    async with serve() as api:
        store = await api.forwarding("store", await dataset(api, meta, "1"))
        site = await api.forwarding("site", await pixel(api, meta, "2"))
        month_old = await resolve(line, 1, at_us=now_us() - 30 * DAY_US)
        await resolve(line, 1, at_us=now_us() - 63 * DAY_US)
        stored = await support.settled(api, store)
        sent = await support.settled(api, site)
    assert ids(meta, "1") == month_old and ids(meta, "2") == []
    assert [reason.partition(":")[0] for reason in stored.filtered] == ["it happened more than 62 days ago"]
    assert [reason.partition(":")[0] for reason in sent.filtered] == ["it happened more than 7 days ago"]


async def test_one_bad_event_of_many_is_the_only_one_that_fails(
    serve: Any, meta: FakeConversions, line: Line, others: Others
) -> None:
    """A website event without its browser, which this vendor refuses together with whatever is in its request."""
    meta.strict_about_websites = True
    others.people.put("p1", email="ada@example.com")
    context = {"userAgent": "Mozilla/5.0", "page": {"url": "https://shop.example/"}}
    async with serve() as api:
        site = await api.forwarding("site", await pixel(api, meta, "1", action_source="website"))
        events = line.make(40, properties=ORDER, context=context)
        events[17].event.context = b"{}"
        await line.resolve(*events)
        ledger = await support.settled(api, site)
        (failed,) = [d for d in await api.deliveries(site) if d.state == pb.DeliveryState.DELIVERY_STATE_FAILED]
    assert failed.message_id == events[17].event.message_id and "error 100" in failed.reason
    assert (ledger.delivered, ledger.failed) == (39, 1)
    assert ids(meta, "1") == sorted(e.event.message_id for e in events if e is not events[17])


async def test_several_accounts_of_a_platform_work_beside_each_other(
    serve: Any, meta: FakeConversions, line: Line, others: Others
) -> None:
    others.people.put("p1", email="ada@example.com")
    async with serve() as api:
        destinations = [await pixel(api, meta, id) for id in ("1", "2")]
        wrong = await pixel(api, meta, "3", access_token="of-somebody-else")
        syncs = [await api.forwarding(f"s{n}", one) for n, one in enumerate([*destinations, wrong])]
        sent = await resolve(line, 20)
        for sync in syncs[:2]:
            assert (await support.settled(api, sync)).delivered == 20

        async def stopped() -> bool:
            answer = await api.destinations.GetDestination(dest.GetDestinationRequest(name=wrong))
            return bool(answer.destination.state == dest.DestinationState.DESTINATION_STATE_UNAUTHORIZED)

        await support.until(stopped, "the account whose token is wrong is stopped")
        again = await resolve(line, 5)
        for sync in syncs[:2]:
            assert (await support.settled(api, sync)).delivered == 25
        assert (await api.ledger(syncs[2])).waiting == 25
    assert ids(meta, "1") == ids(meta, "2") == sorted(sent + again)
    assert "3" not in meta.counted


async def test_several_ad_accounts_keep_lists_of_their_own(serve: Any, others: Others) -> None:
    vendors = [FakeMeta(token=f"token-{n}", audiences={str(n)}) for n in (7, 8)]
    for vendor in vendors:
        await vendor.start()
    for person in ("p1", "p2"):
        others.people.put(person, email=f"{person}@example.com")
    async with serve() as api:
        for vendor in vendors:
            (id,) = vendor.audiences
            settings = {"audience_id": id, "access_token": vendor.token, "base_url": vendor.url}
            destination = await api.destination(f"account-{id}", "", "meta-audience", **settings)
            await api.sync(f"list-{id}", destination, pb.SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE)
        await others.buyers.enter("p1", "p2")
        await support.until(lambda: listed(vendors) == [2, 2], "both lists have both members")
        await others.buyers.leave("p1")
        await support.until(lambda: listed(vendors) == [1, 1], "both lists lose the one who left")
    for vendor in vendors:
        assert vendor.violations == []
        await vendor.stop()


def listed(vendors: list[FakeMeta]) -> list[int]:
    """Rows on the list of each vendor."""
    return [len(rows) for vendor in vendors for rows in vendor.rows.values()]
