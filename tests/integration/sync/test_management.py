"""Destinations and syncs over gRPC: checked, sealed, masked, paged, apart between workspaces."""

from __future__ import annotations

import json
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.rpc.errors import error_info, field_violations, reason_of
from headrace.storage.mongo.client import Database
from tests.support import sync as support
from tests.support.sync import PARENT, Api, Others

PLUGINS = "webhook,meta-audience"
URL = "https://receiver.example/hook"
FORWARDING, EVENT, LIST = SyncKind.SYNC_KIND_FORWARDING, SyncKind.SYNC_KIND_EVENT, SyncKind.SYNC_KIND_LIST


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def get(api: Api, name: str) -> dest.Destination:
    answer: dest.GetDestinationResponse = await api.destinations.GetDestination(dest.GetDestinationRequest(name=name))
    return answer.destination


async def test_destinations_from_making_to_deleting(serve: Any, db: Database) -> None:
    async with serve() as api:
        secret = "a-secret-that-nobody-may-see"  # of no real receiver
        name = await api.destination("hook", URL, signing_secret=secret)
        made = await get(api, name)
        assert made.state == dest.DestinationState.DESTINATION_STATE_ACTIVE
        assert json.loads(made.settings)["signing_secret"] == "********"
        stored = await db["destinations"].find_one({})
        assert secret not in str(stored)

        # The mask keeps the secret; another URL is taken; a wrong etag is not.
        settings = {**json.loads(made.settings), "url": f"{URL}/2"}
        changed = dest.Destination(name=name, settings=json.dumps(settings), display_name="Renamed", etag=made.etag)
        update = dest.UpdateDestinationRequest(destination=changed, update_mask=FieldMask(paths=["settings"]))
        answer = (await api.destinations.UpdateDestination(update)).destination
        assert json.loads(answer.settings)["url"] == f"{URL}/2"
        assert answer.display_name == "hook"  # not in the mask
        error = await refused(api.destinations.UpdateDestination(update))
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")

        paused = dest.Destination(name=name, state=dest.DestinationState.DESTINATION_STATE_PAUSED)
        answer = (
            await api.destinations.UpdateDestination(dest.UpdateDestinationRequest(destination=paused))
        ).destination
        assert answer.state == dest.DestinationState.DESTINATION_STATE_PAUSED

        sync = await api.forwarding("all", name)
        error = await refused(api.destinations.DeleteDestination(dest.DeleteDestinationRequest(name=name)))
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "IN_USE")
        info = error_info(error)
        assert info is not None
        assert info.metadata["used_by"] == sync
        await api.syncs.DeleteSync(pb.DeleteSyncRequest(name=sync))
        await api.destinations.DeleteDestination(dest.DeleteDestinationRequest(name=name))
        assert (await refused(get(api, name))).code() == grpc.StatusCode.NOT_FOUND


async def test_settings_are_checked_by_the_plugin(serve: Any) -> None:
    async with serve() as api:
        cases: list[tuple[str, dict[str, Any], str]] = [
            ("", {}, "url"),
            ("not an address", {}, "url"),
            (URL, {"colour": "red"}, "colour"),
            (URL, {"batch_size": 0}, "batch_size"),
            (URL, {"signing_secret": "********"}, "signing_secret"),
        ]
        for url, settings, field in cases:
            error = await refused(api.destination("hook", url, **settings))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            violations = field_violations(error)
            assert any(field in f"{name} {text}" for name, text in violations), (settings, violations)
        error = await refused(api.destination("hook", "not an address", colour="red", batch_size=0, method="GET"))
        named = [name for name, _ in field_violations(error)]
        assert sorted(named) == [f"destination.settings.{name}" for name in ("batch_size", "colour", "method", "url")]
        error = await refused(api.destination("hook", URL, connector="carrier-pigeon"))
        assert "webhook" in (error.details() or "")
        error = await refused(api.destination("Not An Id", URL))
        assert field_violations(error)[0][0] == "destination_id"
        listed = await api.destinations.ListDestinations(dest.ListDestinationsRequest(parent=PARENT))
        assert not listed.destinations


async def test_a_repeated_creation_gives_the_first_answer(serve: Any, db: Database) -> None:
    async with serve() as api:
        request = dest.CreateDestinationRequest(
            parent=PARENT,
            destination_id="hook",
            destination=dest.Destination(display_name="H", connector="webhook", settings=json.dumps({"url": URL})),
            request_id=str(uuid.uuid4()),
        )
        first = await api.destinations.CreateDestination(request)
        assert await api.destinations.CreateDestination(request) == first
        await db["request_ids"].delete_many({})  # as after a crash before the answer was remembered
        assert (await api.destinations.CreateDestination(request)).destination.name == first.destination.name
        request.request_id = str(uuid.uuid4())
        assert (await refused(api.destinations.CreateDestination(request))).code() == grpc.StatusCode.ALREADY_EXISTS


