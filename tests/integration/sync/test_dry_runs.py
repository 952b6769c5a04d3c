"""Dry runs of syncs with the real Meta and webhook plugins: exactly what the run then does, and nothing sent before."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from headrace.api.sync.v1 import plan_pb2 as plan
from headrace.api.sync.v1.sync_service_pb2 import Sync, SyncKind, UpdateSyncRequest
from headrace.storage.mongo.client import Database
from tests.support import sync as support
from tests.support.fake_meta import FakeMeta
from tests.support.sync import Hooks, Line, Others

PLUGINS = "webhook,meta-audience,meta-conversions"
ADD, UPDATE = plan.PLANNED_OPERATION_ADD, plan.PLANNED_OPERATION_UPDATE
REMOVE, RESEND = plan.PLANNED_OPERATION_REMOVE, plan.PLANNED_OPERATION_RESEND
SEND, SKIP = plan.PLANNED_OPERATION_SEND, plan.PLANNED_OPERATION_SKIP


async def dry_run(api: support.Api, name: str, **more: Any) -> plan.DryRunSyncResponse:
    """All pages of a dry run."""
    found, token = plan.DryRunSyncResponse(), ""
    while True:
        page = await api.syncs.DryRunSync(plan.DryRunSyncRequest(name=name, page_token=token, **more))
        unchanged = found.unchanged + page.unchanged
        token = page.next_page_token
        found.MergeFrom(page)
        found.unchanged = unchanged
        if not token:
            return found


def operations(found: plan.DryRunSyncResponse) -> dict[str, int]:
    return {change.profile_id: change.operation for change in found.changes}


async def test_a_list_is_shown_before_and_after_it_is_sent(serve: Any, meta: FakeMeta, others: Others) -> None:
    for id in ("p1", "p2", "p3"):
        others.people.put(id, email=f"{id}@example.com")
        others.buyers.change(id, True)
    others.people.put("p4", plan="no way to reach this one")
    others.buyers.change("p4", True)
    async with serve() as api:
        destination = await api.destination(
            "meta", "", connector="meta-audience", audience_id="1234567890", access_token=meta.token, base_url=meta.url
        )
        sync = await api.sync("buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE, paused=True)
        before = await dry_run(api, sync, page_size=2)
        assert operations(before) == {"p1": ADD, "p2": ADD, "p3": ADD, "p4": SKIP}
        (skipped,) = [change for change in before.changes if change.operation == SKIP]
        assert skipped.reason
        assert before.audience_size == 4
        shown = [json.loads(request.body) for request in before.requests]
        assert [list(request.profile_ids) for request in before.requests] == [["p1", "p2"], ["p3"]]
        assert meta.token not in str(before)
        assert not meta.requests

        await api.syncs.UpdateSync(
            UpdateSyncRequest(sync=Sync(name=sync, paused=False), update_mask=FieldMask(paths=["paused"]))
        )
        await support.until(lambda: len(meta.rows.get("1234567890", ())) == 3, "sent")
        await support.settled(api, sync)
        sent = [row for _, _, body in meta.requests for row in body["payload"]["data"]]
        assert sorted(sent) == sorted(row for body in shown for row in body["payload"]["data"])

        after = await dry_run(api, sync)
        assert (after.unchanged, operations(after), list(after.requests)) == (3, {"p4": SKIP}, [])
        again = await dry_run(api, sync, full=True)
        assert operations(again) == {"p1": RESEND, "p2": RESEND, "p3": RESEND, "p4": SKIP}

        others.people.put("p1", email="new@example.com")
        others.buyers.change("p2", False)
        changed = await dry_run(api, sync, page_size=1)
        assert operations(changed) == {"p1": UPDATE, "p2": REMOVE, "p4": SKIP}
        assert {request.method for request in changed.requests} == {"POST", "DELETE"}
    assert not meta.violations


async def test_an_event_sync_shows_who_is_not_told_yet(serve: Any, hooks: Hooks, others: Others, db: Database) -> None:
    for id in ("p1", "p2"):
        others.people.put(id, email=f"{id}@example.com")
        others.buyers.change(id, True)
    async with serve() as api:
        destination = await api.destination("hook", hooks.url)
        sync = await api.sync("tell", destination, SyncKind.SYNC_KIND_EVENT, audience=support.AUDIENCE)
        await support.until(lambda: len(hooks.accepted) == 2, "the first members are told")
        others.people.put("p3", email="p3@example.com")
        others.buyers.change("p3", True)  # told to nobody yet
        found = await dry_run(api, sync, page_size=2)
        assert (operations(found), found.unchanged) == ({"p3": SEND}, 2)
        (request,) = found.requests
        assert list(request.profile_ids) == ["p3"]
        assert json.loads(request.body)["name"] == "added_to_segment"
        assert "p3" not in str(hooks.bodies)

        forwarding = await api.forwarding("all", destination)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await dry_run(api, forwarding)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_forwarding_of_an_event_or_of_a_person_is_shown_and_explained(
    serve: Any, hooks: Hooks, line: Line, others: Others
) -> None:
    others.people.put("p1", email="ada@example.com")
    others.people.say("p1", analytics_storage=True)
    others.people.put("p2", email="bo@example.com")
    async with serve() as api:
        destination = await api.destination(
            "conversions",
            "",
            connector="meta-conversions",
            pixel_id="123456",
            access_token="a-token-for-tests",
            action_source="system_generated",
            base_url=hooks.url,
            required_consents=["analytics_storage"],
        )
        sync = await api.forwarding("all", destination, event_names=["Purchased", "Search made"], paused=True)
        (bought,) = await line.send_new(1, "Purchased", properties={"value": 19.9, "currency": "EUR"})
        (searched,) = await line.send_new(1, "Search made")
        (other,) = await line.send_new(1, "Something else")
        (unasked,) = await line.send_new(1, "Purchased", profile_id="p2")

        async def run(**more: Any) -> plan.DryRunSyncResponse:
            answer: plan.DryRunSyncResponse = await api.syncs.DryRunSync(plan.DryRunSyncRequest(name=sync, **more))
            return answer

        shown = await run(message_id=bought)
        (change,) = shown.changes
        assert change.operation == plan.PLANNED_OPERATION_SEND
        assert (change.message_id, change.event_name, change.profile_id) == (bought, "Purchased", "p1")
        filled = {one.name: (one.expression, one.value) for one in change.fields}
        assert "ada@example.com" in filled["email"][1] and all(expression for expression, _ in filled.values())
        assert [(one.purpose, one.status) for one in change.consents] == [("analytics_storage", 1)]
        (request,) = shown.requests
        assert list(request.message_ids) == [bought] and list(request.profile_ids) == ["p1"]
        assert '"Purchase"' in request.body and "a-token-for-tests" not in str(request)
        (refused,) = (await run(message_id=unasked)).changes
        assert (refused.operation, refused.reason) == (plan.PLANNED_OPERATION_SKIP, "consent:analytics_storage")
        # A person's events come newest first, page by page.
        first = await run(profile_ids=["p1"], page_size=2)
        second = await run(profile_ids=["p1"], page_size=2, page_token=first.next_page_token)
        found = [(one.message_id, one.reason) for one in (*first.changes, *second.changes)]
        assert found == [(other, "event_name"), (searched, ""), (bought, "")] and not second.next_page_token
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await run()
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await run(message_id="nobody-sent-this")
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        assert not (await api.deliveries(sync)) and not hooks.total_attempts
