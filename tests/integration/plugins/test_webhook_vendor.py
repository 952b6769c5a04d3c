"""The webhook plugin, through the plugin host and over HTTP, against a receiver that checks signatures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from headrace.domain.times import now_us
from headrace.plugins import ConnectorInstance, PluginHost
from headrace_sdk import DeleteBatch, Delivered, EventBatch, EventItem, Outcomes, Profile, Rejected, Retry, Subject
from tests.support.hook_receiver import HookReceiver
from tests.support.vendor_calls import send

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def hook() -> AsyncIterator[HookReceiver]:
    receiver = HookReceiver(signing_secret=SECRET)
    await receiver.start()
    yield receiver
    assert receiver.violations == []
    await receiver.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["headrace-destination-webhook"])
    await running.start()
    yield running
    await running.close()


def event(message_id: str, **more: Any) -> EventItem:
    profile = Profile(id="p1", identifiers={"email": ["ada@example.com"]}, traits={"plan": "pro"})
    values = {"kind": "track", "name": "Purchased", "timestamp_us": 1_800_000_000_123_000, "profile": profile, **more}
    return EventItem(message_id=message_id, **values)


async def deliver(instance: ConnectorInstance, *events: EventItem) -> list[Outcomes]:
    built = await instance.send_events(EventBatch(events=events, now_us=now_us()))
    assert built.skipped == ()
    return [await instance.read(request, await send(request)) for request in built.requests]


async def test_an_event_arrives_whole_signed_and_with_its_key(hook: HookReceiver, host: PluginHost) -> None:
    instance = await host.open(
        "webhook",
        {
            "url": hook.url,
            "signing_secret": SECRET,
            "headers": {"X-Shop": "demo"},
            "secret_headers": {"Authorization": "Bearer t0p-secret"},
        },
    )
    outcomes = await deliver(instance, event("m-1", properties={"total": 19.9, "items": [{"sku": "é"}]}))
    assert outcomes == [Outcomes(items=(Delivered(),))]
    (request,) = hook.requests
    assert (request.method, request.path) == ("POST", "/hook")
    assert request.headers["Idempotency-Key"] == request.headers["webhook-id"] == "m-1"
    assert request.headers["Authorization"] == "Bearer t0p-secret"
    assert request.headers["X-Shop"] == "demo"
    body = request.json()
    assert body["timestamp"] == "2027-01-15T08:00:00.123Z"
    assert body["properties"] == {"total": 19.9, "items": [{"sku": "é"}]}
    assert body["profile"] == {"id": "p1", "identifiers": {"email": ["ada@example.com"]}, "traits": {"plan": "pro"}}


async def test_a_repeated_delivery_has_the_same_key(hook: HookReceiver, host: PluginHost) -> None:
    instance = await host.open("webhook", {"url": hook.url, "signing_secret": SECRET, "batch_size": 3})
    for _ in range(2):
        await deliver(instance, *(event(f"m-{n}") for n in range(7)))
    assert len(hook.requests) == 6
    assert sorted(hook.accepted.values()) == [2, 2, 2]
    assert [len(request.json()) for request in hook.requests[:3]] == [3, 3, 1]
    assert isinstance(hook.requests[2].json(), list)


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (204, {}, Outcomes(items=(Delivered(),))),
        (408, {}, Outcomes(items=(Retry(reason="the receiver answered 408"),))),
        (425, {}, Outcomes(items=(Retry(reason="the receiver answered 425"),))),
        (500, {}, Outcomes(items=(Retry(reason="the receiver answered 500"),))),
        (503, {"Retry-After": "12"}, Outcomes(items=(Retry(reason="the receiver answered 503", after_s=12.0),))),
        (410, {}, Outcomes(items=(Rejected(reason="the receiver refused the request (410)"),))),
        (422, {}, Outcomes(items=(Rejected(reason="the receiver refused the request (422)"),))),
    ],
)
async def test_answers(
    hook: HookReceiver, host: PluginHost, status: int, headers: dict[str, str], expected: Outcomes
) -> None:
    instance = await host.open("webhook", {"url": hook.url, "signing_secret": SECRET})
    hook.answers.append((status, headers))
    assert await deliver(instance, event("m")) == [expected]


async def test_throttling_refused_credentials_and_redirects(hook: HookReceiver, host: PluginHost) -> None:
    instance = await host.open("webhook", {"url": hook.url, "signing_secret": SECRET})
    hook.answers += [
        (429, {"Retry-After": "3"}),
        (401, {}),
        (403, {}),
        (302, {"Location": "https://elsewhere.example"}),
    ]
    (slow,), (refused,), (forbidden,), (moved,) = [await deliver(instance, event(f"m{n}")) for n in range(4)]
    assert slow.throttle_s == 3.0
    assert "refuses the credentials (401)" in refused.unauthorized and forbidden.unauthorized
    assert "redirect (302)" in moved.misconfigured
    assert all(isinstance(outcomes.items[0], Retry) for outcomes in (slow, refused, forbidden, moved))


async def test_a_template_makes_the_body(hook: HookReceiver, host: PluginHost) -> None:
    template = {
        "who": "${profile.identifiers.email[0]}",
        "what": "${event.name} for ${event.properties.total} (${event.properties.nothing})",
        "total": "${event.properties.total}",
        "all": ["${event.properties}", "$${event.name}", 1, None],
    }
    instance = await host.open(
        "webhook", {"url": hook.url, "method": "PUT", "signing_secret": SECRET, "body": template}
    )
    await deliver(instance, event("m", properties={"total": 5}))
    assert hook.requests[0].method == "PUT"
    assert hook.requests[0].json() == {
        "who": "ada@example.com",
        "what": "Purchased for 5 ()",
        "total": 5,
        "all": [{"total": 5}, "${event.name}", 1, None],
    }


async def test_a_person_is_to_be_deleted_by_a_signed_request_that_is_the_same_each_time(
    hook: HookReceiver, host: PluginHost
) -> None:
    settings = {"url": hook.url, "signing_secret": SECRET, "body": {"text": "${event.name}"}, "batch_size": 50}
    instance = await host.open("webhook", settings)
    subjects = (
        Subject(profile_id="p1", merged_ids=["p0"], identifiers={"email": ["ada@example.com"]}),
        Subject(profile_id="p2"),
    )
    for _ in range(2):
        built = await instance.delete(DeleteBatch(subjects=subjects, now_us=now_us()))
        outcomes = [await instance.read(request, await send(request)) for request in built.requests]
        assert [outcome for found in outcomes for outcome in found.items] == [Delivered(), Delivered()]
    first, second = hook.requests[-4].json(), hook.requests[-3].json()
    assert first["type"] == "delete"
    assert first["profile"] == {"id": "p1", "merged_ids": ["p0"], "identifiers": {"email": ["ada@example.com"]}}
    assert first["message_id"] != second["message_id"]
    assert [hook.accepted[body["message_id"]] for body in (first, second)] == [2, 2]
    off = await host.open("webhook", {**settings, "deletions": False})
    built = await off.delete(DeleteBatch(subjects=subjects, now_us=now_us()))
    assert (built.requests, [skip.field for skip in built.skipped]) == ((), ["deletions", "deletions"])
