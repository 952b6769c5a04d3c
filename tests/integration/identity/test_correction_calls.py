"""Undoing merges and linking by hand through gRPC: answers, repeated calls, every error in one clear sentence."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from headrace_identity.bootstrap import open_service
from headrace_identity.settings import Settings
from headrace_identity.worker import Worker
from headrace_identity.workspaces import Workspaces

from headrace.api.common.v1.event_pb2 import Identifier
from headrace.api.identity.v1 import identity_service_pb2 as pb
from headrace.api.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from headrace.rpc import errors
from headrace.rpc.channel import connect
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from tests.support.identity import WORKSPACE, event, read_stored, sent_on
from tests.support.reassignment import incoming, merges_of, stored_state
from tests.support.settings import MakeSettings

PARENT = f"workspaces/{WORKSPACE}"
TOGETHER, APART = pb.LinkKind.LINK_KIND_TOGETHER, pb.LinkKind.LINK_KIND_APART
U1, A1, E1 = ("user_id", "u1"), ("anonymous_id", "dev1"), ("email", "one@shop.example")
EVENTS = [event("m1", A1), event("m2", U1), event("m3", U1, A1), event("m4", E1)]


@asynccontextmanager
async def identity_of(settings: Settings) -> AsyncIterator[Any]:
    async with open_service(settings) as running, connect(running.grpc_address, settings) as channel:
        yield IdentityServiceStub(channel)


def linked(kind: int, first: tuple[str, str], second: tuple[str, str], reason: str = "asked for") -> pb.ManualLink:
    return pb.ManualLink(
        kind=kind,  # type: ignore[arg-type]  # a value of the enum
        first=Identifier(namespace=first[0], value=first[1]),
        second=Identifier(namespace=second[0], value=second[1]),
        reason=reason,
    )


async def add(stub: Any, *args: Any, request_id: str = "") -> pb.AddManualLinkResponse:
    request = pb.AddManualLinkRequest(parent=PARENT, link=linked(*args), request_id=request_id)
    answer: pb.AddManualLinkResponse = await stub.AddManualLink(request)
    return answer


async def refused(call: Any) -> tuple[str, str, dict[str, str]]:
    """Reason, sentence and metadata of the error that a call raises."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = errors.error_info(caught.value)
    assert info is not None, caught.value.details()
    return info.reason, caught.value.details() or "", dict(info.metadata)


async def test_a_merge_is_undone_once(db: Database, redis: Redis, make_settings: MakeSettings) -> None:
    settings = make_settings(Settings)
    await Worker(db).process(WORKSPACE, incoming(EVENTS))
    (loser,) = await merges_of(db)
    name, request_id = f"{PARENT}/merges/{loser}", str(uuid.uuid4())
    async with identity_of(settings) as stub:
        request = pb.UndoMergeRequest(name=name, reason="shared tablet", request_id=request_id)
        answer = await stub.UndoMerge(request)
        stored = await read_stored(db)
        assert sorted(answer.profiles) == sorted(f"{PARENT}/profiles/{stored.root_of(m)}" for m in ("m1", "m2"))
        assert answer.moved_events == 2
        (link,) = answer.links
        assert (link.undone_merge, link.kind, link.reason) == (name, APART, "shared tablet")
        state = await stored_state(db)
        assert await stub.UndoMerge(request) == answer  # the same call again
        assert await stored_state(db) == state
        reason, sentence, metadata = await refused(stub.UndoMerge(pb.UndoMergeRequest(name=name, reason="again")))
        assert (reason, metadata) == (errors.WRONG_STATE, {"state": "undone"})
        assert sentence == f"{name} is undone already, by {link.name}."
        assert (await stub.GetManualLink(pb.GetManualLinkRequest(name=link.name))).link == link
        # It is announced without anybody asking.
        async with asyncio.timeout(5):
            while len([r for b in await sent_on(redis, settings.partitions) for r in b.reassignments]) < 2:
                await asyncio.sleep(0.01)
        # Taken back, the two are one again, and the same merge may be undone again.
        deleted = await stub.DeleteManualLink(pb.DeleteManualLinkRequest(name=link.name))
        assert (len(deleted.profiles), deleted.moved_events) == (1, 2)
        assert await merges_of(db) == [loser]
        assert len((await stub.UndoMerge(pb.UndoMergeRequest(name=name, reason="now for good"))).links) == 1


