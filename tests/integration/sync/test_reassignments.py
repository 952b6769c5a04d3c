"""Events that were assigned anew: lists and waiting deliveries follow, from the stream and from the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from headrace.api.identity.v1.profile_pb2 import Reassignment, ResolvedBatch
from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.domain.times import now_us
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, transaction
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from headrace.storage.streams.client import Redis
from tests.support import sync as support
from tests.support.fake_meta import FakeMeta
from tests.support.sync import Line, Others

PLUGINS = "webhook,meta-audience"
LIST = "1234567890"
WORKSPACE = support.WORKSPACE


async def reassign(db: Database, profile_ids: Sequence[str], events: Sequence[tuple[str, str]] = ()) -> None:
    """What identity commits: the events' new profiles and the record of it."""
    async with transaction(db.client) as session:
        await log.reassign_events(db, session, WORKSPACE, [(m, p, b"") for m, p in events])
        sequence = await log.next_sequence(db, 1, now_us())
        items = [log.Reassigned(p, [p]) for p in profile_ids]
        await log.add_reassignments(db, session, WORKSPACE, epoch=1, sequence=sequence, items=items)


async def send(redis: Redis, profile_ids: Sequence[str]) -> None:
    """What identity sends on."""
    batch = ResolvedBatch(workspace_id=WORKSPACE)
    batch.reassignments.extend(Reassignment(profile_id=p, parts=[p], epoch=1) for p in profile_ids)
    await streams.send(redis, [(names.resolved(0), batch.SerializeToString())])


async def list_sync(api: support.Api, meta: FakeMeta) -> str:
    destination = await api.destination(
        "meta", "", connector="meta-audience", audience_id=LIST, access_token=meta.token, base_url=meta.url
    )
    return await api.sync("buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE)


@pytest.mark.parametrize("lost", [False, True])
async def test_rows_of_a_member_follow_an_undone_merge(
    serve: Any, meta: FakeMeta, others: Others, db: Database, redis: Redis, lost: bool
) -> None:
    others.people.put("p1", email="p1@example.com")
    async with serve() as api:
        sync = await list_sync(api, meta)
        await others.buyers.enter("p1")
        await support.until(lambda: len(meta.rows.get(LIST, ())) == 1, "p1 is on the list")
        before = set(meta.rows[LIST])
        others.people.put("p1", email="after@example.com")  # identity undid what had given p1 the other address
        await reassign(db, ["p1", "p2"])
        if lost:
            await redis.flushall()
        else:
            await send(redis, ["p1", "p2"])
        await support.until(lambda: len(meta.rows[LIST]) == 1 and meta.rows[LIST] != before, "the list follows")
        assert (await support.settled(api, sync)).delivered == 1
    assert not meta.violations


async def test_a_member_that_identity_does_not_know_is_taken_off_for_good(
    serve: Any, meta: FakeMeta, others: Others, db: Database, redis: Redis
) -> None:
    others.people.put("p1", email="p1@example.com")
    async with serve() as api:
        sync = await list_sync(api, meta)
        await others.buyers.enter("p1")
        await support.until(lambda: len(meta.rows.get(LIST, ())) == 1, "p1 is on the list")
        del others.people.profiles["p1"]
        await reassign(db, ["p1"])
        await send(redis, ["p1"])
        await support.until(lambda: not meta.rows[LIST], "taken off")

        async def is_left_out() -> bool:  # written down soon after the vendor's answer
            return dict((await api.ledger(sync)).filtered) == {"no_profile": 1}

        await support.until(is_left_out, "left out")
        document = await db["list_members"].find_one({"p": "p1"})
        assert document is not None
        assert "due" not in document


async def test_waiting_deliveries_are_made_of_the_profile_that_the_event_belongs_to_now(
    serve: Any, hooks: support.Hooks, others: Others, line: Line, db: Database, redis: Redis
) -> None:
    for person in ("p1", "p2"):
        others.people.put(person, email=f"{person}@example.com")
    async with serve() as api:
        hook = await api.destination("hook", hooks.url)
        sync = await api.forwarding("all", hook)
        (settled,) = await line.send_new(1)
        await support.settled(api, sync)

        async def pause(state: dest.DestinationState.ValueType) -> None:
            changed = dest.Destination(name=hook, state=state)
            await api.destinations.UpdateDestination(dest.UpdateDestinationRequest(destination=changed))

        await pause(dest.DestinationState.DESTINATION_STATE_PAUSED)
        moving, staying = await line.send_new(2)

        async def planned() -> bool:
            return len(await api.deliveries(sync)) == 3

        await support.until(planned, "planned")
        await reassign(db, ["p1", "p2"], [(settled, "p2"), (moving, "p2")])
        await send(redis, ["p1", "p2"])

        async def followed() -> bool:
            return {d.message_id for d in await api.deliveries(sync, profile_ids=["p2"])} == {settled, moving}

        await support.until(followed, "deliveries are shown with the person that they belong to now")
        assert [d.message_id for d in await api.deliveries(sync, profile_ids=["p1", "nobody"])] == [staying]
        await pause(dest.DestinationState.DESTINATION_STATE_ACTIVE)
        await support.settled(api, sync)
        assert {m: hooks.bodies[m]["profile"]["id"] for m in (moving, staying)} == {moving: "p2", staying: "p1"}
