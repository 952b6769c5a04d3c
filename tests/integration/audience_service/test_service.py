"""AudienceService over gRPC: resources, errors, etags, repeated calls, pages, credentials."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from headrace_audience.calls.handlers import Audiences
from headrace_audience.calls.servicer import AudienceServicer
from headrace_audience.settings import Settings

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.audience.v1.audience_pb2 import (
    AUDIENCE_STATE_ACTIVE,
    AUDIENCE_STATE_DRAFT,
    AUDIENCE_STATE_FILLING,
    AUDIENCE_STATE_PAUSED,
    Audience,
)
from headrace.rpc import auth, errors
from headrace.rpc.errors import ApiError
from headrace.storage.mongo.client import Client, Database
from tests.support.audience import COUNT, QUICK, AudienceClient, NoComputedTraits, eventually, serving_audience
from tests.support.settings import MakeSettings


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


async def refused(call: object, reason: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # any awaitable
    assert errors.reason_of(caught.value) == reason, caught.value.details()
    return caught.value


async def test_life_of_an_audience(client: AudienceClient) -> None:
    made = await client.create("buyers", COUNT, display_name="Buyers")
    assert made.name == "workspaces/acme/audiences/buyers"
    assert (made.state, made.size, made.display_name) == (AUDIENCE_STATE_DRAFT, 0, "Buyers")
    assert made.etag and made.create_time.seconds and not made.HasField("activate_time")
    await refused(client.create("buyers", COUNT), errors.ALREADY_EXISTS)
    await refused(client.pause("buyers"), errors.WRONG_STATE)
    await refused(client.verify("buyers"), errors.WRONG_STATE)

    assert (await client.activate("buyers")).state in (AUDIENCE_STATE_FILLING, AUDIENCE_STATE_ACTIVE)
    await client.active("buyers")
    assert (await client.activate("buyers")).state == AUDIENCE_STATE_ACTIVE, "activating again changes nothing"
    assert (await client.pause("buyers")).state == AUDIENCE_STATE_PAUSED
    assert (await client.pause("buyers")).state == AUDIENCE_STATE_PAUSED
    await client.delete("buyers")
    await refused(client.get("buyers"), errors.NOT_FOUND)
    await refused(client.delete("buyers"), errors.NOT_FOUND)
    await refused(client.members("buyers"), errors.NOT_FOUND)


async def test_definition_errors_name_the_place(client: AudienceClient) -> None:
    async def violation(definition: object) -> tuple[str, str]:
        text = definition if isinstance(definition, str) else json.dumps(definition)
        error = await refused(client.create("x", text), errors.INVALID_ARGUMENT)
        ((field, description),) = errors.field_violations(error)
        return field, description

    assert (await violation(""))[0] == "audience.definition"
    assert (await violation("{"))[0] == "audience.definition"
    assert (await violation({"where": {"event": "A"}, "wher": 1}))[0] == "audience.definition.wher"
    field, description = await violation({"where": {"all": [{"event": "A"}, {"event": "A", "within": "30x"}]}})
    assert field == "audience.definition.where.all[1].within" and "30x" in description
    field, description = await violation({"where": {"any": [{"event": "A"}, {"not": {"audience": "ghost"}}]}})
    assert field == "audience.definition.where.any[1].not.audience" and "ghost" in description
    await client.create("gone", COUNT)
    await client.delete("gone")
    field, description = await violation({"where": {"not": {"audience": "gone"}}})
    assert (field, description) == (
        "audience.definition.where.not.audience",
        "there is no audience 'gone' in this workspace",
    )
    assert (await violation({"where": {"audience": "x"}}))[0].startswith("audience.definition.where")

    error = await refused(client.create("x", COUNT, display_name=" "), errors.INVALID_ARGUMENT)
    assert errors.field_violations(error)[0][0] == "audience.display_name"
    error = await refused(client.create("No Id", COUNT), errors.INVALID_ARGUMENT)
    assert errors.field_violations(error)[0][0] == "audience_id"
    preview = pb.PreviewAudienceRequest(parent=client.parent, definition='{"where": {"evnt": 1}}')
    error = await refused(client.stub.PreviewAudience(preview), errors.INVALID_ARGUMENT)
    assert errors.field_violations(error)[0][0] == "definition.where"
    preview = pb.PreviewAudienceRequest(parent=client.parent, definition='{"where": {"audience": "ghost"}}')
    error = await refused(client.stub.PreviewAudience(preview), errors.INVALID_ARGUMENT)
    assert errors.field_violations(error)[0][0] == "definition.where.audience"


async def test_a_definition_in_text_form_is_stored_as_json(client: AudienceClient) -> None:
    made = await client.create("a", 'performed "Product viewed" in last 90d and not performed Purchased')
    viewed = {"event": "Product viewed", "within": "90d"}
    assert json.loads(made.definition) == {"where": {"all": [viewed, {"not": {"event": "Purchased"}}]}}
    await client.update("a", "performed Viewed")
    assert json.loads((await client.get("a")).definition) == {"where": {"event": "Viewed"}}
    preview = pb.PreviewAudienceRequest(parent=client.parent, definition="performed Purchased")
    assert (await client.stub.PreviewAudience(preview)).size == 0
    error = await refused(client.create("x", "performed Viewed in last 30"), errors.INVALID_ARGUMENT)
    ((field, description),) = errors.field_violations(error)
    assert field == "audience.definition"
    assert description == "line 1, column 26: '30' is not expected here; expected a duration such as 30d"


async def test_names_are_unique(client: AudienceClient) -> None:
    await client.create("a", COUNT, display_name="Buyers")
    error = await refused(client.create("b", COUNT, display_name=" buyers"), errors.INVALID_ARGUMENT)
    assert errors.field_violations(error) == [
        ("audience.display_name", "is the name of workspaces/acme/audiences/a already")
    ]
    for same in ("BUY\u200bERS", "\uff22uyers", "Buyers\u00a0"):
        await refused(client.create("b", COUNT, display_name=same), errors.INVALID_ARGUMENT)
    await client.create("b", COUNT, display_name="Others")
    rename = pb.UpdateAudienceRequest(audience=Audience(name=client.name("b"), display_name="BUYERS"))
    await refused(client.stub.UpdateAudience(rename), errors.INVALID_ARGUMENT)
    await client.delete("a")
    assert (await client.stub.UpdateAudience(rename)).audience.display_name == "BUYERS"
    other = AudienceClient(client.stub, "other")
    await other.create("a", COUNT, display_name="BUYERS")


async def test_two_at_once_cannot_take_one_name(client: AudienceClient) -> None:
    made = await asyncio.gather(
        *(client.create(f"a{i}", COUNT, display_name="Same") for i in range(5)), return_exceptions=True
    )
    assert sum(1 for one in made if isinstance(one, Audience)) == 1


async def test_references_cannot_be_closed_to_a_circle_nor_cut(client: AudienceClient) -> None:
    await client.create("a", COUNT)
    await client.create("b", {"where": {"audience": "a"}})
    await client.create("c", {"where": {"all": [{"audience": "b"}, {"not": {"audience": "a"}}]}})
    error = await refused(client.update("a", {"where": {"audience": "c"}}), errors.INVALID_ARGUMENT)
    assert "circle" in (error.details() or "")
    error = await refused(client.delete("a"), errors.IN_USE)
    info = errors.error_info(error)
    assert info is not None and info.metadata["used_by"] == "workspaces/acme/audiences/b, workspaces/acme/audiences/c"
    await client.delete("c")
    await client.delete("b")
    await client.delete("a")


async def test_two_changes_at_once_cannot_close_a_circle(client: AudienceClient) -> None:
    for turn in range(5):
        one, two = f"one-{turn}", f"two-{turn}"
        await client.create(one, COUNT)
        await client.create(two, COUNT)
        results = await asyncio.gather(
            client.update(one, {"where": {"audience": two}}),
            client.update(two, {"where": {"audience": one}}),
            return_exceptions=True,
        )
        assert sum(isinstance(r, grpc.aio.AioRpcError) for r in results) == 1


async def test_update_takes_masks_and_etags(client: AudienceClient) -> None:
    made = await client.create("buyers", COUNT)
    named = Audience(name=made.name, display_name="New", definition='{"where": {"event": "B"}}', etag=made.etag)

    async def update(audience: Audience, *paths: str) -> Audience:
        mask = FieldMask(paths=paths) if paths else None
        answer = await client.stub.UpdateAudience(pb.UpdateAudienceRequest(audience=audience, update_mask=mask))
        result: Audience = answer.audience
        return result

    changed = await update(named, "display_name")
    assert changed.display_name == "New" and json.loads(changed.definition) == COUNT
    assert changed.etag != made.etag
    await refused(update(named, "display_name"), errors.ETAG_MISMATCH)
    error = await refused(update(Audience(name=made.name), "state"), errors.INVALID_ARGUMENT)
    assert errors.field_violations(error)[0][0] == "update_mask"
    error = await refused(update(Audience(name=made.name), "definition"), errors.INVALID_ARGUMENT)
    assert errors.field_violations(error)[0][0] == "audience.definition"
    both = await update(Audience(name=made.name, display_name="Both", definition='{"where": {"event": "C"}}'))
    assert (both.display_name, both.definition) == ("Both", '{"where": {"event": "C"}}')
    await refused(update(Audience(name=client.name("nobody"), display_name="x")), errors.NOT_FOUND)
    await refused(update(Audience(name="workspaces/acme/audience/x", display_name="x")), errors.INVALID_ARGUMENT)


async def test_repeated_calls_are_carried_out_once(client: AudienceClient, db: Database) -> None:
    request_id = str(uuid.uuid4())
    first = await client.create("buyers", COUNT, request_id=request_id)
    assert await client.create("buyers", COUNT, request_id=request_id) == first
    await db["request_ids"].delete_many({})  # a crash between the insert and remembering the answer
    assert await client.create("buyers", COUNT, request_id=request_id) == first
    await refused(client.create("buyers", COUNT, request_id=str(uuid.uuid4())), errors.ALREADY_EXISTS)
    await refused(client.create("other", COUNT, request_id=request_id), errors.INVALID_ARGUMENT)
    await refused(client.create("other", COUNT, request_id="7"), errors.INVALID_ARGUMENT)

    delete = pb.DeleteAudienceRequest(name=client.name("buyers"), request_id=str(uuid.uuid4()))
    await client.stub.DeleteAudience(delete)
    await client.stub.DeleteAudience(delete)


async def test_listing_in_pages(client: AudienceClient) -> None:
    for audience_id in ("c", "a", "b"):
        await client.create(audience_id, COUNT)
    listing = pb.ListAudiencesRequest(parent=client.parent, page_size=2)
    page = await client.stub.ListAudiences(listing)
    assert [a.name.rpartition("/")[2] for a in page.audiences] == ["a", "b"]
    listing.page_token = page.next_page_token
    rest = await client.stub.ListAudiences(listing)
    assert [a.name.rpartition("/")[2] for a in rest.audiences] == ["c"] and not rest.next_page_token
    other = pb.ListAudiencesRequest(parent="workspaces/other", page_token=page.next_page_token)
    await refused(client.stub.ListAudiences(other), errors.INVALID_PAGE_TOKEN)
    await refused(client.stub.ListAudiences(pb.ListAudiencesRequest(parent="acme")), errors.INVALID_ARGUMENT)


async def test_workspaces_are_apart(client: AudienceClient, db: Database) -> None:
    other = AudienceClient(client.stub, "other")
    await client.create("buyers", COUNT)
    await refused(other.get("buyers"), errors.NOT_FOUND)
    await refused(other.create("x", {"where": {"audience": "buyers"}}), errors.INVALID_ARGUMENT)
    await other.create("buyers", COUNT)
    await client.delete("buyers")
    assert (await other.get("buyers")).name == "workspaces/other/audiences/buyers"


async def test_calls_need_credentials_of_the_workspace_and_its_scope(mongo: Client, db: Database) -> None:
    others: list[Any] = [None] * 9  # not reached
    servicer = AudienceServicer(Audiences(mongo, db, NoComputedTraits(), 4), *others)
    reader = auth.Caller("acme", frozenset({"audiences:read"}))
    with auth.acting_as(reader), pytest.raises(ApiError) as caught:
        await servicer.DeleteAudience(pb.DeleteAudienceRequest(name="workspaces/acme/audiences/a"), None)
    assert caught.value.reason == errors.SCOPE_MISSING
    with auth.acting_as(reader), pytest.raises(ApiError) as caught:
        await servicer.GetAudience(pb.GetAudienceRequest(name="workspaces/other/audiences/a"), None)
    assert caught.value.reason == errors.WORKSPACE_MISMATCH
    with auth.acting_as(reader), pytest.raises(ApiError) as caught:
        await servicer.GetAudience(pb.GetAudienceRequest(name="workspaces/acme/audiences/a"), None)
    assert caught.value.reason == errors.NOT_FOUND


async def test_deleting_goes_on_with_versions(client: AudienceClient, db: Database) -> None:
    await client.start("buyers", COUNT)
    await client.delete("buyers")

    async def can_be_made_again() -> bool:
        try:
            await client.create("buyers", COUNT)
        except grpc.aio.AioRpcError as error:
            assert errors.reason_of(error) == errors.WRONG_STATE
            return False
        return True

    await eventually(can_be_made_again)
    assert (await client.get("buyers")).state == AUDIENCE_STATE_DRAFT