async def test_links_are_added_listed_and_taken_back(db: Database, make_settings: MakeSettings) -> None:
    await Worker(db).process(WORKSPACE, incoming(EVENTS))
    async with identity_of(make_settings(Settings)) as stub:
        # Written in any way that means it.
        answer = await add(stub, TOGETHER, U1, ("email", "  ONE@shop.example "))
        assert answer.link.second.value == E1[1]
        assert (len(answer.profiles), answer.moved_events) == (1, 1)
        again = await add(stub, TOGETHER, E1, U1, "another reason")
        assert (again.link, again.profiles, again.moved_events) == (answer.link, answer.profiles, 0)
        request_id = str(uuid.uuid4())
        first = await add(stub, APART, U1, ("email", "two@shop.example"), request_id=request_id)
        assert await add(stub, APART, U1, ("email", "two@shop.example"), request_id=request_id) == first
        pages = [await stub.ListManualLinks(pb.ListManualLinksRequest(parent=PARENT, page_size=1))]
        pages.append(
            await stub.ListManualLinks(
                pb.ListManualLinksRequest(parent=PARENT, page_size=1, page_token=pages[0].next_page_token)
            )
        )
        assert [link for page in pages for link in page.links] == [answer.link, first.link]
        assert pages[1].next_page_token == ""
        request = pb.DeleteManualLinkRequest(name=answer.link.name, request_id=str(uuid.uuid4()))
        deleted = await stub.DeleteManualLink(request)
        assert (len(deleted.profiles), deleted.moved_events) == (2, 1)
        assert await stub.DeleteManualLink(request) == deleted
        missing = pb.DeleteManualLinkRequest(name=answer.link.name)
        assert (await refused(stub.DeleteManualLink(missing)))[0] == errors.NOT_FOUND


async def test_links_that_contradict_each_other(db: Database, make_settings: MakeSettings) -> None:
    await Worker(db).process(WORKSPACE, incoming(EVENTS))
    async with identity_of(make_settings(Settings)) as stub:
        one = (await add(stub, TOGETHER, U1, E1)).link.name.rpartition("/")[2]
        other = (await add(stub, TOGETHER, E1, ("phone", "+919876543210"))).link.name.rpartition("/")[2]
        before = await stored_state(db)
        version = (await Workspaces(db).read(WORKSPACE)).links_version
        reason, sentence, metadata = await refused(add(stub, APART, ("phone", "+919876543210"), U1))
        assert (reason, metadata) == (errors.LINKS_CONTRADICT, {"links": f"{other},{one}"})
        assert sentence == f"The manual links {other}, {one} say the opposite: delete one of them first."
        assert await stored_state(db) == before
        assert (await Workspaces(db).read(WORKSPACE)).links_version == version


async def test_what_cannot_be_done(db: Database, make_settings: MakeSettings) -> None:
    await Worker(db).process(WORKSPACE, incoming(EVENTS))
    (loser,) = await merges_of(db)
    undo, unknown = pb.UndoMergeRequest, f"{PARENT}/merges/nobody"
    async with identity_of(make_settings(Settings)) as stub:
        cases = [
            (
                stub.UndoMerge(undo(name=unknown, reason="x")),
                errors.NOT_FOUND,
                f"{unknown} does not exist: a merge has the id of the profile that was merged",
            ),
            (
                stub.UndoMerge(undo(name=f"{PARENT}/merges/{loser}")),
                errors.INVALID_ARGUMENT,
                "reason: must be 1 to 500",
            ),
            (
                stub.UndoMerge(undo(name="workspaces/shop/merge", reason="x")),
                errors.INVALID_ARGUMENT,
                "name: must have",
            ),
            (
                add(stub, TOGETHER, U1, ("user_id", " u1 ")),
                errors.INVALID_ARGUMENT,
                "link.second: is the same identifier",
            ),
            (add(stub, TOGETHER, U1, ("email", "nonsense")), errors.INVALID_ARGUMENT, "(blocked:invalid)"),
            (add(stub, TOGETHER, U1, ("", "x")), errors.INVALID_ARGUMENT, "link.second.namespace: is required"),
            (add(stub, TOGETHER, U1, E1, ""), errors.INVALID_ARGUMENT, "link.reason: must be 1 to 500 characters"),
            (add(stub, 0, U1, E1), errors.INVALID_ARGUMENT, "link.kind: must be"),
            (add(stub, APART, U1, E1, request_id="no"), errors.INVALID_ARGUMENT, "request_id: must be a UUID"),
        ]
        for call, reason, sentence in cases:
            found = await refused(call)
            assert found[0] == reason
            assert sentence in found[1]


async def test_a_small_budget(db: Database, make_settings: MakeSettings) -> None:
    await Worker(db).process(WORKSPACE, incoming(EVENTS))
    (loser,) = await merges_of(db)
    async with identity_of(make_settings(Settings, identity_reassign_events=2)) as stub:
        request = pb.UndoMergeRequest(name=f"{PARENT}/merges/{loser}", reason="x")
        reason, sentence, metadata = await refused(stub.UndoMerge(request))
    assert (reason, metadata) == (errors.LIMIT_EXCEEDED, {"limit": "identity_reassign_events"})
    assert "HEADRACE_IDENTITY_REASSIGN_EVENTS" in sentence
