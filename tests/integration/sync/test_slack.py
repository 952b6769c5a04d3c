"""Slack through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from headrace_sync.outlets.verdicts import Kind

from headrace_sdk import EventItem, Profile
from tests.support.connector_outlets import Station, Way
from tests.support.vendors.slack import FakeSlack

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "slack"


@pytest_asyncio.fixture(loop_scope="module")
async def vendor() -> AsyncIterator[FakeSlack]:
    fake = FakeSlack()
    await fake.start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def webhook(vendor: FakeSlack, shared: Station) -> AsyncIterator[Way]:
    async with shared.way({"webhook_url": vendor.webhook_url}) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def bot(vendor: FakeSlack, shared: Station) -> AsyncIterator[Way]:
    settings = {"bot_token": vendor.token, "channel": "C1", "base_url": vendor.url}
    async with shared.way(settings) as found:
        yield found


def event(name: str, **properties: Any) -> EventItem:
    profile = Profile(id="p1", identifiers={"email": ["ada@example.com"]}, traits={"first_name": "Ada"})
    return EventItem(message_id=f"m-{name}", kind="track", name=name, properties=properties, profile=profile)


async def test_messages_arrive_at_one_a_second(vendor: FakeSlack, webhook: Way) -> None:
    events = [event("Order Completed", order_id="T-1"), event("B"), event("C"), event("D")]
    verdicts = await webhook.deliver(events)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 4
    texts = [body["text"] for body in vendor.posted]
    assert sorted(texts) == [
        "*B* ada@example.com", "*C* ada@example.com", "*D* ada@example.com", "*Order Completed* ada@example.com T-1",
    ]  # fmt: skip


async def test_a_bot_posts_with_its_token(vendor: FakeSlack, bot: Way) -> None:
    (verdict,) = await bot.deliver([event("added_to_segment", audience_id="<aud_1>")])
    assert verdict.kind is Kind.DELIVERED
    text = "*added_to_segment* ada@example.com &lt;aud_1&gt;"
    assert vendor.posted == [{"channel": "C1", "text": text, "unfurl_links": False}]


async def test_a_channel_of_the_event_that_is_archived_is_the_events_fault(vendor: FakeSlack, bot: Way) -> None:
    (verdict,) = await bot.deliver([event("A")], {"channel": "'COLD'"})
    assert verdict.kind is Kind.REJECTED and "is_archived" in verdict.reason
    assert bot.halted == []


async def test_a_channel_of_the_settings_that_is_gone_pauses(vendor: FakeSlack, shared: Station) -> None:
    settings = {"bot_token": vendor.token, "channel": "COUT", "base_url": vendor.url}
    async with shared.way(settings) as found:
        (verdict,) = await found.deliver([event("A")])
    assert verdict.kind is Kind.UNTRIED and "not_in_channel" in found.halted[0]


async def test_a_refused_token_pauses(vendor: FakeSlack, bot: Way) -> None:
    vendor.token = "another"
    (verdict,) = await bot.deliver([event("A")])
    assert verdict.kind is Kind.UNTRIED and "invalid_auth" in bot.halted[0]
    assert vendor.posted == []


async def test_a_webhook_that_was_revoked_pauses_without_telling_its_address(vendor: FakeSlack, webhook: Way) -> None:
    vendor.secret_path = "/services/T0/B0/new"
    (verdict,) = await webhook.deliver([event("A")])
    assert verdict.kind is Kind.UNTRIED and "no_service" in webhook.halted[0]
    assert "secret-for-tests" not in webhook.halted[0]


async def test_failures_that_pass_are_tried_again(vendor: FakeSlack, webhook: Way) -> None:
    vendor.failures += [
        web.Response(status=500, text="rollup_error"),
        web.Response(text="<html>"),
        web.Response(status=429, headers={"Retry-After": "3"}),
    ]
    for status in (500, 200):
        (failed,) = await webhook.deliver([event("A")])
        assert (failed.kind, failed.code) == (Kind.RETRY, status)
    (slow,) = await webhook.deliver([event("A")])
    assert (slow.kind, slow.after_s) == (Kind.RETRY, 3.0)
    assert 0 < webhook.outlet.paused_s() <= 3.0
