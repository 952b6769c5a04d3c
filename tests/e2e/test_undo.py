"""Merges that are undone in random order leave what a history without those links would have left.

Two workspaces: in the first a random history merges people and merges are undone, one after the other, while more
events come; in the second the links that keep apart are there from the start, and the same events come in the same
order. Who is who, traits, timelines, audiences and the list at the vendor must be the same in the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import aiohttp
import grpc

from headrace.api.audience.v1 import audience_service_pb2 as audience_api
from headrace.api.audience.v1.audience_pb2 import AudienceState
from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceStub
from headrace.api.identity.v1 import identity_service_pb2 as identity_api
from headrace.api.identity.v1 import profile_service_pb2 as profile_api
from headrace.api.identity.v1.identity_service_pb2 import ManualLink
from headrace.api.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.demo.report import Platform
from headrace.demo.sandbox import ACCESS_TOKEN, Row, SandboxVendor
from headrace.rpc.channel import with_token
from tests.support.up import Up

CONFIGURATION = """
kind: Source
id: shop
display_name: Shop
type: http
---
kind: Audience
id: buyers
display_name: Bought twice
active: true
definition: {kind: dynamic, where: {event: Purchased, within: 90d, count: {gte: 2}}}
---
kind: Audience
id: gold
display_name: Gold
active: true
definition: {kind: dynamic, where: {trait: plan, eq: gold}}
---
kind: Audience
id: not-buyers
display_name: Never bought
active: true
definition: {kind: dynamic, where: {event: Purchased, count: {eq: 0}}}
---
kind: Destination
id: list
display_name: List
connector: meta-audience
settings: {base_url: "${SANDBOX_URL}", audience_id: "${LIST}", access_token: "${SANDBOX_TOKEN}"}
---
kind: Sync
id: list
display_name: Gold on the list
type: list
destination: list
audience: gold
"""
AUDIENCES = ("buyers", "gold", "not-buyers")
EVENTS, UNDONE, LATER = 60, 4, 8
START_S = int(time.time()) - 86_400

Timeline = frozenset[str]
"""Who somebody is, for comparing: the message ids of all their events, the same in both workspaces."""


class Workspace:
    """A workspace of the platform, by its public interfaces."""

    def __init__(self, up: Up, name: str, api_token: str, list_id: str) -> None:
        self.up, self.id, self.list_id = up, name, list_id
        self.parent = f"workspaces/{name}"
        self.write_key = ""
        self._token = api_token
        self._channels = {s: with_token(up.ready["grpc"][s], api_token) for s in ("identity", "audience", "sync")}
        self.identity = IdentityServiceStub(self._channels["identity"])
        self.profiles = ProfileServiceStub(self._channels["identity"])
        self.audiences = AudienceServiceStub(self._channels["audience"])
        self.platform = Platform(self._channels["identity"], self._channels["audience"], self._channels["sync"], name)

    async def configure(self, sandbox: SandboxVendor) -> None:
        """Source, audiences and a list sync; returns when the audiences are active."""
        file = self.up.folder / f"{self.id}.yaml"
        file.write_text(CONFIGURATION)
        environment = {"SANDBOX_URL": sandbox.url, "SANDBOX_TOKEN": ACCESS_TOKEN, "LIST": self.list_id}
        options = ("--workspace", self.id, "--token", self._token)
        applied = await asyncio.to_thread(self.up.headrace, "apply", "-f", str(file), *options, **environment)
        assert applied.returncode == 0, applied.stdout + applied.stderr
        key = await asyncio.to_thread(self.up.headrace, "sources", "get", "shop", "--json", *options)
        assert key.returncode == 0, key.stdout + key.stderr
        self.write_key = json.loads(key.stdout)["write_key"]
        for audience in AUDIENCES:
            request = audience_api.GetAudienceRequest(name=f"{self.parent}/audiences/{audience}")

            async def active(request: audience_api.GetAudienceRequest = request) -> bool:
                found = (await self.audiences.GetAudience(request)).audience
                return bool(found.state == AudienceState.AUDIENCE_STATE_ACTIVE)

            await until(active, f"audience {audience} is active")

    async def send(self, http: aiohttp.ClientSession, messages: Iterable[dict[str, Any]]) -> None:
        """Send messages, each when the one before is resolved, so that their order is the recorded one."""
        for message in messages:
            url, headers = f"{self.up.ready['ingest_http']}/v1/batch", {"X-Write-Key": self.write_key}
            async with http.post(url, json={"batch": [message]}, headers=headers) as answer:
                assert (answer.status, await answer.json()) == (200, {"success": True})
            request = profile_api.GetEventJourneyRequest(parent=self.parent, message_id=message["messageId"])

            async def resolved(request: profile_api.GetEventJourneyRequest = request) -> bool:
                try:
                    return (await self.profiles.GetEventJourney(request)).HasField("event")
                except grpc.aio.AioRpcError as error:
                    assert error.code() == grpc.StatusCode.NOT_FOUND, error
                    return False

            await until(resolved, f"{message['messageId']} is resolved", every_s=0.02)

    async def people(self) -> dict[str, Timeline]:
        """Message ids of the events of each profile."""
        ids = [p.name.rsplit("/", 1)[1] for p in await self.platform.profiles()]
        return {id: frozenset(e.event.message_id for e in await self.platform.events(id)) for id in ids}

    async def state(self) -> dict[Timeline, Any]:
        """Identifiers, traits with provenance and decisions of each person."""
        found: dict[Timeline, Any] = {}
        people = await self.people()
        for profile in await self.platform.profiles():
            id = profile.name.rsplit("/", 1)[1]
            events = await self.platform.events(id)
            found[people[id]] = (
                frozenset((i.namespace, i.value) for i in profile.identifiers),
                {t.name: (t.value, t.message_id, t.timestamp_us) for t in profile.traits},
                {e.event.message_id: _decided(e.decision) for e in events},
            )
        return found

    async def members(self) -> dict[str, frozenset[Timeline]]:
        """Members of each audience."""
        people = await self.people()
        return {a: frozenset(people[m] for m in await self.platform.members(a) if m in people) for a in AUDIENCES}

    async def merges(self) -> list[identity_api.RecordedMerge]:
        """All merges that hold, by name."""
        request = identity_api.ListMergesRequest(parent=self.parent, page_size=1000)
        return sorted((await self.identity.ListMerges(request)).merges, key=lambda merge: merge.message_id)

    async def links(self) -> list[ManualLink]:
        """All manual links."""
        request = identity_api.ListManualLinksRequest(parent=self.parent, page_size=1000)
        return list((await self.identity.ListManualLinks(request)).links)

    async def close(self) -> None:
        """Close the channels."""
        await asyncio.gather(*(channel.close(None) for channel in self._channels.values()))


async def test_undone_merges_leave_what_would_have_been_without_them(up: Up) -> None:
    chance = random.Random(12)
    sandbox = SandboxVendor(requests_per_second=1000)
    await sandbox.start()
    serial = uuid.uuid4().hex[:8]
    undone, never = await _workspace(up, f"undone-{serial}", "81"), await _workspace(up, f"never-{serial}", "82")
    try:
        await asyncio.gather(undone.configure(sandbox), never.configure(sandbox))
        messages = [_message(chance, number) for number in range(EVENTS + LATER)]
        async with aiohttp.ClientSession() as http:
            await undone.send(http, messages[:EVENTS])
            assert len(await undone.merges()) >= UNDONE
            for number in range(UNDONE):
                merge = chance.choice(await undone.merges())
                await undone.identity.UndoMerge(
                    identity_api.UndoMergeRequest(name=merge.name, reason="a shared device")
                )
                later = messages[EVENTS + number * LATER // UNDONE : EVENTS + (number + 1) * LATER // UNDONE]
                await undone.send(http, later)
            links = await undone.links()
            assert len(links) >= UNDONE
            for link in links:
                same = ManualLink(kind=link.kind, first=link.first, second=link.second, reason=link.reason)
                await never.identity.AddManualLink(identity_api.AddManualLinkRequest(parent=never.parent, link=same))
            await never.send(http, messages)
        wanted = await never.state()
        assert await undone.state() == wanted
        assert len(wanted) > 1

        async def same_members() -> bool:
            return await undone.members() == await never.members()

        await until(same_members, "the audiences are the same")

        async def same_list() -> bool:
            rows = await _rows_of_gold(undone)
            return bool(rows) and sandbox.lists.get("81") == sandbox.lists.get("82") == rows

        await until(same_list, "the list at the vendor is that of the people who are left", timeout_s=60)
        for workspace in (undone, never):
            for audience in AUDIENCES:
                request = audience_api.VerifyAudienceRequest(name=f"{workspace.parent}/audiences/{audience}")
                answer = await workspace.audiences.VerifyAudience(request)
                assert not answer.mismatched_profile_ids, (workspace.id, audience, answer)
    finally:
        await asyncio.gather(undone.close(), never.close())
        await sandbox.stop()


async def _workspace(up: Up, name: str, list_id: str) -> Workspace:
    secrets = json.loads((up.folder / "data" / "secrets.json").read_text())
    environment = {"HEADRACE_SERVICE_TOKEN": secrets["service_token"]}
    made = await asyncio.to_thread(up.headrace, "admin", "workspace", "create", name, "--json", **environment)
    assert made.returncode == 0, made.stdout + made.stderr
    return Workspace(up, name, json.loads(made.stdout)["api_token"], list_id)


def _message(chance: random.Random, number: int) -> dict[str, Any]:
    """An event of few people who share nearly everything."""
    message: dict[str, Any] = {
        "messageId": f"m{number:03}",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START_S + chance.randrange(3_600))),
        "anonymousId": f"device-{chance.randrange(14)}",
    }
    if chance.random() < 0.15:
        message["userId"] = f"user-{chance.randrange(4)}"
    traits: dict[str, Any] = {"email": f"person-{chance.randrange(7)}@shop.example"} if chance.random() < 0.5 else {}
    if chance.random() < 0.3:
        traits["plan"] = chance.choice(("gold", "gold", "gold", "free", None))
    if traits:
        return message | {"type": "identify", "traits": traits}
    return message | {"type": "track", "event": chance.choice(("Purchased", "Product viewed"))}


def _decided(decision: Any) -> Any:
    """A decision without what differs between workspaces: numbers, ids of profiles and of links."""
    identifiers = [(i.namespace, i.value) for i in decision.identifiers]
    aside = [(s.identifier.namespace, s.identifier.value, s.action, s.rule[:5]) for s in decision.set_aside]
    return decision.action, decision.rule, identifiers, aside, len(decision.merges)


async def _rows_of_gold(workspace: Workspace) -> set[Row]:
    """What the list must hold: every row of the gold people, as the vendor takes them."""
    gold = await workspace.platform.members("gold")
    profiles = [p for p in await workspace.platform.profiles() if p.name.rsplit("/", 1)[1] in gold]
    hashed = [
        hashlib.sha256(i.value.encode()).hexdigest() for p in profiles for i in p.identifiers if i.namespace == "email"
    ]
    return {frozenset({("EMAIL", h)}) for h in hashed}


async def until(done: Callable[[], Awaitable[bool]], what: str, *, timeout_s: float = 30, every_s: float = 0.2) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not await done():
        assert time.monotonic() < deadline, f"it did not come about that {what}"
        await asyncio.sleep(every_s)
