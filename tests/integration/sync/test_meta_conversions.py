"""The Meta Conversions API through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from headrace_sync.outlets.verdicts import Kind

from headrace.domain.times import now_us
from headrace_sdk import EventItem, Profile
from tests.support.connector_outlets import Station, Way
from tests.support.fake_meta import Failure
from tests.support.vendor_calls import send
from tests.support.vendors.meta_conversions import FakeConversions

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "meta-conversions"
PIXEL = "1234567890"
ORDER = {
    "order_id": "T-1", "revenue": 29.8, "currency": "EUR",
    "products": [{"product_id": "p1", "name": "Tee", "price": "14.9", "quantity": 2}],
}  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module")
async def meta() -> AsyncIterator[FakeConversions]:
    fake = FakeConversions(app_secret="app-secret-for-tests")
    await fake.start()
    yield fake
    assert fake.violations == []
    await fake.stop()


def settings(meta: FakeConversions, **more: Any) -> dict[str, Any]:
    known = {"pixel_id": PIXEL, "access_token": meta.token, "app_secret": meta.app_secret, "base_url": meta.url}
    return {**known, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(meta: FakeConversions, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(meta)) as found:
        yield found


def event(message_id: str, name: str = "Quiz taken", **more: Any) -> EventItem:
    profile = Profile(id="p1", identifiers={"email": ["ada@example.com"], "user_id": ["u-1"]})
    values: dict[str, Any] = {"kind": "track", "timestamp_us": now_us() - 60_000_000, "profile": profile, **more}
    return EventItem(message_id=message_id, name=name, **values)


async def kinds(there: Way, *events: EventItem) -> list[Kind]:
    return [verdict.kind for verdict in await there.deliver(events)]


async def test_an_order_in_segments_spec_needs_no_mapping(meta: FakeConversions, there: Way) -> None:
    meta.strict_about_websites = True
    context = {"page": {"url": "https://shop.example/thanks"}, "userAgent": "Mozilla/5.0", "ip": "203.0.113.7"}
    assert await kinds(there, event("m-1", "Order Completed", properties=ORDER, context=context)) == [Kind.DELIVERED]
    (purchase,) = meta.counted[PIXEL]
    assert (purchase["event_name"], purchase["event_id"]) == ("Purchase", "m-1")
    assert purchase["custom_data"]["value"] == 29.8 and purchase["custom_data"]["order_id"] == "T-1"


async def test_events_that_are_sent_twice_are_counted_once(meta: FakeConversions, there: Way) -> None:
    for _ in range(2):
        assert await kinds(there, event("m-1"), event("m-2")) == [Kind.WARNED] * 2  # without products
    assert [one["event_id"] for one in meta.counted[PIXEL]] == ["m-1", "m-2"]


async def test_people_of_whom_only_a_click_or_a_browser_is_known(meta: FakeConversions, there: Way) -> None:
    anonymous: dict[str, Any] = {"profile": None, "identifiers": {"fbclid": ["IwAR0"], "fbp": ["fb.1.1795000000000.1"]}}
    membership: dict[str, Any] = {"kind": "track", "received_at_us": now_us(), "properties": {"audience_id": "gold"}}
    known_by_browser = Profile(id="p", identifiers={"fbp": ["fb.1.1795000000000.1"]})
    found = await kinds(
        there,
        event("m-1", **anonymous),
        event("m-2", "added_to_segment", **{**membership, "profile": known_by_browser, "timestamp_us": 0}),
        event("m-3", profile=None),
    )
    assert found == [Kind.WARNED, Kind.DELIVERED, Kind.SKIPPED]
    assert [one["event_name"] for one in meta.counted[PIXEL]] == ["Quiz taken", "added_to_segment"]
    assert meta.counted[PIXEL][0]["user_data"]["fbc"].endswith(".IwAR0")


@pytest.mark.parametrize("names_places", [False, True])
async def test_one_bad_event_harms_no_other(meta: FakeConversions, there: Way, names_places: bool) -> None:
    meta.strict_about_websites, meta.names_places = True, names_places
    context = {"page": {"url": "https://shop.example/"}, "userAgent": "Mozilla/5.0"}
    events = [event(f"m-{n}", context={} if n in (3, 7) else context) for n in range(10)]
    verdicts = await there.deliver(events)
    assert [v.kind for v in verdicts] == [Kind.REJECTED if n in (3, 7) else Kind.DELIVERED for n in range(10)]
    assert "error 100" in verdicts[3].reason
    assert [one["event_id"] for one in meta.counted[PIXEL]] == [f"m-{n}" for n in range(10) if n not in (3, 7)]
    # Named, each costs a request; else the halves of ten, and of what holds a culprit.
    assert len(meta.requests) == (3 if names_places else 13)


async def test_what_meta_would_refuse_is_not_sent(meta: FakeConversions, there: Way) -> None:
    old = event("m-1", timestamp_us=now_us() - 8 * 86_400_000_000)
    found = await kinds(there, old, event("m-2", "Order Completed"), event("m-3"))
    assert found == [Kind.SKIPPED, Kind.SKIPPED, Kind.WARNED]
    assert len(meta.requests) == 1


@pytest.mark.parametrize(
    ("failure", "kind", "halts"),
    [
        (Failure(400, 190, 463, "Error validating access token"), Kind.UNTRIED, "access token is not valid"),
        (Failure(403, 200, 0, "Permissions error"), Kind.UNTRIED, "lacks a permission"),
        (Failure(400, 100, 33, "Object does not exist"), Kind.UNTRIED, "no such pixel"),
        (Failure(400, 100, 0, "Invalid appsecret_proof provided"), Kind.UNTRIED, "app secret"),
        (Failure(400, 2635), Kind.UNTRIED, "newer API version"),
        (Failure(401, html=True), Kind.UNTRIED, "access token is not valid"),
        (Failure(403, html=True), Kind.UNTRIED, "lacks a permission"),
        (Failure(500, 1), Kind.RETRY, ""),
        (Failure(400, 2), Kind.RETRY, ""),
        (Failure(400, 100, transient=True), Kind.RETRY, ""),
        (Failure(503, html=True), Kind.RETRY, ""),
        (Failure(404, html=True), Kind.RETRY, ""),
        (Failure(200, html=True), Kind.RETRY, ""),
        (Failure(200, 1), Kind.RETRY, ""),
        (Failure(400, 506), Kind.REJECTED, ""),
    ],
)
async def test_what_answers_mean(meta: FakeConversions, there: Way, failure: Failure, kind: Kind, halts: str) -> None:
    meta.failures.append(failure)
    assert await kinds(there, event("m-1"), event("m-2")) == [kind] * 2
    assert meta.counted == {}
    assert [halts in reason for reason in there.halted] == ([True] if halts else [])


async def test_throttling_slows_the_destination(meta: FakeConversions, there: Way) -> None:
    usage = {"X-Business-Use-Case-Usage": '{"1": [{"type": "ads", "estimated_time_to_regain_access": 3}]}'}
    meta.failures.append(Failure(400, 80_004, 0, "Too many calls", headers=usage))
    (verdict,) = await there.deliver([event("m-1")])
    assert (verdict.kind, verdict.after_s) == (Kind.RETRY, 180.0)
    assert 170 < there.outlet.paused_s() <= 180


async def test_several_pixels_are_sent_to_beside_each_other(meta: FakeConversions, shared: Station) -> None:
    meta.pixels |= {"77"}
    async with (
        shared.way(settings(meta)) as one,
        shared.way(settings(meta, pixel_id="77")) as other,
    ):
        assert await kinds(one, event("m-1")) == [Kind.WARNED]
        assert await kinds(other, event("m-1"), event("m-2")) == [Kind.WARNED] * 2
    assert {pixel: len(events) for pixel, events in meta.counted.items()} == {PIXEL: 1, "77": 2}


async def test_the_check_says_what_is_wrong(meta: FakeConversions, shared: Station) -> None:
    async def said(**more: Any) -> str:
        given = settings(meta, **more)
        instance = await shared.host.open(CONNECTOR, given)
        (check,) = await instance.check()
        return await instance.read_check(check, await send(check.request, instance.info.auth, given))

    assert await said() == ""
    assert "no such pixel" in await said(pixel_id="9")
    assert "access token is not valid" in await said(access_token="wrong")
    assert "newer API version" in await said(api_version="v12.0")
    meta.unavailable = {PIXEL}
    assert "unavailable" in await said()
    meta.failures.append(Failure(502, html=True))
    assert "502" in await said()
