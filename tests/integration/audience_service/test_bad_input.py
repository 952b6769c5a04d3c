"""Definitions that are none, over gRPC: each is refused by its place, in a clear and short sentence."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import grpc
import pytest
from headrace_audience.settings import Settings

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.audience.v1.audience_pb2 import Audience
from headrace.rpc import errors
from headrace.storage.mongo.client import Database
from tests.support.audience import COUNT, QUICK, AudienceClient, serving_audience
from tests.support.bad_definitions import BAD
from tests.support.settings import MakeSettings


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


async def test_each_is_refused_by_its_place(client: AudienceClient) -> None:
    await client.create("there", COUNT)
    await client.create("gone", COUNT)
    await client.delete("gone")
    await client.create("bad", COUNT)
    for what, (definition, place, said) in BAD.items():
        update = pb.UpdateAudienceRequest(audience=Audience(name=client.name("bad"), definition=definition))
        preview = pb.PreviewAudienceRequest(parent=client.parent, definition=definition)
        calls = [(client.stub.UpdateAudience(update), "audience.definition")]
        if "circle" not in said:  # a preview has no id
            calls.append((client.stub.PreviewAudience(preview), "definition"))
        for call, field in calls:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert errors.reason_of(refused.value) == errors.INVALID_ARGUMENT, (what, refused.value.details())
            ((found, description),) = errors.field_violations(refused.value)
            assert said in description, (what, description)
            assert len(found) < 1_100 and len(description) < 1_100, what
            assert found == field + place or what.startswith("a long key of"), (what, found)
    assert json.loads((await client.get("bad")).definition) == COUNT


async def test_people_in_place_of_groups_are_refused_by_the_place(client: AudienceClient) -> None:
    await client.create("there", COUNT)
    wrong = {"of": "groups", "where": {"all": [{"trait": "plan", "eq": 1}, {"audience": "there"}]}}
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.create("accounts", wrong)
    field, description = errors.field_violations(refused.value)[0]
    assert field == "audience.definition.where.all[1].audience"
    assert description == "audience 'there' is of people; here one of groups is needed"


async def test_a_mark_in_front_is_no_part_of_a_definition(client: AudienceClient) -> None:
    for number, definition in enumerate(("\ufeff" + json.dumps(COUNT), "\ufeffperformed Purchased")):
        made = await client.create(f"marked-{number}", definition)
        assert json.loads(made.definition) == COUNT


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "x" * 201, "\u202eback", " \t "])
async def test_names_for_people(client: AudienceClient, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.create("named", COUNT, display_name=name)
    ((field, _),) = errors.field_violations(refused.value)
    assert field == "audience.display_name"
    assert (await client.create("named", COUNT, display_name="  Käufer ")).display_name == "Käufer"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.create("-dash", COUNT)
    assert errors.field_violations(refused.value)[0][0] == "audience_id"
