"""SourceService: sources as resources, their secrets, and how quickly a change takes effect."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from headrace_ingest.store import SOURCES

from headrace.api.ingest.v1 import source_service_pb2 as pb
from headrace.rpc import errors
from headrace.rpc.auth import Caller
from headrace.storage.mongo.client import Database
from tests.support.ingest import PARENT, Ingest, ingest_serving
from tests.support.settings import MakeSettings

_TRACK = {"userId": "u1", "event": "A"}


async def _refused(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_source_from_creation_to_deletion(ingest: Ingest) -> None:
    made = await ingest.source("web", allowed_origins=["HTTPS://Shop.example/"])
    assert made.name == f"{PARENT}/sources/web" and made.write_key.startswith("wk_") and not made.webhook_token
    assert list(made.allowed_origins) == ["https://shop.example"]
    assert (await ingest.sources.GetSource(pb.GetSourceRequest(name=made.name))).source == made
    stored = await ingest.db[SOURCES].find_one({})
    assert stored is not None and made.write_key not in str(stored), "the key is sealed"

    update = pb.UpdateSourceRequest(
        source=pb.Source(name=made.name, display_name="New", disabled=False, etag=made.etag),
        update_mask=FieldMask(paths=["display_name", "allowed_origins"]),
    )
    changed = (await ingest.sources.UpdateSource(update)).source
    assert (changed.display_name, list(changed.allowed_origins), changed.etag) == ("New", [], "2")
    assert errors.reason_of(await _refused(ingest.sources.UpdateSource(update))) == "ETAG_MISMATCH"

    await ingest.sources.DeleteSource(pb.DeleteSourceRequest(name=made.name))
    for call in (
        ingest.sources.GetSource(pb.GetSourceRequest(name=made.name)),
        ingest.sources.DeleteSource(pb.DeleteSourceRequest(name=made.name)),
        ingest.sources.UpdateSource(pb.UpdateSourceRequest(source=pb.Source(name=made.name, display_name="x"))),
    ):
        assert (await _refused(call)).code() == grpc.StatusCode.NOT_FOUND


async def test_wrong_requests_name_the_field(ingest: Ingest) -> None:
    await ingest.source("taken")
    hook = '{"kind": "identify", "identifiers": {"a": "["}}'
    wrong = [
        ("source_id", "Big", pb.Source(display_name="x", kind="http")),
        ("source.kind", "a", pb.Source(display_name="x", kind="fax")),
        ("source.display_name", "a", pb.Source(kind="http")),
        ("source.allowed_origins", "a", pb.Source(display_name="x", kind="http", allowed_origins=["shop.example"])),
        ("source.mapping", "a", pb.Source(display_name="x", kind="http", mapping="{}")),
        ("source.mapping", "a", pb.Source(display_name="x", kind="webhook", mapping='{"knd": "track"}')),
        ("source.mapping", "a", pb.Source(display_name="x", kind="webhook", mapping=hook)),
        ("source.mapping", "a", pb.Source(display_name="x", kind="webhook", mapping="{}")),
    ]
    for field, source_id, source in wrong:
        request = pb.CreateSourceRequest(parent=PARENT, source_id=source_id, source=source)
        error = await _refused(ingest.sources.CreateSource(request))
        assert [f for f, _ in errors.field_violations(error)] == [field]
    request = pb.CreateSourceRequest(parent=PARENT, source_id="taken", source=pb.Source(display_name="x", kind="http"))
    assert errors.reason_of(await _refused(ingest.sources.CreateSource(request))) == "ALREADY_EXISTS"
    kind = pb.UpdateSourceRequest(
        source=pb.Source(name=f"{PARENT}/sources/taken", kind="webhook"), update_mask=FieldMask(paths=["kind"])
    )
    assert [f for f, _ in errors.field_violations(await _refused(ingest.sources.UpdateSource(kind)))] == ["update_mask"]


async def test_a_repeated_call_has_the_same_answer(ingest: Ingest) -> None:
    request = pb.CreateSourceRequest(
        parent=PARENT, source_id="web", source=pb.Source(display_name="x", kind="http"), request_id=str(uuid.uuid4())
    )
    first = await ingest.sources.CreateSource(request)
    assert await ingest.sources.CreateSource(request) == first
    await ingest.db["request_ids"].delete_many({})  # as after a crash between the work and remembering it
    assert await ingest.sources.CreateSource(request) == first


async def test_what_is_remembered_for_repeats_holds_no_secret(ingest: Ingest) -> None:
    """A remembered answer is stored in the clear."""
    for kind in ("http", "webhook"):
        create = pb.CreateSourceRequest(
            parent=PARENT, source_id=kind, source=pb.Source(display_name="x", kind=kind), request_id=str(uuid.uuid4())
        )
        made = (await ingest.sources.CreateSource(create)).source
        update = pb.UpdateSourceRequest(
            source=pb.Source(name=made.name, display_name="y"), request_id=str(uuid.uuid4())
        )
        changed = [(await ingest.sources.UpdateSource(update)).source for _ in range(2)]
        secret = made.write_key or made.webhook_token
        assert [c.write_key or c.webhook_token for c in changed] == [secret] * 2
        remembered = [d async for d in ingest.db["request_ids"].find()]
        assert remembered and secret.encode() not in b"".join(bytes(d["b"]) for d in remembered)
        await ingest.sources.DeleteSource(pb.DeleteSourceRequest(name=made.name))
        assert not (await ingest.sources.CreateSource(create)).source.write_key, "what is gone has no key to show"


async def test_with_another_master_key_sources_work_and_only_their_secrets_cannot_be_shown(
    ingest: Ingest, make_settings: MakeSettings, db: Database
) -> None:
    made = await ingest.source("web")
    key = base64.b64encode(bytes(32)).decode()
    async with ingest_serving(make_settings, db, master_key=key) as other:
        (listed,) = (await other.sources.ListSources(pb.ListSourcesRequest(parent=PARENT))).sources
        assert (listed.name, listed.write_key) == (made.name, "")
        assert await other.post("/v1/track", _TRACK, made.write_key) == (200, {"success": True})


async def test_pages(ingest: Ingest) -> None:
    for name in "edcba":
        await ingest.source(name)
    found, token = [], ""
    for _ in range(3):
        request = pb.ListSourcesRequest(parent=PARENT, page_size=2, page_token=token)
        page = await ingest.sources.ListSources(request)
        found += [s.display_name for s in page.sources]
        token = page.next_page_token
    assert found == list("abcde") and token == ""
    other = pb.ListSourcesRequest(parent="workspaces/other", page_token="x")
    assert errors.reason_of(await _refused(ingest.sources.ListSources(other))) == "INVALID_PAGE_TOKEN"


async def test_who_may_see_secrets(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write key may only send; a reader sees no secrets; another workspace sees nothing."""
    from headrace_ingest.auth import WriteKeyAuthenticator

    made = await ingest.source()
    callers = {
        "reader": Caller("shop", frozenset({"sources:read"})),
        "other": Caller("other", frozenset({"*"})),
        "writer": Caller("shop", frozenset({"sources:read", "sources:write"})),
    }
    real = WriteKeyAuthenticator.authenticate

    async def authenticate(self: WriteKeyAuthenticator, secret: str) -> Caller | None:
        return callers.get(secret) or await real(self, secret)

    monkeypatch.setattr(WriteKeyAuthenticator, "authenticate", authenticate)

    async def get(token: str) -> pb.Source:
        request = pb.GetSourceRequest(name=made.name)
        answer = await ingest.sources.GetSource(request, metadata=[("authorization", f"Bearer {token}")])
        return pb.Source.FromString(answer.source.SerializeToString())

    assert (await get("writer")).write_key == made.write_key
    assert (await get("reader")).write_key == ""
    for token, reason in ((made.write_key, "SCOPE_MISSING"), ("other", "WORKSPACE_MISMATCH"), ("x", "UNAVAILABLE")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get(token)
        if reason != "UNAVAILABLE":
            assert errors.reason_of(caught.value) == reason


async def test_a_change_reaches_the_other_replica_within_the_age_of_its_cache(
    make_settings: MakeSettings, db: Database
) -> None:
    import asyncio

    async with (
        ingest_serving(make_settings, db, source_cache_seconds=0.2) as one,
        ingest_serving(make_settings, db, source_cache_seconds=0.2) as two,
    ):
        source = await one.source()
        for replica in (one, two):
            assert (await replica.post("/v1/track", _TRACK, source.write_key))[0] == 200
        await one.sources.UpdateSource(pb.UpdateSourceRequest(source=pb.Source(name=source.name, disabled=True)))
        assert (await one.post("/v1/track", _TRACK, source.write_key))[0] == 403
        await asyncio.sleep(0.25)
        assert (await two.post("/v1/track", _TRACK, source.write_key))[0] == 403
