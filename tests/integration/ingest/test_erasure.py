"""Ingest and people who are to be forgotten: what it refuses, and what it removes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from headrace_ingest.store import REJECTED_MESSAGES, SOURCE_MESSAGES

from headrace.api.common.v1.erasure_service_pb2 import ErasePersonRequest
from headrace.api.common.v1.erasure_service_pb2_grpc import ErasureServiceStub
from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.api.identity.v1 import profile_service_pb2 as identity_pb
from headrace.api.identity.v1.profile_service_pb2_grpc import (
    ProfileServiceServicer,
    add_ProfileServiceServicer_to_server,
)
from headrace.api.ingest.v1 import ingest_service_pb2 as events_pb
from headrace.api.ingest.v1 import source_service_pb2 as pb
from headrace.domain.tombstones import TOMBSTONE_KEY_PLACE, digest_of
from headrace.rpc import errors
from headrace.rpc.auth import ServiceTokenAuthenticator
from headrace.rpc.server import Hosted, serving
from headrace.settings import ServiceSettings
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace.storage.sealing import Sealer
from headrace.storage.streams.client import Redis
from tests.support.ingest import PARENT, WORKSPACE, Ingest, ingest_serving, on_streams
from tests.support.settings import MakeSettings

KEY = b"k" * 32


class Identity(ProfileServiceServicer):
    """The tombstones of identity, as far as ingest follows them; one page holds one."""

    def __init__(self, sealer: Sealer) -> None:
        sealed = sealer.seal(base64.b64encode(KEY).decode(), f"{TOMBSTONE_KEY_PLACE}\x1f{WORKSPACE}")
        self.keys = [identity_pb.TombstoneKey(workspace_id=WORKSPACE, sealed_key=sealed)]
        self.tombstones: list[identity_pb.Tombstone] = []
        self.sequence = 0
        self.asked = 0
        self.refused = 0

    def add(self, namespace: str, value: str, **fields: Any) -> None:
        """Write a tombstone, in place of the one that the identifier has."""
        digest = digest_of(KEY, namespace, value)
        self.sequence += 1
        new = identity_pb.Tombstone(workspace_id=WORKSPACE, digest=digest, sequence=self.sequence, **fields)
        self.tombstones = [*(t for t in self.tombstones if t.digest != digest), new]

    async def FollowTombstones(
        self, request: identity_pb.FollowTombstonesRequest, context: Any
    ) -> identity_pb.FollowTombstonesResponse:
        start = int(request.page_token or 0)
        self.asked += not start
        self.refused += sum(r.count for r in request.refusals)
        following = str(start + 1) if start + 1 < len(self.tombstones) else ""
        return identity_pb.FollowTombstonesResponse(
            tombstones=self.tombstones[start : start + 1], keys=self.keys, next_page_token=following, sequence=start + 1
        )

    async def followed(self) -> None:
        """Wait until ingest knows what there is now."""
        seen = self.asked
        while self.asked < seen + 2:
            await asyncio.sleep(0.005)


@pytest.fixture
async def identity(make_settings: MakeSettings) -> AsyncIterator[tuple[Identity, str]]:
    settings = make_settings(ServiceSettings)
    found = Identity(Sealer(settings.master_key.get_secret_value()))  # type: ignore[abstract]  # as far as it is asked
    hosted = Hosted(
        "headrace.api.identity.v1.ProfileService", lambda server: add_ProfileServiceServicer_to_server(found, server)
    )
    authenticator = ServiceTokenAuthenticator(settings.service_token.get_secret_value())
    async with serving([hosted], authenticator=authenticator, settings=settings) as address:
        yield found, address


@pytest.fixture
async def following(
    make_settings: MakeSettings, db: Database, identity: tuple[Identity, str]
) -> AsyncIterator[tuple[Ingest, Identity]]:
    """Ingest that follows an identity service."""
    found, address = identity
    async with ingest_serving(make_settings, db, identity_address=address, tombstone_seconds=0.01) as ingest:
        yield ingest, found


def track(message_id: str, **who: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Viewed", "messageId": message_id, **who}


async def test_half_characters_are_refused_one_by_one_where_somebody_is_deleted(
    following: tuple[Ingest, Identity],
) -> None:
    """What is refused is looked through for deleted people, also when it can be written in no encoding."""
    ingest, identity = following
    web = await ingest.source()
    identity.add("user_id", "anne-1")
    await identity.followed()
    half = "user-\ud800"
    batch = [track("1", userId=half), track(half, userId="bob"), track("3", userId="bob")]
    body = json.dumps({"batch": batch}).encode()
    status, answer = await ingest.post("/v1/batch", body, web.write_key)
    assert (status, [(r["index"], r["code"]) for r in answer["results"]]) == (
        200,
        [(0, "invalid_characters"), (1, "invalid_characters")],
    )
    assert [e.message_id for e in await ingest.logged()] == ["3"]
    assert len(await ingest.rejected()) == 2


async def test_messages_of_deleted_people_are_refused_and_kept_nowhere(following: tuple[Ingest, Identity]) -> None:
    ingest, identity = following
    web = await ingest.source()
    mapping = json.dumps({"each": "people", "event": "Seen", "identifiers": {"email": "email"}})
    crm = await ingest.source("crm", "webhook", mapping=mapping)
    theirs = [
        track("1", userId="anne-1"),
        track("2", anonymousId="other", context={"traits": {"email": "ANNE@shop.example"}}),
        {"type": "alias", "messageId": "3", "userId": "new", "previousId": "anne-1"},
    ]
    nameless = {"type": "track", "userId": "anne-1"}
    people = {"people": [{"email": "Anne@shop.example"}, {"email": "bob@shop.example"}]}
    status, _ = await ingest.post("/v1/batch", {"batch": [track("0", userId="anne-1"), nameless]}, web.write_key)
    assert status == 200  # nobody is deleted yet
    (rejected,) = await ingest.rejected()

    identity.add("user_id", "anne-1")
    identity.add("email", "anne@shop.example")
    await identity.followed()
    status, answer = await ingest.post("/v1/track", theirs[0], web.write_key)
    assert (status, answer["code"]) == (400, "person_erased")
    assert "anne" not in answer["message"]
    status, answer = await ingest.post("/v1/batch", {"batch": [*theirs, track("b", userId="bob")]}, web.write_key)
    assert (status, [(r["index"], r["code"]) for r in answer["results"]]) == (
        200,
        [(0, "person_erased"), (1, "person_erased"), (2, "person_erased")],
    )
    status, answer = await ingest.post(f"/webhooks/{crm.webhook_token}", people)
    assert (status, [(r["index"], r["code"]) for r in answer["results"]]) == (200, [(0, "person_erased")])
    given = Event(
        kind=EventKind.EVENT_KIND_TRACK, name="A", identifiers=[Identifier(namespace="user_id", value=" anne-1 ")]
    )
    request = events_pb.IngestEventsRequest(source=web.name, events=[given])
    (result,) = (await ingest.events.IngestEvents(request)).results
    assert result.status.code == 9  # FAILED_PRECONDITION
    # What cannot be read is refused for that, and not kept when it speaks of them.
    status, answer = await ingest.post("/v1/track", nameless, web.write_key)
    assert (status, answer["code"]) == (400, "missing_name")
    # A record from before is not repaired, and goes.
    repair = pb.RepairMessagesRequest(
        parent=PARENT, repairs=[pb.Repair(id=rejected["_id"], body=json.dumps(track("r", userId="anne-1")).encode())]
    )
    (repaired,) = (await ingest.sources.RepairMessages(repair)).results
    assert repaired.code == 9

    assert [e.message_id for e in await ingest.logged() if "anne" in str(e).lower()] == ["0"]
    assert {i.value for e in await ingest.logged() for i in e.identifiers} == {"anne-1", "bob", "bob@shop.example"}
    assert [d["_id"] for d in await ingest.rejected()] == [rejected["_id"]]
    assert await ingest.raw() == []
    async with asyncio.timeout(5):
        while identity.refused < 7:
            await asyncio.sleep(0.01)
    assert identity.refused == 7  # 1 alone, 3 in the batch, the webhook's, the gRPC call's, the repair

    for namespace, value in (("user_id", "anne-1"), ("email", "anne@shop.example")):
        identity.add(namespace, value, lifted=True)
    await identity.followed()
    assert (await ingest.post("/v1/track", theirs[0], web.write_key))[0] == 200


async def test_a_shared_device_refuses_only_who_names_nobody_else(following: tuple[Ingest, Identity]) -> None:
    ingest, identity = following
    web = await ingest.source()
    identity.add("anonymous_id", "kiosk", shared=True)
    await identity.followed()
    batch = [track("1", anonymousId="kiosk"), track("2", anonymousId="kiosk", userId="bob")]
    batch.append(track("3", anonymousId="kiosk", context={"page": {"url": "https://x.example/?gclid=abc"}}))
    _, answer = await ingest.post("/v1/batch", {"batch": batch}, web.write_key)
    assert [(r["index"], r["code"]) for r in answer["results"]] == [(0, "person_erased"), (2, "person_erased")]


async def test_a_person_is_removed_and_others_stay(ingest: Ingest, redis: Redis) -> None:
    web = await ingest.source()
    crm = await ingest.source("crm", "webhook", mapping='{"event": "A", "identifiers": {"email": "mail"}}')
    batch = [track("1", userId="anne-1"), track("2", userId="bob"), track("3", anonymousId="browser-9")]
    await ingest.post("/v1/batch", {"batch": batch}, web.write_key)
    for who in ("Anne@shop.example", "bob@shop.example"):
        await ingest.post(f"/webhooks/{crm.webhook_token}", {"mail": who})
        await ingest.post("/v1/track", {"userId": who, "messageId": f"refused-{who}"}, web.write_key)
    while len(await on_streams(redis)) < len(await _segments(ingest.db)):
        await asyncio.sleep(0.01)
    before = {b.segment_id: len(b.events) for b in await on_streams(redis)}

    request = ErasePersonRequest(
        parent=PARENT,
        deletion_id="d1",
        identifiers=[Identifier(namespace="email", value="anne@shop.example")],
        raw_identifiers=[Identifier(namespace="email", value="Anne@shop.example")],
        message_ids=["1", "3"],
        segment_ids=await _segments(ingest.db),
    )
    erasure = ErasureServiceStub(ingest.channel)
    first = {p.place: p.count for p in (await erasure.ErasePerson(request)).places}
    assert first == {"segments": 3, "headrace:events": 3, SOURCE_MESSAGES: 1, REJECTED_MESSAGES: 1}
    again = {p.place: p.count for p in (await erasure.ErasePerson(request)).places}
    assert not any(again.values())

    kept = {i.value for e in await ingest.logged() for i in e.identifiers}
    streamed = await on_streams(redis)
    assert kept == {i.value for b in streamed for e in b.events for i in e.identifiers} == {"bob", "bob@shop.example"}
    # The others keep their places, and every segment still is on its stream, once.
    assert {b.segment_id: len(b.events) for b in streamed} == before and len(streamed) == len(before)
    assert await ingest.count() == 5
    assert [b"bob" in d["b"] for d in [*await ingest.raw(), *await ingest.rejected()]] == [True, True]


async def test_only_services_may_have_people_removed(ingest: Ingest) -> None:
    stub = ErasureServiceStub(ingest.channel)
    for request, field in (
        (ErasePersonRequest(parent="shop", deletion_id="d"), "parent"),
        (ErasePersonRequest(parent=PARENT), "deletion_id"),
        (ErasePersonRequest(parent=PARENT, deletion_id="d", message_ids=map(str, range(10_001))), "message_ids"),
    ):
        with pytest.raises(Exception) as caught:
            await stub.ErasePerson(request)
        assert [f for f, _ in errors.field_violations(caught.value)] == [field]  # type: ignore[arg-type]


async def _segments(db: Database) -> list[str]:
    return [d["_id"] async for d in db[log.SEGMENTS].find({}, {"_id": 1})]
