"""An event in, a person in an audience, a platform told: with one trace through all of it, and a journey to read."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import pytest

from headrace.api.audience.v1 import audience_service_pb2 as audience_api
from headrace.api.audience.v1.audience_pb2 import AudienceState
from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceStub
from headrace.api.common.v1.event_pb2 import Identifier
from headrace.api.identity.v1 import profile_service_pb2 as profile_api
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.demo.sandbox import ACCESS_TOKEN, SandboxVendor
from headrace.rpc.channel import with_token
from tests.support.otlp import Collector, SeenSpan
from tests.support.up import Up

EMAIL = "grace.hopper@example.com"
CONFIGURATION = """
kind: Audience
id: e2e-buyers
display_name: Bought in the last 7 days
active: true
definition: {kind: dynamic, where: {event: Purchased, within: 7d}}
---
kind: Destination
id: e2e-hook
display_name: Webhook
connector: webhook
settings: {url: "${SANDBOX_URL}/hook"}
---
kind: Destination
id: e2e-list
display_name: List
connector: meta-audience
settings: {base_url: "${SANDBOX_URL}", audience_id: "77", access_token: "${SANDBOX_TOKEN}"}
---
kind: Sync
id: e2e-forwarding
display_name: Everything to the webhook
type: forwarding
destination: e2e-hook
---
kind: Sync
id: e2e-list
display_name: Buyers on the list
type: list
destination: e2e-list
audience: e2e-buyers
"""

EDGES = [
    # service and span, and the service and span that it is a child of
    (("identity", "identity resolve"), ("ingest", "ingest.batch")),
    (("audience", "evaluate"), ("identity", "identity resolve")),
    (("sync", "deliver"), ("identity", "identity resolve")),
    (("sync", "POST webhook"), ("sync", "deliver")),
]
"""Every edge that the trace of one event must have: one line each."""

LINKS = [
    ("ingest", "ingest.commit"),
    ("ingest", "ingest.dispatch"),
    ("identity", "identity micro-batch"),
    ("audience", "evaluate_batch"),
    ("sync", "deliver webhook"),
]
"""Spans of batches, in traces of their own, that link to the event's trace."""

T = TypeVar("T")


@dataclass
class Story:
    """What was sent in, under one trace."""

    sandbox: SandboxVendor
    trace_id: str
    purchase_id: str
    workspace: str


@pytest.fixture
async def story(up: Up) -> AsyncIterator[Story]:
    """Somebody browses, says who they are and buys; told when both destinations know it."""
    sandbox = SandboxVendor()
    await sandbox.start()
    configuration = up.folder / "line.yaml"
    configuration.write_text(CONFIGURATION)
    applied = await asyncio.to_thread(
        up.headrace, "apply", "-f", str(configuration), SANDBOX_URL=sandbox.url, SANDBOX_TOKEN=ACCESS_TOKEN
    )
    assert applied.returncode == 0, applied.stdout + applied.stderr
    trace_id, serial = uuid.uuid4().hex, uuid.uuid4().hex
    viewed_id, identified_id, purchase_id = f"viewed-{serial}", f"identified-{serial}", f"purchase-{serial}"
    who = {"anonymousId": f"browser-{serial}"}
    known = {**who, "userId": "grace"}
    viewed = {"type": "track", "event": "Product viewed", "messageId": viewed_id, **who}
    identified = {"type": "identify", "messageId": identified_id, "traits": {"email": EMAIL}, **known}
    purchase = {"type": "track", "event": "Purchased", "messageId": purchase_id, "properties": {"value": 9}, **known}
    headers = {"traceparent": f"00-{trace_id}-00000000000000aa-01", "X-Write-Key": up.ready["write_key"]}

    async def send(*messages: dict[str, Any]) -> None:
        url = f"{up.ready['ingest_http']}/v1/batch"
        async with http.post(url, json={"batch": messages}, headers=headers) as answer:
            assert (answer.status, await answer.json()) == (200, {"success": True})

    async with aiohttp.ClientSession() as http:
        await send(viewed, identified)
        await _until(lambda: {viewed_id, identified_id} <= sandbox.webhook_ids.keys(), "the webhook knows who it is")
        await _until_found(lambda: _state_of_audience(up), lambda state: state == AudienceState.AUDIENCE_STATE_ACTIVE)
        # Only now, so that it is this event that brings somebody into the audience: not its filling, and no merge.
        await send(purchase)
    row = hashlib.sha256(EMAIL.encode()).hexdigest()
    await _until(lambda: purchase_id in sandbox.webhook_ids, "the webhook has the purchase")
    await _until(lambda: any(("EMAIL", row) in r for r in sandbox.lists.get("77", set())), "the list has the buyer")
    yield Story(sandbox, trace_id, purchase_id, up.ready["workspace"])
    await sandbox.stop()


