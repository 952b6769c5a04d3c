"""A person is deleted, everything comes again from the raw messages, and no trace of the person is found anywhere."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from headrace.api.audience.v1 import audience_service_pb2 as audience_api
from headrace.api.audience.v1.audience_pb2 import AudienceState
from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceStub
from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.api.identity.v1 import profile_service_pb2 as pb
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.api.ingest.v1 import ingest_service_pb2, source_service_pb2
from headrace.api.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from headrace.api.ingest.v1.source_service_pb2_grpc import SourceServiceStub
from headrace.demo.sandbox import ACCESS_TOKEN, SandboxVendor
from headrace.rpc.channel import with_token
from tests.support.otlp import Collector
from tests.support.traces import Found, traces
from tests.support.up import Up, platform_up

CONFIGURATION = """
kind: Source
id: forget-crm
display_name: CRM
type: webhook
mapping:
  kind: identify
  each: contacts
  identifiers: {crm_id: id, email: email}
  traits: {name: name, email: email}
  message_id: delivery
---
kind: Audience
id: forget-buyers
display_name: Bought
active: true
definition: {kind: dynamic, where: {event: Forget bought, within: 7d}}
---
kind: Destination
id: forget-hook
display_name: Webhook
connector: webhook
settings: {url: "${SANDBOX_URL}/hook"}
---
kind: Destination
id: forget-list
display_name: List
connector: meta-audience
settings: {base_url: "${SANDBOX_URL}", audience_id: "88", access_token: "${SANDBOX_TOKEN}"}
---
kind: Sync
id: forget-forwarding
display_name: Everything to the webhook
type: forwarding
destination: forget-hook
---
kind: Sync
id: forget-list
display_name: Buyers on the list
type: list
destination: forget-list
audience: forget-buyers
"""

EVERYWHERE = {
    "archive",
    "mongo:events",
    "mongo:identifiers",
    "mongo:profiles",
    "mongo:rejected_messages",
    "mongo:segments",
    "mongo:source_messages",
    "redis:headrace:resolved",
}
"""Where traces of a person are before the deletion, at least: so the search finds what there is."""


OF_OTHERS = {"archive", "mongo:events", "mongo:segments", "mongo:repeated_events", "redis:headrace:resolved"}
"""Where the id of a device may stay that other people used too: in their events."""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Up]:
    """A platform of its own: a deletion waits for every destination of the workspace, and others' vendors are gone."""
    own = {**environment, "HEADRACE_PLUGINS": "webhook,meta-audience"}
    with platform_up(Path(tmp_path_factory.mktemp("forgetting")), own) as running:
        yield running


@dataclass(frozen=True)
class Who:
    """A person with everything that could give them away."""

    serial: str

    @property
    def browser(self) -> str:
        return f"browser-{self.serial}"

    @property
    def kiosk(self) -> str:
        """A device that another person uses too, whose events stay, with its id in them."""
        return f"kiosk-{self.serial}"

    @property
    def user_id(self) -> str:
        return f"user-{self.serial}"

    @property
    def email(self) -> str:
        return f"Anne.{self.serial}@Example.com"

    @property
    def phone(self) -> str:
        return f"+44 7400 {int(self.serial[:6], 16) % 1_000_000:06}"

    @property
    def crm_id(self) -> str:
        return f"crm-{self.serial}"

    @property
    def name(self) -> str:
        return f"Lister-{self.serial}"

    def secrets(self) -> dict[str, str]:
        """Every text that must be nowhere, by name."""
        plain = {
            "browser": self.browser,
            "user id": self.user_id,
            "email": self.email,
            "normal email": self.email.lower(),
            "phone": self.phone,
            "normal phone": self.phone.replace(" ", ""),
            "CRM id": self.crm_id,
            "name": self.name,
        }
        hashed = {f"SHA-256 of {name}": hashlib.sha256(text.encode()).hexdigest() for name, text in plain.items()}
        return plain | hashed


