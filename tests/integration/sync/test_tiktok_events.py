"""TikTok's Events API through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from headrace_sync.outlets.verdicts import Kind

from headrace.domain.times import now_us
from headrace_sdk import EventItem, Profile
from headrace_sdk.values import sha256
from tests.support.connector_outlets import Station, Way
from tests.support.vendors.tiktok_events import FakeTikTokEvents, answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "tiktok-events"


@pytest_asyncio.fixture(loop_scope="module")
async def tiktok() -> AsyncIterator[FakeTikTokEvents]:
    fake = FakeTikTokEvents()
    await fake.start()
    yield fake
    await fake.stop()


def settings(tiktok: FakeTikTokEvents, **more: Any) -> dict[str, Any]:
    known = {"access_token": tiktok.token, "event_source_id": "PIXEL123", "base_url": tiktok.url}
    return {**known, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(tiktok: FakeTikTokEvents, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(tiktok)) as found:
        yield found


def event(name: str, *, kind: str = "track", properties: dict[str, Any] | None = None, **more: Any) -> EventItem:
    profile = Profile(
        id="p1",
        identifiers={"email": ["ada@example.com"], "user_id": ["u-1"]},
        traits={"first_name": "Ada", "country": "gb"},
    )
    values: dict[str, Any] = {"kind": kind, "timestamp_us": now_us() - 60_000_000, "profile": profile, **more}
    return EventItem(message_id=f"m-{name}", name=name, properties=properties or {}, **values)


ORDER = {
    "order_id": "T-1", "revenue": 29.8, "total": 35, "currency": "eur",
    "products": [{"product_id": 1, "name": "Tee", "price": "14.9", "quantity": 2, "brand": "Acme"}],
}  # fmt: skip


async def test_an_order_in_segments_spec_needs_no_mapping(tiktok: FakeTikTokEvents, there: Way) -> None:
    context = {"page": {"url": "https://shop.example/thanks?ttclid=E.C.P.1"}, "ip": "203.0.113.7"}
    verdicts = await there.deliver([event("Order Completed", properties=ORDER, context=context)])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED]
    assert tiktok.problems == []
    found = tiktok.counted["Purchase", "m-Order Completed"]
    assert found["user"] == {
        "email": sha256("ada@example.com"), "external_id": sha256("u-1"), "first_name": sha256("ada"),
        "country": "gb", "ip": "203.0.113.7", "ttclid": "E.C.P.1",
    }  # fmt: skip
    assert found["properties"] == {
        "contents": [
            {"content_type": "product", "content_id": "1", "content_name": "Tee", "brand": "Acme", "price": 14.9,
             "quantity": 2}
        ],
        "content_type": "product", "value": 29.8, "currency": "EUR", "order_id": "T-1",
    }  # fmt: skip


async def test_everything_that_is_sent_keeps_tiktoks_rules(tiktok: FakeTikTokEvents, there: Way) -> None:
    events = [
        event("Product Viewed", properties={"product_id": 5, "name": "Tee", "price": "5", "currency": "usd"}),
        event("Products Searched", properties={"query": "shoes"}),
        event("Odd", properties={"value": "many", "currency": "euro", "products": [1, {"price": []}], "email": "x"}),
        event("Home", kind="page", properties={"url": "https://x.example/"}),
        event("added_to_segment", properties={"audience_id": "a1"}),
        event("early", timestamp_us=now_us() + 3_600_000_000),
        event("", kind="identify"),
        event("nobody", profile=None),
    ]
    kinds = [verdict.kind for verdict in await there.deliver(events)]
    assert kinds == [Kind.DELIVERED] * 6 + [Kind.SKIPPED] * 2
    assert tiktok.problems == []
    assert [len(body["data"]) for body in tiktok.bodies] == [6]


async def test_events_that_come_twice_count_once(tiktok: FakeTikTokEvents, there: Way) -> None:
    assert there.outlet.info.idempotency == "key"
    for _ in range(2):
        await there.deliver([event("Order Completed", properties=ORDER)])
    assert len(tiktok.bodies) == 2 and len(tiktok.counted) == 1


@pytest.mark.parametrize(("source", "source_id"), [("app", "7123"), ("offline", "8123"), ("crm", "9123")])
async def test_other_event_sources(tiktok: FakeTikTokEvents, shared: Station, source: str, source_id: str) -> None:
    context = {"app": {"name": "Shop", "version": "1", "namespace": "x.shop"}, "page": {"url": "https://x.example"}}
    one = event("Order Completed", properties={**ORDER, "lead_id": "L1"}, context=context)
    kind = {"event_source": source, "event_source_id": source_id}
    async with shared.way(settings(tiktok, **kind)) as there:
        verdicts = await there.deliver([one], {"gaid": "'a'", "ad": "event.properties.ad"})
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED]
    assert tiktok.problems == []


@pytest.mark.parametrize("named", [True, False])
async def test_an_event_that_tiktok_refuses_does_not_hold_up_the_others(
    tiktok: FakeTikTokEvents, there: Way, named: bool
) -> None:
    tiktok.names_places = named
    odd = event("odd", properties={"content_type": "shoes"})
    good, refused, fine = await there.deliver([event("a"), odd, event("b")])
    assert refused.kind is Kind.REJECTED and "40002" in refused.reason
    assert (good.kind, fine.kind) == (Kind.DELIVERED, Kind.DELIVERED)
    assert {name for name, _ in tiktok.counted} == {"a", "b"}


async def test_a_wrong_token_and_a_wrong_source_pause_the_destination(
    tiktok: FakeTikTokEvents, shared: Station
) -> None:
    async with shared.way(settings(tiktok, access_token="wrong")) as there:
        (verdict,) = await there.deliver([event("a")])
        assert verdict.kind is Kind.UNTRIED and "access token is not valid" in there.halted[0]
    async with shared.way(settings(tiktok, event_source_id="OTHER")) as there:
        (verdict,) = await there.deliver([event("a")])
        assert verdict.kind is Kind.UNTRIED and "does not know the event source" in there.halted[0]


async def test_failures_that_say_200_are_tried_again(tiktok: FakeTikTokEvents, there: Way) -> None:
    tiktok.failures += [answer(50000, "System error"), web.Response(text="<html>"), answer(40100, "Too many requests")]
    kinds = [(await there.deliver([event("a")]))[0].kind for _ in range(3)]
    assert kinds == [Kind.RETRY] * 3
    assert there.outlet.paused_s() > 0
    assert tiktok.counted == {}
