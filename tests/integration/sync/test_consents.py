"""Consent: nothing is sent without what a destination requires, and a withdrawal takes people off lists."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from aiohttp import web
from google.protobuf import field_mask_pb2

from headrace.api.identity.v1.profile_pb2 import ConsentStatus
from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from tests.support import sync as support
from tests.support.fake_meta import FakeMeta
from tests.support.sync import Line, Others

PLUGINS = "webhook,meta-audience"
LIST = "1234567890"
FILTERED = pb.DeliveryState.DELIVERY_STATE_FILTERED
GRANTED = ConsentStatus.CONSENT_STATUS_GRANTED


def listed(meta: FakeMeta) -> int:
    return len(meta.rows.get(LIST, ()))


async def list_sync(api: support.Api, meta: FakeMeta, *purposes: str) -> tuple[str, str]:
    destination = await api.destination(
        "meta",
        "",
        connector="meta-audience",
        required_consents=purposes,
        audience_id=LIST,
        access_token=meta.token,
        base_url=meta.url,
    )
    return destination, await api.sync("buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE)


async def speak(line: Line, others: Others, profile_id: str, **purposes: bool) -> None:
    """A person says something: identity knows it, then tells it."""
    others.people.say(profile_id, **purposes)
    properties = {purpose: "granted" if granted else "denied" for purpose, granted in purposes.items()}
    await line.send_new(1, "trackConsent", profile_id, properties=properties)


async def test_deliveries_without_consent_are_filtered_and_accounted_for(
    serve: Any, hooks: support.Hooks, others: Others, line: Line
) -> None:
    for person in ("p1", "p2", "p3"):
        others.people.put(person, email=f"{person}@example.com")
    others.people.say("p1", ad_user_data=True, newsletter=True, other=False)
    others.people.say("p2", ad_user_data=True, newsletter=False)
    async with serve() as api:
        hook = await api.destination("hook", hooks.url, required_consents=["adUserData", "newsletter"])
        sync = await api.forwarding("all", hook)
        sent = [(await line.send_new(1, profile_id=p))[0] for p in ("p1", "p2", "p3", "")]
        ledger = await support.settled(api, sync)
        assert (ledger.expected, ledger.delivered) == (4, 1)
        assert dict(ledger.filtered) == {"consent:newsletter": 1, "consent:ad_user_data": 2}
        assert set(hooks.accepted) == {sent[0]}
        assert hooks.bodies[sent[0]]["profile"]["consents"] == {
            "ad_user_data": "granted",
            "newsletter": "granted",
            "other": "denied",
        }
        (delivered,) = await api.deliveries(sync, message_id=sent[0])
        assert [(c.purpose, c.status, c.timestamp_us, c.message_id, c.source_id) for c in delivered.consents] == [
            ("ad_user_data", GRANTED, 7, "said", "web"),
            ("newsletter", GRANTED, 7, "said", "web"),
        ]
        (left_out,) = await api.deliveries(sync, message_id=sent[1])
        assert (left_out.state, left_out.reason, left_out.attempts) == (FILTERED, "consent:newsletter", 0)


async def test_a_withdrawal_takes_off_the_list_and_a_grant_puts_on_it(
    serve: Any, meta: FakeMeta, others: Others, line: Line
) -> None:
    for person in ("p1", "p2"):
        others.people.put(person, email=f"{person}@example.com")
        others.people.say(person, ad_user_data=True)
    others.people.say("p2", ad_user_data=False)
    async with serve() as api:
        _, sync = await list_sync(api, meta, "ad_user_data")
        await others.buyers.enter("p1", "p2")
        ledger = await support.settled(api, sync)
        assert (listed(meta), ledger.delivered, dict(ledger.filtered)) == (1, 1, {"consent:ad_user_data": 1})
        (on_list,) = await api.deliveries(sync, state=pb.DeliveryState.DELIVERY_STATE_DELIVERED)
        assert [(c.purpose, c.status) for c in on_list.consents] == [("ad_user_data", GRANTED)]
        await speak(line, others, "p1", ad_user_data=False)
        await support.until(lambda: listed(meta) == 0, "taken off")
        ledger = await support.settled(api, sync)
        assert dict(ledger.filtered) == {"consent:ad_user_data": 2}
        await speak(line, others, "p2", ad_user_data=True)
        await support.until(lambda: listed(meta) == 1, "put on")
        calls = others.people.calls
        await speak(line, others, "p2", ad_user_data=True)  # says nothing new
        await speak(line, others, "p1", other=False)  # says nothing that is required
        await speak(line, others, "p1", ad_user_data=True)
        await support.until(lambda: listed(meta) == 2, "put on again")

        async def both_are_told() -> bool:
            return bool((await api.ledger(sync)).delivered == 2)

        await support.until(both_are_told, "the vendor's answer is written down")
        assert others.people.calls == calls + 1
    assert not meta.violations


async def test_other_requirements_are_applied_to_lists_that_exist(serve: Any, meta: FakeMeta, others: Others) -> None:
    for person in ("p1", "p2"):
        others.people.put(person, email=f"{person}@example.com")
    others.people.say("p1", ad_user_data=True)
    async with serve() as api:
        destination, sync = await list_sync(api, meta)
        await others.buyers.enter("p1", "p2")
        await support.until(lambda: listed(meta) == 2, "all are on it")
        await api.require(destination, "ad_user_data")
        await support.until(lambda: listed(meta) == 1, "who did not allow it is taken off")
        await api.require(destination, "ad_user_data", "newsletter")
        await support.until(lambda: listed(meta) == 0, "nobody allowed both")
        await api.require(destination)
        await support.until(lambda: listed(meta) == 2, "nothing is required any more")

        async def written_down() -> bool:
            return bool((await api.ledger(sync)).delivered == 2)

        await support.until(written_down, "what was sent is written down")


async def test_event_syncs_tell_nothing_without_consent(serve: Any, hooks: support.Hooks, others: Others) -> None:
    for person in ("p1", "p2"):
        others.people.put(person, email=f"{person}@example.com")
    others.people.say("p1", ad_storage=True)
    async with serve() as api:
        hook = await api.destination("hook", hooks.url, required_consents=["ad_storage"])
        sync = await api.sync("told", hook, SyncKind.SYNC_KIND_EVENT, audience=support.AUDIENCE)
        await others.buyers.enter("p1", "p2")
        ledger = await support.settled(api, sync)
        assert (ledger.delivered, dict(ledger.filtered)) == (1, {"consent:ad_storage": 1})
        assert [body["profile"]["id"] for body in hooks.bodies.values()] == ["p1"]


async def test_consent_is_that_of_the_moment_of_delivery(
    serve: Any, hooks: support.Hooks, others: Others, line: Line
) -> None:
    others.people.put("p1", email="p1@example.com")
    others.people.say("p1", ad_storage=True)
    refusals = 3

    async def answer(request: Any, body: Any) -> Any:
        nonlocal refusals
        refusals -= 1
        if refusals == 0:
            others.people.say("p1", ad_storage=False)  # withdrawn while the delivery waits for another try
        return web.Response(status=503, headers={"Retry-After": "0"})

    hooks.answer = answer
    async with serve() as api:
        hook = await api.destination("hook", hooks.url, required_consents=["ad_storage"])
        sync = await api.forwarding("all", hook)
        await line.send_new(1)
        ledger = await support.settled(api, sync)
        assert dict(ledger.filtered) == {"consent:ad_storage": 1}
        assert (refusals, hooks.accepted.total()) == (0, 0)


async def test_requirements_are_checked_and_read_back(serve: Any, hooks: support.Hooks) -> None:
    async with serve() as api:
        name = await api.destination("hook", hooks.url, required_consents=["Ad User Data", "ad_user_data", " own "])
        stored = await api.destinations.GetDestination(dest.GetDestinationRequest(name=name))
        assert list(stored.destination.required_consents) == ["ad_user_data", "own"]
        etag = stored.destination.etag
        await api.require(name, "ad_user_data", "own")
        stored = await api.destinations.GetDestination(dest.GetDestinationRequest(name=name))
        assert stored.destination.etag == etag
        for wrong in ([""], ["x" * 65], ["a\nb"], [f"p{n}" for n in range(21)]):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await api.require(name, *wrong)
            assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert json.dumps(wrong[0])[1:-1] not in str(raised.value.details()) or not wrong[0]


async def test_a_withdrawal_takes_off_the_list_of_a_sync_that_is_paused(
    serve: Any, meta: FakeMeta, others: Others, line: Line
) -> None:
    for person in ("p1", "p2", "p3"):
        others.people.put(person, email=f"{person}@example.com")
        others.people.say(person, ad_user_data=True)
    async with serve() as api:
        _, sync = await list_sync(api, meta, "ad_user_data")
        await others.buyers.enter("p1", "p2")
        await support.settled(api, sync)

        async def pause(paused: bool) -> None:
            changed = pb.Sync(name=sync, paused=paused)
            mask = field_mask_pb2.FieldMask(paths=["paused"])
            await api.syncs.UpdateSync(pb.UpdateSyncRequest(sync=changed, update_mask=mask))

        await pause(True)
        await others.buyers.enter("p3")
        await others.buyers.leave("p2")
        # One who withdraws is taken off; one who has thought better of it by then is left to the sync.
        await line.send_new(1, "trackConsent", "p3", properties={"ad_user_data": "denied"})
        await speak(line, others, "p1", ad_user_data=False)
        await support.until(lambda: listed(meta) == 1, "taken off")
        (waiting,) = [d for d in await api.deliveries(sync) if d.profile_id == "p2"]
        assert waiting.operation == "remove"  # it waits for the sync
        runs = (await api.syncs.ListSyncRuns(pb.ListSyncRunsRequest(parent=sync))).runs
        assert {run.added for run in runs if run.removed} == {0}
        await pause(False)
        await support.until(lambda: listed(meta) == 1 and meta.requests[-1][0] == "POST", "the rest follows")
        assert (await support.settled(api, sync)).delivered == 1
    assert not meta.violations