class Shop:
    """Everything that a person sends, the same again whenever it is asked for."""

    def __init__(self, up: Up, http: aiohttp.ClientSession, who: Who) -> None:
        self.up = up
        self.http = http
        self.who = who
        self.token = ""

    async def browse(self) -> list[str]:
        """HTTP, one message each; the code of each answer."""
        who = self.who
        anonymous = {"anonymousId": who.browser}
        kiosk = {"anonymousId": who.kiosk}
        known = {**anonymous, "userId": who.user_id}
        traits = {"email": who.email, "phone": who.phone, "name": who.name}
        messages: list[dict[str, Any]] = [
            {"type": "page", "messageId": f"1-{who.serial}", "name": who.name, **anonymous},
            {"type": "identify", "messageId": f"2-{who.serial}", "userId": who.user_id, "traits": traits},
            {"type": "track", "event": "Forget bought", "messageId": f"3-{who.serial}", "properties": traits, **known},
            {"type": "track", "event": "Till", "messageId": f"10-{who.serial}", "userId": who.user_id, **kiosk},
            {"type": "group", "groupId": f"g-{who.serial[:4]}", "messageId": f"4-{who.serial}", **known},
            {"type": "track", "event": "Till", "messageId": f"5-{who.serial}", "userId": "forget-other", **kiosk},
            {"type": "track", "messageId": f"6-{who.serial}", "properties": traits, **known},  # it has no name
        ]
        return [(await self._post("/v1/batch", {"batch": [message]}))[0] for message in messages]

    async def crm(self) -> list[str]:
        """A webhook, in which another person is too."""
        contacts = [
            {"delivery": f"8-{self.who.serial}", "id": self.who.crm_id, "email": self.who.email, "name": self.who.name},
            {
                "delivery": f"9-{self.who.serial}",
                "id": f"crm-of-another-{self.who.serial[:3]}",
                "email": f"other.{self.who.serial[:3]}@example.com",
            },
        ]
        return await self._post(f"/webhooks/{self.token}", {"contacts": contacts})

    async def call(self) -> str:
        """GRPC."""
        event = Event(
            message_id=f"7-{self.who.serial}",
            kind=EventKind.EVENT_KIND_TRACK,
            name="Called",
            identifiers=[Identifier(namespace="phone", value=self.who.phone)],
            properties=json.dumps({"caller": self.who.name}).encode(),
        )
        async with with_token(self.up.ready["grpc"]["ingest"], self.up.ready["write_key"]) as channel:
            answer = await IngestServiceStub(channel).IngestEvents(
                ingest_service_pb2.IngestEventsRequest(events=[event])
            )
        return str(answer.results[0].status.message)

    async def _post(self, path: str, body: Any) -> list[str]:
        headers = {"X-Write-Key": self.up.ready["write_key"]}
        async with self.http.post(f"{self.up.ready['ingest_http']}{path}", json=body, headers=headers) as answer:
            assert answer.status == 200
            results = (await answer.json()).get("results", [])
            return [result["code"] for result in results] or [""]


@asynccontextmanager
async def profiles(up: Up) -> AsyncIterator[Any]:
    async with with_token(up.ready["grpc"]["identity"], up.ready["api_token"]) as channel:
        yield ProfileServiceStub(channel)


