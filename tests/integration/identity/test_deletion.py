"""Deletion and suppression in the identity service, on real stores, with other services that answer as told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import bson
import grpc
import pytest
from headrace_identity import store
from headrace_identity.bootstrap import open_service
from headrace_identity.deletion import receipt
from headrace_identity.settings import Settings

from headrace.api.common.v1.erasure_service_pb2 import (
    ErasedPlace,
    ErasePersonRequest,
    ErasePersonResponse,
    ErasureOutcome,
)
from headrace.api.common.v1.erasure_service_pb2_grpc import (
    ErasureServiceServicer,
    add_ErasureServiceServicer_to_server,
)
from headrace.api.common.v1.event_pb2 import Event, Identifier
from headrace.api.identity.v1 import identity_service_pb2 as links
from headrace.api.identity.v1 import profile_service_pb2 as pb
from headrace.api.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.domain.ids import profile_id
from headrace.rpc import errors
from headrace.rpc.auth import ServiceTokenAuthenticator
from headrace.rpc.channel import connect
from headrace.rpc.server import Hosted, serving
from headrace.settings import ServiceSettings
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from tests.support.identity import WORKSPACE, event, put_in_log, segments, unfinished
from tests.support.settings import MakeSettings

PARENT = f"workspaces/{WORKSPACE}"
PARTITIONS = 4


@dataclass
class Peer(ErasureServiceServicer):
    """The ErasureService of all other services; what it is asked is kept, what it answers can be set."""

    asked: list[ErasePersonRequest] = field(default_factory=list)
    fails: int = 0
    is_away: bool = False
    outcome: Any = ErasureOutcome.ERASURE_OUTCOME_REMOVED

    async def ErasePerson(self, request: ErasePersonRequest, context: Any) -> ErasePersonResponse:
        self.asked.append(request)
        if self.is_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        outcome = self.outcome
        if self.fails:
            self.fails -= 1
            outcome = ErasureOutcome.ERASURE_OUTCOME_FAILED
        return ErasePersonResponse(
            places=[ErasedPlace(place="elsewhere", outcome=outcome, count=int(len(self.asked) == 1))]
        )


@dataclass
class Identity:
    """The running service."""

    channel: grpc.aio.Channel
    peer: Peer
    db: Database
    redis: Redis

    @property
    def stub(self) -> Any:
        return ProfileServiceStub(self.channel)

    async def send(self, *events: Event) -> None:
        """Send events through the log and the streams, and wait until they are through."""
        await put_in_log(self.db, self.redis, segments(events, 10), PARTITIONS)
        async with asyncio.timeout(20):
            while await unfinished(self.db):
                await asyncio.sleep(0.02)

    async def delete(self, namespace: str, value: str) -> pb.Deletion:
        """Delete somebody, and wait until that is done."""
        request = pb.RequestDeletionRequest(parent=PARENT, identifier=Identifier(namespace=namespace, value=value))
        deletion = (await self.stub.RequestDeletion(request)).deletion
        return await self.done(deletion.name)

    async def done(self, name: str) -> pb.Deletion:
        async with asyncio.timeout(20):
            while True:
                deletion = (await self.stub.GetDeletion(pb.GetDeletionRequest(name=name))).deletion
                if deletion.state == pb.DELETION_STATE_DONE:
                    return deletion  # type: ignore[no-any-return]  # the stub is not typed
                await asyncio.sleep(0.02)

    async def traces(self, *texts: str) -> set[str]:
        """Collections whose documents hold any of these texts, events decompressed."""
        found = set()
        for name in await self.db.list_collection_names():
            async for document in self.db[name].find({}):
                plain = bson.encode(document)
                if name == log.SEGMENTS:
                    ((_, batch),) = await log.read_segments(self.db, [document["_id"]])
                    plain += batch.SerializeToString()
                if any(text.encode() in plain for text in texts):
                    found.add(name)
        return found


@asynccontextmanager
async def serving_identity(
    db: Database, redis: Redis, make_settings: MakeSettings, **overrides: Any
) -> AsyncIterator[Identity]:
    peer = Peer()
    plain = make_settings(ServiceSettings)
    hosted = Hosted(
        "headrace.api.common.v1.ErasureService", lambda server: add_ErasureServiceServicer_to_server(peer, server)
    )
    token = plain.service_token.get_secret_value()
    async with serving([hosted], authenticator=ServiceTokenAuthenticator(token), settings=plain) as peers:
        settings = make_settings(
            Settings,
            event_partitions=PARTITIONS,
            partitions=4,
            sync_address=peers,
            audience_address=peers,
            ingest_address=peers,
            **{"deletion_wait_hours": 0, "deletion_seconds": 0.05} | overrides,
        )
        async with open_service(settings) as running, connect(running.grpc_address, settings) as channel:
            yield Identity(channel, peer, db, redis)


@pytest.fixture
async def identity(db: Database, redis: Redis, make_settings: MakeSettings) -> AsyncIterator[Identity]:
    async with serving_identity(db, redis, make_settings) as running:
        yield running


GRACE = [
    event("g1", ("anonymous_id", "browser-grace")),
    event("g2", ("user_id", "grace-1906"), ("email", "Grace@Navy.example"), traits={"name": "Hopper"}),
    event("g3", ("user_id", "grace-1906"), ("anonymous_id", "browser-grace"), ("phone", "+1 (202) 555-0143")),
]
ADA = [event("a1", ("user_id", "ada-1815"), ("email", "ada@example.com"), traits={"name": "Lovelace"})]
SECRETS = (
    "grace-1906",
    "grace@navy.example",
    "Grace@Navy.example",
    "Hopper",
    "browser-grace",
    "+12025550143",
    "555-0143",
)


async def test_a_deleted_person_is_gone_and_stays_away(identity: Identity) -> None:
    await identity.send(*GRACE, *ADA)
    await identity.send(GRACE[1])  # once more, in another segment
    deletion = await identity.delete("email", " GRACE@navy.example")
    assert deletion.masked_identifier == "email:g…"
    # Segments are ingest's, and it was told of them all.
    assert await identity.traces(*SECRETS) == {log.SEGMENTS}
    told = identity.peer.asked[0]
    assert set(told.message_ids) == {"g1", "g2", "g3"}
    stored = [d["_id"] async for d in identity.db[log.SEGMENTS].find({}, {"_id": 1})]
    assert sorted(told.segment_ids) == sorted(stored)
    assert set(told.profile_ids) == {profile_id(WORKSPACE, "g1"), profile_id(WORKSPACE, "g2")}
    assert {(i.namespace, i.value) for i in told.raw_identifiers} == {
        ("email", "Grace@Navy.example"),
        ("phone", "+1 (202) 555-0143"),
    }
    for lookup in (("user_id", "grace-1906"), ("anonymous_id", "browser-grace")):
        with pytest.raises(grpc.aio.AioRpcError):
            await identity.stub.LookupProfile(_lookup(*lookup))
    assert (await identity.stub.LookupProfile(_lookup("user_id", "ada-1815"))).profile.traits[0].value == b'"Lovelace"'
    # Everything comes again, and in other forms; nothing of it is taken.
    again = [
        event("once-more-one", ("email", "GRACE@NAVY.EXAMPLE"), ("user_id", "new")),
        event("once-more-two", ("phone", "+1 (202) 555-0143")),
        event("once-more-three", ("user_id", "other"), previous_id="browser-grace"),
    ]
    identity.peer.asked.clear()
    await identity.send(*GRACE, *again, event("a2", ("user_id", "ada-1815")))
    stored_ids = {d["_id"].partition("\x1f")[2] async for d in identity.db[log.EVENTS].find({}, {"_id": 1})}
    assert stored_ids == {"a1", "a2"}
    assert await identity.traces(*SECRETS, "once-more-one", "once-more-two", "once-more-three") == {log.SEGMENTS}
    refused = [m for request in identity.peer.asked for m in request.message_ids]
    assert sorted(refused) == sorted(["g1", "g2", "g3", "once-more-one", "once-more-two", "once-more-three"])
    listed = await identity.stub.ListDeletions(pb.ListDeletionsRequest(parent=PARENT))
    assert [d.name for d in listed.deletions] == [deletion.name]
    assert sum(day.count for day in listed.refused) == 6


async def test_the_receipt_is_signed_and_says_what_went_where(identity: Identity) -> None:
    await identity.send(*GRACE)
    deletion = await identity.delete("user_id", "grace-1906")
    key = await identity.stub.GetReceiptKey(pb.GetReceiptKeyRequest(parent=PARENT))
    signed = receipt.Signed(deletion.receipt.statement, deletion.receipt.signature, deletion.receipt.key_id)
    statement = receipt.verify(signed, key.public_key)
    places = {p["place"]: (p["outcome"], p["count"]) for p in statement["places"]}
    assert places["events"] == ("removed", 3)
    assert places["profiles"] == ("removed", 2)
    assert places["identifiers"] == ("removed", 4)
    assert places["elsewhere"] == ("removed", 1)
    assert statement["deletion"] == deletion.name.rpartition("/")[2]
    changed = receipt.Signed(signed.statement.replace(b'"count":3', b'"count":4'), signed.signature, signed.key_id)
    with pytest.raises(receipt.InvalidReceipt):
        receipt.verify(changed, key.public_key)
    assert not any(text in json.dumps(statement) for text in SECRETS)
    document = await identity.db[store.DELETIONS].find_one({})
    assert document is not None and document.keys().isdisjoint({"who", "p", "v"})


async def test_somebody_unknown_leaves_a_tombstone(identity: Identity) -> None:
    await identity.delete("email", "never@seen.example")
    await identity.send(event("m1", ("email", "never@seen.example")))
    assert await identity.db[log.EVENTS].count_documents({}) == 0


async def test_a_deletion_waits_and_can_be_cancelled(db: Database, redis: Redis, make_settings: MakeSettings) -> None:
    async with serving_identity(db, redis, make_settings, deletion_wait_hours=24) as identity:
        await identity.send(*GRACE)
        ask = pb.RequestDeletionRequest(
            parent=PARENT, identifier=Identifier(namespace="email", value="grace@navy.example")
        )
        first = (await identity.stub.RequestDeletion(ask)).deletion
        assert first.state == pb.DELETION_STATE_WAITING
        assert first.due_time.seconds - first.create_time.seconds == 24 * 3600
        by_profile = pb.RequestDeletionRequest(
            parent=PARENT, profile=f"{PARENT}/profiles/{profile_id(WORKSPACE, 'g2')}"
        )
        for request in (ask, by_profile):
            assert (await identity.stub.RequestDeletion(request)).deletion == first
        view = await identity.stub.GetProfileView(pb.GetProfileViewRequest(name=by_profile.profile))
        assert (view.deletion, view.suppressed) == (first.name, False)
        cancelled = (await identity.stub.CancelDeletion(pb.CancelDeletionRequest(name=first.name))).deletion
        assert cancelled.state == pb.DELETION_STATE_CANCELLED
        assert (await identity.stub.CancelDeletion(pb.CancelDeletionRequest(name=first.name))).deletion == cancelled
        await identity.send(event("g4", ("user_id", "grace-1906")))
        assert await db[log.EVENTS].count_documents({}) == 4
        second = (await identity.stub.RequestDeletion(ask)).deletion
        assert second.name != first.name
        listed = await identity.stub.ListDeletions(
            pb.ListDeletionsRequest(parent=PARENT, state=pb.DELETION_STATE_WAITING)
        )
        assert [d.name for d in listed.deletions] == [second.name]


async def test_who_fails_is_asked_again(identity: Identity) -> None:
    await identity.send(*GRACE)
    identity.peer.fails = 4
    deletion = await identity.delete("user_id", "grace-1906")
    statement = json.loads(deletion.receipt.statement)
    assert {p["place"]: p["outcome"] for p in statement["places"]}["elsewhere"] == "removed"
    assert statement["not_told"] == []
    assert deletion.waiting_for == ""


async def test_a_place_that_fails_for_too_long_stands_in_the_receipt(
    db: Database, redis: Redis, make_settings: MakeSettings
) -> None:
    async with serving_identity(db, redis, make_settings, deletion_give_up_days=0) as identity:
        identity.peer.fails = 1000
        await identity.send(*GRACE)
        deletion = await identity.delete("user_id", "grace-1906")
        assert json.loads(deletion.receipt.statement)["not_told"] == ["elsewhere"]


async def test_suppression_refuses_and_takes_again(identity: Identity) -> None:
    await identity.send(*GRACE)
    who = Identifier(namespace="email", value="grace@navy.example")
    suppressed = await identity.stub.SuppressProfile(pb.SuppressProfileRequest(parent=PARENT, identifier=who))
    assert suppressed.suppressed_identifiers == 4
    await identity.send(event("g4", ("anonymous_id", "browser-grace")), GRACE[0])
    assert await identity.db[log.EVENTS].count_documents({}) == 3
    profile = (await identity.stub.LookupProfile(_lookup("user_id", "grace-1906"))).profile
    assert len(profile.identifiers) == 4
    view = await identity.stub.GetProfileView(pb.GetProfileViewRequest(name=profile.name))
    assert (view.deletion, view.suppressed) == ("", True)
    checked = await identity.stub.CheckErased(
        pb.CheckErasedRequest(
            parent=PARENT,
            identifiers=[
                who,
                Identifier(namespace="phone", value="+1 (202) 555-0143"),
                Identifier(namespace="user_id", value="x"),
            ],
        )
    )
    assert list(checked.erased) == [True, True, False]
    lifted = await identity.stub.UnsuppressProfile(pb.UnsuppressProfileRequest(parent=PARENT, identifier=who))
    assert lifted.unsuppressed_identifiers == 4
    await identity.send(event("g4", ("phone", "+1 (202) 555-0143")))
    assert await identity.db[log.EVENTS].count_documents({}) == 4


async def test_nobody_is_linked_by_hand_to_who_was_deleted_or_suppressed(identity: Identity) -> None:
    """It would give their events to somebody whose own are taken."""
    await identity.send(*GRACE, event("a1", ("user_id", "ada-1815")), event("b1", ("user_id", "bob")))
    stub = IdentityServiceStub(identity.channel)

    def link(first: str, second: str) -> links.AddManualLinkRequest:
        pair = [Identifier(namespace="user_id", value=value) for value in (first, second)]
        manual = links.ManualLink(kind=links.LinkKind.LINK_KIND_TOGETHER, first=pair[0], second=pair[1], reason="told")
        return links.AddManualLinkRequest(parent=PARENT, link=manual)

    grace = Identifier(namespace="user_id", value="grace-1906")
    await identity.stub.SuppressProfile(pb.SuppressProfileRequest(parent=PARENT, identifier=grace))
    with pytest.raises(grpc.aio.AioRpcError) as suppressed:
        await stub.AddManualLink(link("ada-1815", "grace-1906"))
    assert errors.reason_of(suppressed.value) == errors.PERSON_ERASED
    await identity.delete("user_id", "bob")
    with pytest.raises(grpc.aio.AioRpcError) as deleted:
        await stub.AddManualLink(link("bob", "ada-1815"))
    assert errors.reason_of(deleted.value) == errors.PERSON_ERASED
    assert await identity.db["identity_links"].count_documents({}) == 0
    await identity.stub.UnsuppressProfile(pb.UnsuppressProfileRequest(parent=PARENT, identifier=grace))
    await stub.AddManualLink(link("ada-1815", "grace-1906"))
    assert len((await identity.stub.LookupProfile(_lookup("user_id", "ada-1815"))).profile.identifiers) == 5


async def test_who_is_being_deleted_cannot_be_split_meanwhile(
    db: Database, redis: Redis, make_settings: MakeSettings
) -> None:
    async with serving_identity(db, redis, make_settings) as identity:
        identity.peer.is_away = True  # it holds up the removal
        browser, user = ("anonymous_id", "browser-1"), ("user_id", "grace-1906")
        for one in (event("g1", browser), event("g2", user), event("g3", user, browser)):
            await identity.send(one)
        who = Identifier(namespace="user_id", value="grace-1906")
        asked = await identity.stub.RequestDeletion(pb.RequestDeletionRequest(parent=PARENT, identifier=who))
        async with asyncio.timeout(20):
            while not identity.peer.asked:
                await asyncio.sleep(0.02)
        merge = f"{PARENT}/merges/{profile_id(WORKSPACE, 'g2')}"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            stub = IdentityServiceStub(identity.channel)
            await stub.UndoMerge(links.UndoMergeRequest(name=merge, reason="two people"))
        assert errors.reason_of(refused.value) == errors.WRONG_STATE
        assert "is being deleted" in str(refused.value.details())
        identity.peer.is_away = False
        await identity.done(asked.deletion.name)


async def test_a_shared_device_keeps_nobody_else_out(identity: Identity) -> None:
    kiosk = ("anonymous_id", "kiosk-7")
    await identity.send(event("g1", kiosk), event("g2", ("user_id", "grace-1906"), kiosk))
    await identity.send(event("a1", ("user_id", "ada-1815"), kiosk))
    await identity.delete("user_id", "grace-1906")
    # Nor are the others told of it: they would remove what is other people's.
    named = {(i.namespace, i.value) for request in identity.peer.asked for i in request.identifiers}
    assert named == {("user_id", "grace-1906")}
    await identity.send(
        event("a2", ("user_id", "ada-1815"), kiosk),
        event("new", ("user_id", "katherine"), kiosk),
        event("g3", kiosk),
        event("g4", ("user_id", "grace-1906"), kiosk),
    )
    stored = {d["_id"].partition("\x1f")[2] async for d in identity.db[log.EVENTS].find({}, {"_id": 1})}
    assert stored == {"a1", "a2", "new"}
    holder = await identity.db[store.IDENTIFIERS].find_one({"_id": f"{WORKSPACE}\x1fanonymous_id\x1fkiosk-7"})
    assert holder is None


async def test_wrong_calls_are_refused(identity: Identity) -> None:
    who = Identifier(namespace="user_id", value="u1")
    profile = f"{PARENT}/profiles/p1"
    calls: list[tuple[Any, Any, str, str]] = [
        (identity.stub.RequestDeletion, pb.RequestDeletionRequest(parent=PARENT), "INVALID_ARGUMENT", "identifier"),
        (
            identity.stub.RequestDeletion,
            pb.RequestDeletionRequest(parent=PARENT, identifier=who, profile=profile),
            "INVALID_ARGUMENT",
            "identifier",
        ),
        (identity.stub.RequestDeletion, pb.RequestDeletionRequest(parent=PARENT, profile=profile), "NOT_FOUND", ""),
        (
            identity.stub.RequestDeletion,
            pb.RequestDeletionRequest(parent=PARENT, identifier=who, reason="x" * 501),
            "INVALID_ARGUMENT",
            "reason",
        ),
        (
            identity.stub.RequestDeletion,
            pb.RequestDeletionRequest(parent=PARENT, identifier=Identifier(namespace="email", value="none")),
            "INVALID_ARGUMENT",
            "identifier",
        ),
        (
            identity.stub.SuppressProfile,
            pb.SuppressProfileRequest(parent=PARENT, profile="workspaces/other/profiles/p1"),
            "INVALID_ARGUMENT",
            "profile",
        ),
        (
            identity.stub.UnsuppressProfile,
            pb.UnsuppressProfileRequest(parent=PARENT),
            "INVALID_ARGUMENT",
            "identifier.namespace",
        ),
        (identity.stub.GetDeletion, pb.GetDeletionRequest(name=f"{PARENT}/deletions/x"), "NOT_FOUND", ""),
        (identity.stub.CancelDeletion, pb.CancelDeletionRequest(name=f"{PARENT}/deletions/x"), "NOT_FOUND", ""),
        (identity.stub.CheckErased, pb.CheckErasedRequest(parent=PARENT), "INVALID_ARGUMENT", "identifiers"),
    ]
    for call, request, reason, at in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert errors.reason_of(caught.value) == reason, request
        assert [f for f, _ in errors.field_violations(caught.value)] == ([at] if at else []), request
    deletion = await identity.delete("user_id", "u1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await identity.stub.CancelDeletion(pb.CancelDeletionRequest(name=deletion.name))
    assert errors.reason_of(caught.value) == "WRONG_STATE"


def _lookup(namespace: str, value: str) -> pb.LookupProfileRequest:
    return pb.LookupProfileRequest(parent=PARENT, identifier=Identifier(namespace=namespace, value=value))


async def test_an_event_that_cannot_be_processed_is_not_kept_either(identity: Identity) -> None:
    await identity.send(*GRACE)
    await identity.delete("user_id", "grace-1906")
    wrong = event("g9", ("email", "GRACE@navy.example"))
    wrong.traits = b'["Hopper"]'
    await identity.send(wrong)
    assert await identity.db[store.PARKED_EVENTS].count_documents({}) == 0
    assert await identity.traces(*SECRETS) == {log.SEGMENTS}


async def test_manual_links_and_events_of_others_give_nobody_what_was_deleted(identity: Identity) -> None:
    """Others' events that named the person stay; resolved anew, they do not get the person's identifiers."""
    await identity.send(*GRACE, *ADA)
    await identity.send(event("a2", ("user_id", "ada-1815"), ("email", "grace@navy.example")))
    await identity.delete("user_id", "grace-1906")
    link = links.AddManualLinkRequest(
        parent=PARENT,
        link=links.ManualLink(
            kind=links.LINK_KIND_APART,
            reason="a test",
            first=Identifier(namespace="user_id", value="ada-1815"),
            second=Identifier(namespace="user_id", value="nobody"),
        ),
    )
    await IdentityServiceStub(identity.channel).AddManualLink(link)
    profile = (await identity.stub.LookupProfile(_lookup("user_id", "ada-1815"))).profile
    assert {i.value for i in profile.identifiers} == {"ada-1815", "ada@example.com"}
    assert await identity.db[log.EVENTS].count_documents({}) == 2