async def _state_of_audience(up: Up) -> int:
    async with with_token(up.ready["grpc"]["audience"], up.ready["api_token"]) as channel:
        name = f"workspaces/{up.ready['workspace']}/audiences/e2e-buyers"
        answer = await AudienceServiceStub(channel).GetAudience(audience_api.GetAudienceRequest(name=name))
        return int(answer.audience.state)


async def test_one_event_goes_all_the_way(story: Story, up: Up, collector: Collector) -> None:
    async with with_token(up.ready["grpc"]["identity"], up.ready["api_token"]) as channel:
        stub = ProfileServiceStub(channel)
        parent = f"workspaces/{story.workspace}"
        lookup = profile_api.LookupProfileRequest(
            parent=parent, identifier=Identifier(namespace="email", value=f" {EMAIL.upper()} ")
        )
        profile = (await stub.LookupProfile(lookup)).profile
        assert {i.namespace for i in profile.identifiers} == {"anonymous_id", "email", "user_id"}
        events = await stub.ListProfileEvents(profile_api.ListProfileEventsRequest(parent=profile.name))
        assert len(events.events) == 3

        async def stages() -> list[tuple[str, str]]:
            request = profile_api.GetEventJourneyRequest(parent=parent, message_id=story.purchase_id)
            journey = await stub.GetEventJourney(request)
            return [(step.stage, step.outcome) for step in journey.steps]

        wanted = ["accepted", "resolved", "membership", "delivery"]
        found = await _until_found(
            stages, lambda steps: {s for s, _ in steps} >= set(wanted) and ("delivery", "delivered") in steps
        )
    assert ("accepted", "accepted") in found
    assert ("membership", "entered") in found

    def missing() -> list[Any]:
        return _missing_edges(collector.spans(), story.trace_id)

    await _until(lambda: not missing(), lambda: f"edges missing: {missing()}")
    _nothing_personal(collector.spans(), up)


def _missing_edges(spans: list[SeenSpan], trace_id: str) -> list[Any]:
    """Edges that no pair of spans shows, then those that are there."""
    own = [s for s in spans if s.trace_id == trace_id]
    by_id = {s.span_id: s for s in own}
    seen = set()
    for span in own:
        parent = by_id.get(span.parent_id)
        if parent is not None:
            seen.add(((span.service, span.name), (parent.service, parent.name)))
    linked = {(s.service, s.name) for s in spans if any(trace == trace_id for trace, _ in s.links)}
    missing = [edge for edge in EDGES if edge not in seen] + [link for link in LINKS if link not in linked]
    return [*missing, "seen:", *sorted(seen)] if missing else []


def _nothing_personal(spans: list[SeenSpan], up: Up) -> None:
    """Promise 11: no personal datum and no secret in spans, logs and metrics."""
    secrets = [EMAIL, EMAIL.upper(), ACCESS_TOKEN, up.ready["write_key"], up.ready["api_token"]]
    shown = {"spans": json.dumps([[s.name, s.attributes] for s in spans])}
    for path in (up.folder / "data" / "logs").glob("*.log"):
        if path.stem not in {"mongod", "redis", "redis-server"}:
            shown[path.name] = path.read_text(errors="replace")
    assert len(shown) > 5
    for place, text in shown.items():
        for secret in secrets:
            assert secret not in text, f"{place} shows what it must not"


async def _until(condition: Callable[[], bool], what: str | Callable[[], str], patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        await asyncio.sleep(0.1)


async def _until_found(ask: Callable[[], Awaitable[T]], right: Callable[[T], bool], patience_s: float = 60) -> T:
    deadline = time.monotonic() + patience_s
    while True:
        found = await ask()
        if right(found):
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.2)
