"""Mappings checked against real people: readiness by field, proposals, and what is refused when a sync is saved."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.rpc import errors
from tests.support import sync as support
from tests.support.sync import Others

PLUGINS = "meta-audience"


async def check(api: support.Api, name: str, **more: Any) -> dest.CheckMappingResponse:
    return await api.destinations.CheckMapping(dest.CheckMappingRequest(name=name, **more), timeout=60)


async def test_a_mapping_is_checked_against_people(serve: Any, others: Others) -> None:
    others.people.put("p1", email="p1@example.com", mobile="+919876543210", given_name="Ada")
    others.people.put("p2", email="no address", mobile="+919876543211")
    others.people.put("p3", plan="gold")
    others.people.say("p1", ad_user_data=True)
    others.buyers.change("p1", True)
    async with serve() as api:
        name = await api.destination(
            "meta",
            "",
            connector="meta-audience",
            audience_id="1234567890",
            access_token="t" * 20,
            required_consents=["ad_user_data"],
        )
        found = await check(api, name)
        fields = {one.name: one for one in found.fields}
        assert (found.sampled, found.problem) == (3, "")
        email = fields["email"]
        assert (email.given, email.usable, email.consented, email.wrong_type) == (2, 1, 1, 0)
        phone = fields["phone"]
        assert (phone.given, phone.proposal, phone.proposal_given) == (0, "profile.traits.mobile", 2)
        assert "p1@example.com" not in str(found)

        mapped = await check(
            api, name, mapping=json.dumps({"phone": "profile.traits.mobil"}), audience=support.AUDIENCE
        )
        phone = next(one for one in mapped.fields if one.name == "phone")
        assert mapped.sampled == 1
        assert list(phone.remarks) == ["nobody of those looked at has traits.mobil; did you mean mobile?"]
        wrong = await check(api, name, mapping=json.dumps({"emial": "profile.traits.email"}))
        assert "did you mean email?" in wrong.problem
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await check(api, name, audience=f"{support.PARENT}/audiences/ghost")
        assert errors.reason_of(refused.value) == errors.NOT_FOUND


async def test_a_sync_with_values_of_a_wrong_type_is_refused(serve: Any, others: Others) -> None:
    others.people.put("p1", email="p1@example.com", address={"city": "Pune"})
    others.buyers.change("p1", True)
    async with serve() as api:
        name = await api.destination(
            "meta", "", connector="meta-audience", audience_id="1234567890", access_token="t" * 20
        )
        for mapping, field in (
            ({"city": "profile.traits.address"}, "sync.mapping.city"),
            ({"emial": "profile.traits.email"}, "sync.mapping.emial"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await api.sync(
                    "s", name, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE, mapping=json.dumps(mapping)
                )
            assert errors.reason_of(refused.value) == errors.INVALID_ARGUMENT
            assert field in str(refused.value.details())
        right = json.dumps({"city": "profile.traits.address.city", "zip": "profile.traits.nobody_has_it_yet"})
        await api.sync("s", name, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE, mapping=right)
