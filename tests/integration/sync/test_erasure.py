"""People are removed: from lists, from what sync keeps, and by asking destinations; the accounts balance always."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc
import pytest
from aiohttp import web
from bson import encode
from headrace_sync.erasure.store import ErasureStore
from headrace_sync.exchanges import store as exchange_store
from headrace_sync.lists.store import ListStore
from headrace_sync.store import ConfigStore
from pymongo.errors import AutoReconnect

from headrace.api.common.v1.erasure_service_pb2 import ErasedPlace, ErasePersonRequest, ErasureOutcome
from headrace.api.common.v1.erasure_service_pb2_grpc import ErasureServiceStub
from headrace.api.common.v1.event_pb2 import Identifier
from headrace.api.identity.v1.profile_pb2 import Reassignment, ResolvedBatch
from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.domain.times import now_us
from headrace.rpc import channel
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, transaction
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from headrace.storage.streams.client import Redis
from tests.support import resolved
from tests.support import sync as support
from tests.support.fake_meta import Failure, FakeMeta
from tests.support.sync import Line, Others

PLUGINS = "webhook,meta-audience"
LIST = "1234567890"
WORKSPACE = support.WORKSPACE
REMOVED = ErasureOutcome.ERASURE_OUTCOME_REMOVED
REQUESTED = ErasureOutcome.ERASURE_OUTCOME_REQUESTED
NOT_SUPPORTED = ErasureOutcome.ERASURE_OUTCOME_NOT_SUPPORTED
FAILED = ErasureOutcome.ERASURE_OUTCOME_FAILED
OWN = ("deliveries", "ledger", "list_members", "sync_runs", "sync_state", "sync_erasures", "syncs")

Erase = Callable[..., Any]


@pytest.fixture
def erase(make_settings: Callable[..., Any], others: Others) -> Erase:
    """erase(api, profile ids, ...): what identity asks; answers what became of each place."""

    async def ask(
        api: support.Api, profile_ids: Sequence[str], message_ids: Sequence[str] = (), *, deletion: str = "d-1"
    ) -> dict[str, ErasedPlace]:
        settings = support.quick_settings(make_settings, others)
        opened = channel.with_token(api.address, settings.service_token.get_secret_value())
        request = ErasePersonRequest(
            parent=support.PARENT,
            deletion_id=deletion,
            profile_ids=profile_ids,
            message_ids=message_ids,
            identifiers=[Identifier(namespace="email", value=f"{p}@example.com") for p in profile_ids],
        )
        answer = await ErasureServiceStub(opened).ErasePerson(request)
        await opened.close(None)
        return {place.place.rpartition("/")[2]: place for place in answer.places}

    return ask


async def remove_from_log(db: Database, redis: Redis, profile_ids: Sequence[str], message_ids: Sequence[str]) -> None:
    """What identity does once everybody was told."""
    async with transaction(db.client) as session:
        await log.delete_events(db, session, WORKSPACE, message_ids)
        sequence = await log.next_sequence(db, 1, now_us())
        items = [log.Reassigned(p, []) for p in profile_ids]
        await log.add_reassignments(db, session, WORKSPACE, epoch=1, sequence=sequence, items=items, erased=True)
    batch = ResolvedBatch(workspace_id=WORKSPACE)
    batch.reassignments.extend(Reassignment(profile_id=p, epoch=1, erased=True) for p in profile_ids)
    await streams.send(redis, [(names.resolved(0), batch.SerializeToString())])


async def traces(db: Database, *texts: str) -> list[tuple[str, str]]:
    """Where any of the texts stands in what sync keeps."""
    return [
        (collection, text)
        for collection in OWN
        async for document in db[collection].find({})
        for text in texts
        if text.encode() in encode(document)
    ]


async def state(api: support.Api, destination: str, wanted: dest.DestinationState.ValueType) -> None:
    changed = dest.Destination(name=destination, state=wanted)
    await api.destinations.UpdateDestination(dest.UpdateDestinationRequest(destination=changed))


async def list_sync(api: support.Api, meta: FakeMeta) -> tuple[str, str]:
    destination = await api.destination(
        "meta", "", connector="meta-audience", audience_id=LIST, access_token=meta.token, base_url=meta.url
    )
    return destination, await api.sync("buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE)


async def test_deliveries_go_and_the_account_balances_before_and_after_the_log_forgets(
    serve: Any, hooks: support.Hooks, others: Others, line: Line, db: Database, redis: Redis, erase: Erase
) -> None:
    for person in ("p1", "p2"):
        others.people.put(person, email=f"{person}@example.com")
    refuse = False

    async def answer(request: web.Request, body: Any) -> web.StreamResponse | None:
        return web.Response(status=503) if refuse else None

    hooks.answer = answer
    async with serve(reconcile_seconds=0.4, plan_mark_seconds=0.1) as api:
        hook = await api.destination("hook", hooks.url)
        sync = await api.forwarding("all", hook)
        some = await api.forwarding("some", hook, event_names=["Purchased"])
        gone = await line.send_new(2, profile_id="p1") + await line.send_new(1, "Viewed", "p1")
        stay = await line.send_new(1, profile_id="p2") + await line.send_new(1, "Viewed", "p2")
        await support.settled(api, sync)
        await support.settled(api, some)
        refuse = True
        waiting = await line.send_new(1, profile_id="p1")

        async def tried() -> bool:
            return hooks.attempts[waiting[0]] > 0

        await support.until(tried, "the last one was tried")
        refuse = False
        places = await erase(api, ["p1", "old-p1"], gone + waiting)
        assert {name: place.outcome for name, place in places.items()} == {
            "list_members": REMOVED,
            "deliveries": REMOVED,
            "ledger": REMOVED,
            "hook": REQUESTED,
        }
        assert (places["deliveries"].count, places["ledger"].count) == (7, 1)
        asked = [body for key, body in hooks.bodies.items() if key.startswith("delete_")]
        assert asked == [
            {
                "type": "delete",
                "message_id": asked[0]["message_id"],
                "profile": {
                    "id": "p1",
                    "merged_ids": ["old-p1"],
                    "identifiers": {"email": ["p1@example.com", "old-p1@example.com"]},
                },
            }
        ]
        for name, erased, delivered in ((sync, 4, 2), (some, 4, 1)):
            ledger = await api.ledger(name)
            assert (ledger.unaccounted, ledger.filtered["erased"], ledger.delivered) == (0, erased, delivered)
        assert await traces(db, "p1@example.com", *gone, *waiting) == []
        again = await erase(api, ["p1", "old-p1"], gone + waiting)
        assert (again["deliveries"].count, again["hook"].outcome) == (0, REQUESTED)
        assert sum(hooks.accepted[key] for key in hooks.bodies if key.startswith("delete_")) == 1
        async for document in db["syncs"].find({}):  # as if all of it had been counted long ago
            counted = {"n": (await api.ledger(sync)).expected, "s": now_us()}
            await db["sync_state"].update_one({"_id": f"tally\x1f{document['key']}"}, {"$set": counted}, upsert=True)
        late = await line.send_new(1, profile_id="p1")  # was on its way when the person was deleted
        marker = await line.send_new(1, profile_id="p2")
        await support.until(lambda: hooks.accepted[marker[0]] == 2, "what came after it went out")
        await remove_from_log(db, redis, ["p1", "old-p1"], [*gone, *waiting, *late])

        async def forgotten() -> bool:
            found = [await api.ledger(name) for name in (sync, some)]
            return all(ledger.unaccounted == 0 and "erased" not in ledger.filtered for ledger in found)

        await support.until(forgotten, "the account of what is left balances")
        assert (await api.ledger(sync)).expected == len(stay) + 1
        last = await erase(api, ["p1", "old-p1"], [*gone, *late])
        assert last["deliveries"].count == 0
        assert await forgotten()
        assert late[0] not in hooks.attempts
        assert await traces(db, "p1", *gone, *waiting, *late) == []


async def test_lists_lose_their_rows_and_nothing_brings_them_back(
    serve: Any, meta: FakeMeta, others: Others, db: Database, erase: Erase, line: Line
) -> None:
    for person in ("p1", "p2"):
        others.people.put(person, email=f"{person}@example.com")
    async with serve(reconcile_seconds=0.3) as api:
        _, sync = await list_sync(api, meta)
        await others.buyers.enter("p1", "p2")
        await support.until(lambda: len(meta.rows.get(LIST, ())) == 2, "both are on the list")
        places = await erase(api, ["p1"])
        assert len(meta.rows[LIST]) == 1
        assert (places["meta"].outcome, places["meta"].count) == (REQUESTED, 1)
        assert (places["list_members"].outcome, places["list_members"].count) == (REMOVED, 1)
        # The audience and identity still know p1 for a while, and speak of them.
        await others.buyers.tell(others.buyers.change("p1", True))
        await line.resolve(resolved.event("p1", traits={"plan": "gold"}))
        await others.buyers.enter("p3")
        others.people.put("p3", email="p3@example.com")
        await api.syncs.RunSync(pb.RunSyncRequest(name=sync, full=True))
        await support.until(lambda: len(meta.rows[LIST]) == 2, "p3 came")
        assert await db["list_members"].count_documents({"p": "p1"}) == 0
        assert await traces(db, "p1") == []
    assert not meta.violations


async def test_a_destination_that_takes_nothing_is_asked_again(
    serve: Any, meta: FakeMeta, hooks: support.Hooks, others: Others, line: Line, db: Database, erase: Erase
) -> None:
    others.people.put("p1", email="p1@example.com")
    async with serve() as api:
        listed, _ = await list_sync(api, meta)
        hook = await api.destination("hook", hooks.url)
        sync = await api.forwarding("all", hook)
        await others.buyers.enter("p1")
        sent = await line.send_new(1)
        await support.until(lambda: len(meta.rows.get(LIST, ())) == 1, "p1 is on the list")
        await support.settled(api, sync)
        for destination in (listed, hook):
            await state(api, destination, dest.DestinationState.DESTINATION_STATE_PAUSED)

        async def stopped() -> bool:
            places = await erase(api, ["p9"], deletion=f"d-{now_us()}")  # what was answered once stays
            return {places[name].outcome for name in ("meta", "hook") if name in places} == {FAILED}

        await support.until(stopped, "both are paused")
        places = await erase(api, ["p1"], sent)
        assert "paused" in places["meta"].detail
        assert places["list_members"].outcome == FAILED
        assert await db["list_members"].count_documents({}) == 1
        for destination in (listed, hook):
            await state(api, destination, dest.DestinationState.DESTINATION_STATE_ACTIVE)

        async def done() -> bool:
            places = await erase(api, ["p1"], sent)
            return {places[name].outcome for name in ("meta", "hook")} == {REQUESTED}

        await support.until(done, "both were asked")
        assert meta.rows[LIST] == set()
        assert await traces(db, "p1") == []


@pytest.mark.parametrize(("status", "outcome"), [(500, FAILED), (404, NOT_SUPPORTED), (200, REQUESTED)])
async def test_what_a_receiver_answers_decides(
    serve: Any, hooks: support.Hooks, line: Line, erase: Erase, status: int, outcome: int
) -> None:
    async def answer(request: web.Request, body: Any) -> web.StreamResponse | None:
        return web.Response(status=status) if body["type"] == "delete" and status != 200 else None

    hooks.answer = answer
    async with serve() as api:
        hook = await api.destination("hook", hooks.url)
        off = await api.destination("off", hooks.url, deletions=False)
        sync = await api.forwarding("all", hook)
        await api.forwarding("deaf", off)
        sent = await line.send_new(1)
        await support.settled(api, sync)
        await support.settled(api, f"{support.PARENT}/syncs/deaf")
        places = await erase(api, ["p1"], sent)
        assert (places["hook"].outcome, places["off"].outcome) == (outcome, NOT_SUPPORTED)
        assert "deletions" in places["off"].detail
        nobody = await erase(api, ["p9"], deletion="d-2")
        assert "off" not in nobody


async def test_event_syncs_balance_too(
    serve: Any, hooks: support.Hooks, others: Others, db: Database, redis: Redis, erase: Erase
) -> None:
    for person in ("p1", "p2"):
        others.people.put(person, email=f"{person}@example.com")
    before = others.buyers.change("p1", True)  # a member before the sync was made
    async with serve() as api:
        hook = await api.destination("hook", hooks.url)
        sync = await api.sync("told", hook, SyncKind.SYNC_KIND_EVENT, audience=support.AUDIENCE)
        await others.buyers.enter("p2")
        await support.until(lambda: len(hooks.accepted) == 2, "both are told")
        await others.buyers.leave("p1")
        ledger = await support.settled(api, sync)
        assert (ledger.expected, ledger.filtered["removals_off"]) == (3, 1)
        places = await erase(api, ["p1"])
        assert (places["deliveries"].count, places["hook"].outcome) == (2, REQUESTED)
        ledger = await api.ledger(sync)
        assert (ledger.expected, ledger.unaccounted, dict(ledger.filtered)) == (2, 0, {"erased": 1})
        others.buyers.history = [c for c in others.buyers.history if c.profile_id != "p1"]
        await remove_from_log(db, redis, ["p1"], [])

        async def balanced() -> bool:
            ledger = await api.ledger(sync)
            return (ledger.expected, ledger.unaccounted, ledger.delivered, len(ledger.filtered)) == (1, 0, 1, 0)

        await support.until(balanced, "the account of what is left balances")
    assert before.member


@pytest.mark.parametrize("written", [True, False], ids=["in the store", "still in memory"])
async def test_the_requests_that_are_kept_of_a_person_go_too(
    serve: Any,
    meta: FakeMeta,
    hooks: support.Hooks,
    others: Others,
    line: Line,
    db: Database,
    erase: Erase,
    monkeypatch: pytest.MonkeyPatch,
    written: bool,
) -> None:
    monkeypatch.setattr(exchange_store, "_WRITE_EVERY_S", 0.02 if written else 3600.0)
    for person in ("p1", "p2"):
        others.people.put(person, email=f"{person}@example.com")

    async def refuse(request: web.Request, body: Any) -> web.StreamResponse | None:
        return web.Response(status=422) if body["type"] != "delete" else None

    async def kept_of(person: str) -> set[str]:
        own = {"p": person, "ex": {"$exists": True}}
        return {d["ex"] for name in ("deliveries", "list_members") async for d in db[name].find(own)}

    hooks.answer = refuse
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        sent = await line.send_new(2, profile_id="p1")
        await line.send_new(1, profile_id="p2")
        assert (await support.settled(api, sync)).failed == 3
        await list_sync(api, meta)
        meta.failures.append(Failure(500))
        await others.buyers.enter("p1")

        async def all_named() -> bool:
            return len(await kept_of("p1")) == 3

        await support.until(all_named, "two deliveries and a member name a request")
        gone, stays = await kept_of("p1"), await kept_of("p2")
        if written:
            await support.until(lambda: _are_there(db, gone | stays), "they are kept")
        await support.until(lambda: len(meta.rows.get(LIST, ())) == 1, "p1 is on the list at the second try")
        gone |= await kept_of("p1")
        places = await erase(api, ["p1"], sent)
        assert {place.outcome for place in places.values()} <= {REMOVED, REQUESTED}
    # What was in memory is written when the service ends.
    left = {d["_id"] async for d in db["exchanges"].find({})}
    assert stays <= left and not gone & left


async def _are_there(db: Database, exchanges: set[str]) -> bool:
    return await db["exchanges"].count_documents({"_id": {"$in": list(exchanges)}}) == len(exchanges)


async def test_only_services_may_ask(serve: Any, erase: Erase) -> None:
    async with serve() as api:
        opened = grpc.aio.insecure_channel(api.address)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ErasureServiceStub(opened).ErasePerson(ErasePersonRequest(parent=support.PARENT, deletion_id="d"))
        await opened.close(None)
        assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await erase(api, ["p1"], ["m"] * 10_001)
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await erase(api, ["p1"], deletion="")
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


STEPS = [
    (ErasureStore, "begin"),
    (ConfigStore, "announce"),
    (ListStore, "mark_erased"),
    (ListStore, "finish"),
    (ListStore, "drop_members"),
    (ErasureStore, "note"),
    (ErasureStore, "remove_deliveries"),
    (ErasureStore, "remove_from_ledger"),
]


async def test_it_can_be_interrupted_after_every_step(
    serve: Any,
    meta: FakeMeta,
    hooks: support.Hooks,
    others: Others,
    line: Line,
    db: Database,
    erase: Erase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    people = [f"person-{number}" for number in range(len(STEPS))]
    for person in people:
        others.people.put(person, email=f"{person}@example.com")
    async with serve() as api:
        await list_sync(api, meta)
        hook = await api.destination("hook", hooks.url)
        sync = await api.forwarding("all", hook, event_names=["Purchased"])
        await others.buyers.enter(*people)
        sent = [
            await line.send_new(1, profile_id=person) + await line.send_new(1, "Viewed", person) for person in people
        ]
        await support.until(lambda: len(meta.rows.get(LIST, ())) == len(people), "all are on the list")
        await support.settled(api, sync)
        for number, ((owner, name), person) in enumerate(zip(STEPS, people, strict=True), start=1):
            step = getattr(owner, name)

            async def interrupted(self: Any, *args: Any, __step: Any = step, **more: Any) -> None:
                await __step(self, *args, **more)
                raise AutoReconnect("the process ends here")

            monkeypatch.setattr(owner, name, interrupted)
            with pytest.raises(grpc.aio.AioRpcError):
                await erase(api, [person], sent[number - 1], deletion=person)
            monkeypatch.setattr(owner, name, step)
            places = await erase(api, [person], sent[number - 1], deletion=person)
            assert {place.outcome for place in places.values()} <= {REMOVED, REQUESTED}, (name, places)
            assert len(meta.rows[LIST]) == len(people) - number, name
            assert sum(key.startswith("delete_") for key in hooks.accepted) == number, name
            ledger = await api.ledger(sync)
            assert (ledger.unaccounted, ledger.filtered["erased"]) == (0, 2 * number), name
        assert await traces(db, "person-", *(message_id for own in sent for message_id in own)) == [
            ("sync_erasures", "person-")  # the ids of these deletions
        ] * len(people)