async def test_syncs_are_checked_against_their_connector(serve: Any, others: Others) -> None:
    async with serve() as api:
        hook = await api.destination("hook", URL)
        audience = support.AUDIENCE
        cases: list[tuple[dict[str, Any], str]] = [
            ({"destination": hook, "kind": SyncKind.SYNC_KIND_UNSPECIFIED}, "sync.kind"),
            ({"destination": hook, "kind": LIST, "audience": audience}, "sync.kind"),
            ({"destination": hook, "kind": EVENT}, "sync.audience"),
            ({"destination": hook, "kind": EVENT, "audience": f"{PARENT}/audiences/nobody"}, "sync.audience"),
            ({"destination": hook, "kind": EVENT, "audience": "workspaces/other/audiences/buyers"}, "sync.audience"),
            ({"destination": hook, "kind": EVENT, "audience": support.ACCOUNTS}, "sync.audience"),
            ({"destination": hook, "kind": FORWARDING, "audience": audience}, "sync.audience"),
            ({"destination": f"{PARENT}/destinations/none", "kind": FORWARDING}, "sync.destination"),
            ({"destination": hook, "kind": FORWARDING, "mapping": '{"colour": "profile.id"}'}, "sync.mapping.colour"),
            ({"destination": hook, "kind": FORWARDING, "mapping": "{"}, "sync.mapping"),
            ({"destination": hook, "kind": FORWARDING, "send_removals": True}, "sync.send_removals"),
            ({"destination": hook, "kind": FORWARDING, "event_names": ["", "a"]}, "sync.event_names"),
        ]
        for wrong, field in cases:
            error = await refused(api.sync("s", **wrong))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, wrong
            assert field_violations(error)[0][0] == field, wrong
        await api.sync("s", hook, EVENT, audience=audience, send_removals=True)
        sync = (await api.syncs.GetSync(pb.GetSyncRequest(name=f"{PARENT}/syncs/s"))).sync
        assert (sync.audience, sync.destination, sync.send_removals) == (audience, hook, True)
        run = await refused(api.syncs.RunSync(pb.RunSyncRequest(name=sync.name)))
        assert reason_of(run) == "WRONG_STATE"
        update = pb.UpdateSyncRequest(
            sync=pb.Sync(name=sync.name, kind=FORWARDING), update_mask=FieldMask(paths=["kind"])
        )
        assert field_violations(await refused(api.syncs.UpdateSync(update)))[0][0] == "update_mask"


async def test_pages_and_their_tokens(serve: Any) -> None:
    async with serve() as api:
        hook = await api.destination("hook", URL)
        names = [await api.forwarding(f"s{n}", hook) for n in range(5)]
        found: list[str] = []
        token = ""
        while True:
            page = await api.syncs.ListSyncs(pb.ListSyncsRequest(parent=PARENT, page_size=2, page_token=token))
            found += [sync.name for sync in page.syncs]
            token = page.next_page_token
            if not token:
                break
        assert found == names
        error = await refused(api.syncs.ListSyncs(pb.ListSyncsRequest(parent=PARENT, page_token="made-up")))
        assert reason_of(error) == "INVALID_PAGE_TOKEN"


async def test_deliveries_are_paged_newest_first(serve: Any, hooks: support.Hooks, line: support.Line) -> None:
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        ids = await line.send_new(7)
        await support.settled(api, sync)
        found: list[str] = []
        request = pb.ListDeliveriesRequest(parent=PARENT, page_size=3)
        while True:
            page = await api.syncs.ListDeliveries(request)
            found += [delivery.message_id for delivery in page.deliveries]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert sorted(found) == sorted(ids)


async def test_connectors_are_listed(serve: Any) -> None:
    async with serve() as api:
        answer = await api.destinations.ListConnectors(dest.ListConnectorsRequest(parent=PARENT))
        found = {connector.name: connector for connector in answer.connectors}
        assert set(found) >= {"webhook", "meta-audience"}
        assert list(found["meta-audience"].capabilities) == ["check", "deletion", "list_sync", "lists"]
        assert {"email", "phone"} <= {field.name for field in found["meta-audience"].fields}
        assert json.loads(found["webhook"].settings_schema)["properties"]["url"]
        assert not found["webhook"].error


async def test_nothing_without_credentials(serve: Any) -> None:
    async with serve() as api, support.api(api.address, "wrong-token") as stranger:
        error = await refused(stranger.syncs.ListSyncs(pb.ListSyncsRequest(parent=PARENT)))
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED
