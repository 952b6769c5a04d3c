"""ComputedTraitService over gRPC: from the definition to values in profiles, and everything that is refused."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from headrace_identity.bootstrap import open_service
from headrace_identity.computed import store as computed_store
from headrace_identity.settings import Settings
from headrace_identity.store import COMPUTED_TRAITS, COMPUTED_VALUES
from headrace_identity.worker import Incoming, Worker

from headrace.api.identity.v1 import computed_trait_service_pb2 as pb
from headrace.api.identity.v1.computed_trait_service_pb2_grpc import ComputedTraitServiceStub
from headrace.api.identity.v1.profile_service_pb2 import BatchGetProfilesRequest, GetProfileRequest
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.domain.ids import profile_id
from headrace.domain.times import DAY_US, now_us
from headrace.rpc import errors
from headrace.rpc.channel import connect
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from tests.support.computed import track
from tests.support.identity import WORKSPACE
from tests.support.settings import MakeSettings

PARENT = f"workspaces/{WORKSPACE}"
SPENT = {"event": "purchased", "within": "30d", "compute": {"sum": "total"}}


@asynccontextmanager
async def stubs_of(settings: Settings) -> AsyncIterator[tuple[Any, Any]]:
    async with open_service(settings) as running, connect(running.grpc_address, settings) as channel:
        yield ComputedTraitServiceStub(channel), ProfileServiceStub(channel)


def creation(trait_id: str, definition: object = SPENT, **more: Any) -> pb.CreateComputedTraitRequest:
    text = definition if isinstance(definition, bytes) else json.dumps(definition).encode()
    trait = pb.ComputedTrait(definition=text, display_name=more.pop("display_name", ""))
    return pb.CreateComputedTraitRequest(parent=PARENT, computed_trait_id=trait_id, computed_trait=trait, **more)


def named(trait_id: str) -> str:
    return f"{PARENT}/computedTraits/{trait_id}"


async def ready(stub: Any, trait_id: str) -> pb.ComputedTrait:
    async with asyncio.timeout(10):
        while True:
            trait = (await stub.GetComputedTrait(pb.GetComputedTraitRequest(name=named(trait_id)))).computed_trait
            if trait.state == pb.COMPUTED_TRAIT_STATE_READY:
                return trait  # type: ignore[no-any-return]  # stubs are untyped
            await asyncio.sleep(0.01)


async def test_from_the_definition_to_the_profile(db: Database, redis: Redis, make_settings: MakeSettings) -> None:
    now = now_us()
    events = [
        track("m1", now - 40 * DAY_US, {"total": 1000}, workspace_id=WORKSPACE),
        track("m2", now - 2 * DAY_US, {"total": 19.9}, workspace_id=WORKSPACE),
        track("m3", now - DAY_US, {"total": 0.2}, workspace_id=WORKSPACE, who=[("anonymous_id", "a1")]),
        track("m4", now, None, workspace_id=WORKSPACE, who=[("user_id", "u1"), ("anonymous_id", "a1")]),
        track("m5", now, {"total": 7}, workspace_id=WORKSPACE, who=[("user_id", "u2")]),
    ]
    await Worker(db).process(WORKSPACE, [Incoming(e, "s", i) for i, e in enumerate(events[:3])])
    async with stubs_of(make_settings(Settings)) as (traits, profiles):
        created = (await traits.CreateComputedTrait(creation("spent"))).computed_trait
        assert (created.name, created.display_name, created.state) == (
            named("spent"),
            "spent",
            pb.COMPUTED_TRAIT_STATE_FILLING,
        )
        trait = await ready(traits, "spent")
        assert (trait.events_done, json.loads(trait.definition)) == (3, SPENT)
        await Worker(db).process(WORKSPACE, [Incoming(e, "s", 3 + i) for i, e in enumerate(events[3:])])
        person, other = profile_id(WORKSPACE, "m1"), profile_id(WORKSPACE, "m5")
        profile = (await profiles.GetProfile(GetProfileRequest(name=f"{PARENT}/profiles/{person}"))).profile
        assert [(c.computed_trait_id, c.value, c.truncated) for c in profile.computed_traits] == [
            ("spent", b"20.1", False)
        ]
        assert now <= profile.computed_traits[0].at_us <= now_us()
        batch = BatchGetProfilesRequest(parent=PARENT, profile_ids=[other, person])
        results = (await profiles.BatchGetProfiles(batch)).results
        assert [r.profile.computed_traits[0].value for r in results] == [b"7", b"20.1"]
        verify = pb.VerifyComputedTraitRequest(name=named("spent"), profile=f"{PARENT}/profiles/{person}")
        verified = await traits.VerifyComputedTrait(verify)
        assert (verified.kept, verified.computed) == (b"20.1", b"20.1")
        # What is kept was damaged from outside: the check shows it.
        await db[COMPUTED_VALUES].delete_many({})
        verified = await traits.VerifyComputedTrait(verify)
        assert (verified.kept, verified.computed) == (b"", b"20.1")


async def test_definitions_are_listed_changed_and_deleted(
    db: Database, redis: Redis, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computed_store, "MOST_TRAITS", 4)
    async with stubs_of(make_settings(Settings)) as (stub, _):
        for trait_id in ("c", "a", "b"):
            await stub.CreateComputedTrait(creation(trait_id, display_name=trait_id.upper()))
        again = creation("d", request_id=str(uuid.uuid4()))
        assert await stub.CreateComputedTrait(again) == await stub.CreateComputedTrait(again)
        first = await stub.ListComputedTraits(pb.ListComputedTraitsRequest(parent=PARENT, page_size=3))
        rest = await stub.ListComputedTraits(
            pb.ListComputedTraitsRequest(parent=PARENT, page_size=3, page_token=first.next_page_token)
        )
        assert [t.name for t in [*first.computed_traits, *rest.computed_traits]] == [named(i) for i in "abcd"]
        assert rest.next_page_token == ""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateComputedTrait(creation("e"))
        assert errors.reason_of(caught.value) == errors.LIMIT_EXCEEDED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateComputedTrait(creation("a"))
        assert errors.reason_of(caught.value) == errors.ALREADY_EXISTS
        old = await ready(stub, "a")
        changed = pb.ComputedTrait(
            name=old.name, display_name="Orders", definition=b'{"event": "Left", "compute": "count"}', etag=old.etag
        )
        mask = FieldMask(paths=["display_name"])
        new = (
            await stub.UpdateComputedTrait(pb.UpdateComputedTraitRequest(computed_trait=changed, update_mask=mask))
        ).computed_trait
        assert (new.display_name, new.definition, new.state) == ("Orders", old.definition, old.state)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.UpdateComputedTrait(pb.UpdateComputedTraitRequest(computed_trait=changed))
        assert errors.reason_of(caught.value) == errors.ETAG_MISMATCH
        changed.etag = new.etag
        newest = (await stub.UpdateComputedTrait(pb.UpdateComputedTraitRequest(computed_trait=changed))).computed_trait
        assert (newest.definition, newest.state) == (changed.definition, pb.COMPUTED_TRAIT_STATE_FILLING)
        await stub.DeleteComputedTrait(pb.DeleteComputedTraitRequest(name=named("a")))
        for call in (
            stub.DeleteComputedTrait(pb.DeleteComputedTraitRequest(name=named("a"))),
            stub.GetComputedTrait(pb.GetComputedTraitRequest(name=named("a"))),
            stub.UpdateComputedTrait(pb.UpdateComputedTraitRequest(computed_trait=changed)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert errors.reason_of(caught.value) == errors.NOT_FOUND


async def test_what_is_refused(db: Database, redis: Redis, make_settings: MakeSettings) -> None:
    async with stubs_of(make_settings(Settings)) as (stub, _):
        for request, field in (
            (creation("Upper"), "computed_trait_id"),
            (creation("a", b""), "computed_trait.definition"),
            (creation("a", b"{"), "computed_trait.definition"),
            (creation("a", {**SPENT, "within": "3x"}), "computed_trait.definition.within"),
            (
                creation("a", {**SPENT, "where": [{"property": "v", "gt": "x"}]}),
                "computed_trait.definition.where[0].gt",
            ),
            (creation("a", display_name="x" * 201), "computed_trait.display_name"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.CreateComputedTrait(request)
            assert [v[0] for v in errors.field_violations(caught.value)] == [field]
        assert await db[COMPUTED_TRAITS].count_documents({}) == 0
        await stub.CreateComputedTrait(creation("spent"))
        await ready(stub, "spent")
        for mask in ("state", "name"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                trait = pb.ComputedTrait(name=named("spent"))
                await stub.UpdateComputedTrait(
                    pb.UpdateComputedTraitRequest(computed_trait=trait, update_mask=FieldMask(paths=[mask]))
                )
            assert [v[0] for v in errors.field_violations(caught.value)] == ["update_mask"]
        for name, profile, reason in (
            ("spent", f"{PARENT}/profiles/nobody", errors.NOT_FOUND),
            ("nothing", f"{PARENT}/profiles/nobody", errors.NOT_FOUND),
            ("spent", "workspaces/another/profiles/p1", errors.INVALID_ARGUMENT),
            ("spent", "p1", errors.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.VerifyComputedTrait(pb.VerifyComputedTraitRequest(name=named(name), profile=profile))
            assert errors.reason_of(caught.value) == reason
        await db[COMPUTED_TRAITS].update_one({}, {"$set": {"st": "filling", "lu": 2**62, "lo": "another replica"}})
        event = track("m1", now_us(), {"total": 1}, workspace_id=WORKSPACE)
        await Worker(db).process(WORKSPACE, [Incoming(event, "s", 0)])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            profile = f"{PARENT}/profiles/{profile_id(WORKSPACE, 'm1')}"
            await stub.VerifyComputedTrait(pb.VerifyComputedTraitRequest(name=named("spent"), profile=profile))
        assert errors.reason_of(caught.value) == errors.WRONG_STATE