@pytest.fixture
async def shop(up: Up) -> AsyncIterator[Shop]:
    """A person with traffic on all ways, who is on a list, forwarded, grouped and archived."""
    sandbox = SandboxVendor()
    await sandbox.start()
    configuration = up.folder / "forgetting.yaml"
    configuration.write_text(CONFIGURATION)
    applied = await asyncio.to_thread(
        up.headrace, "apply", "-f", str(configuration), SANDBOX_URL=sandbox.url, SANDBOX_TOKEN=ACCESS_TOKEN
    )
    assert applied.returncode == 0, applied.stdout + applied.stderr
    who = Who(uuid.uuid4().hex[:12])
    async with aiohttp.ClientSession() as http:
        shop = Shop(up, http, who)
        parent = f"workspaces/{up.ready['workspace']}"
        async with with_token(up.ready["grpc"]["ingest"], up.ready["api_token"]) as channel:
            request = source_service_pb2.GetSourceRequest(name=f"{parent}/sources/forget-crm")
            shop.token = (await SourceServiceStub(channel).GetSource(request)).source.webhook_token
        await _until(lambda: _is_active(up), bool)
        assert await shop.browse() == ["", "", "", "", "", "", "missing_name"]
        assert await shop.crm() == [""]
        assert await shop.call() == ""
        assert (await shop.browse())[0] == ""  # once more, in other segments
        row = hashlib.sha256(who.email.lower().encode()).hexdigest()
        await _until(lambda: _now(sandbox.lists.get("88", set())), lambda rows: any(("EMAIL", row) in r for r in rows))
        await _until(lambda: _now(sandbox.webhook_ids), lambda seen: f"7-{who.serial}" in seen)
        shop.sandbox, shop.row = sandbox, row  # type: ignore[attr-defined]  # for the test alone
        yield shop
    await sandbox.stop()


async def test_nothing_is_left_of_a_deleted_person(shop: Shop, up: Up, collector: Collector) -> None:
    secrets = shop.who.secrets()

    async def found() -> Found:
        return await asyncio.to_thread(traces, up, collector.spans(), secrets)

    before = await _until(found, lambda places: not EVERYWHERE - places.keys(), pause_s=1)
    assert not [place for place in before if place.startswith(("log:", "span:"))], before

    deletion = await _delete(up, "email", f" {shop.who.email.upper()}")
    statement = json.loads(deletion.receipt.statement)
    assert statement["not_told"] == [], statement
    assert await found() == {}

    # Everything comes again.
    codes = await shop.browse()
    assert codes == ["person_erased"] * 5 + ["", "missing_name"]
    assert "person_erased" in await shop.crm()
    assert "deleted" in await shop.call()
    await asyncio.sleep(2)
    async with profiles(up) as stub:
        for namespace, value in (("user_id", shop.who.user_id), ("email", shop.who.email), ("crm_id", shop.who.crm_id)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.LookupProfile(
                    pb.LookupProfileRequest(
                        parent=f"workspaces/{up.ready['workspace']}",
                        identifier=Identifier(namespace=namespace, value=value),
                    )
                )
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert await found() == {}
    kiosk = await asyncio.to_thread(traces, up, collector.spans(), {"kiosk": shop.who.kiosk})
    assert kiosk.keys() <= OF_OTHERS


async def _delete(up: Up, namespace: str, value: str) -> pb.Deletion:
    """Delete somebody; identity is killed while it does so."""
    async with profiles(up) as stub:
        request = pb.RequestDeletionRequest(
            parent=f"workspaces/{up.ready['workspace']}", identifier=Identifier(namespace=namespace, value=value)
        )
        name = (await stub.RequestDeletion(request)).deletion.name

        async def read() -> pb.Deletion | None:
            try:
                return (await stub.GetDeletion(pb.GetDeletionRequest(name=name))).deletion  # type: ignore[no-any-return]
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE
                return None

        await _until(read, lambda found: found is not None and found.state == pb.DELETION_STATE_RUNNING)
        pid = up.pid("identity")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        done: pb.Deletion = await _until(read, lambda d: d is not None and d.state == pb.DELETION_STATE_DONE)
        return done


async def _is_active(up: Up) -> bool:
    async with with_token(up.ready["grpc"]["audience"], up.ready["api_token"]) as channel:
        name = f"workspaces/{up.ready['workspace']}/audiences/forget-buyers"
        answer = await AudienceServiceStub(channel).GetAudience(audience_api.GetAudienceRequest(name=name))
        return answer.audience.state == AudienceState.AUDIENCE_STATE_ACTIVE


async def _now(value: Any) -> Any:
    return value


async def _until(ask: Callable[[], Awaitable[Any]], right: Callable[[Any], bool], pause_s: float = 0.05) -> Any:
    deadline = time.monotonic() + 60
    while True:
        found = await ask()
        if right(found):
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(pause_s)
