"""List syncs with a schedule: what a pass could not do is done as soon as it can be, all else waits for the date."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.storage.mongo.client import Database
from tests.support import sync as support
from tests.support.fake_meta import Failure, FakeMeta
from tests.support.sync import Others

PLUGINS = "meta-audience"
LIST = "1234567890"
SLOWED = Failure(400, 80003, message="There have been too many calls.", headers={"Retry-After": "1"})
DOWN = Failure(500, 2, message="Service temporarily unavailable.", transient=True)


def held(meta: FakeMeta) -> set[str]:
    return {value for row in meta.rows.get(LIST, set()) for name, value in row if name == "EMAIL"}


def hashes(*ids: str) -> set[str]:
    return {hashlib.sha256(f"{id}@example.com".encode()).hexdigest() for id in ids}


async def scheduled(api: support.Api, meta: FakeMeta, **more: Any) -> str:
    destination = await api.destination(
        "meta", "", connector="meta-audience", audience_id=LIST, access_token=meta.token, base_url=meta.url
    )
    return await api.sync(
        "buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE, schedule="90d", **more
    )


def put(others: Others, *ids: str, member: bool = True) -> None:
    for id in ids:
        others.people.put(id, email=f"{id}@example.com")
        if member:
            others.buyers.change(id, True)


async def first_ended(db: Database) -> None:
    async def ended() -> bool:
        return await db["sync_state"].count_documents({"_id": {"$regex": "^scheduled"}, "o": {"$exists": False}}) == 1

    await support.until(ended, "the pass of the first date has ended")


@pytest.mark.parametrize("failure", [SLOWED, DOWN])
async def test_a_refused_pass_goes_on_as_soon_as_the_vendor_takes_it(
    serve: Any, meta: FakeMeta, others: Others, db: Database, failure: Failure
) -> None:
    ids = [f"p{n}" for n in range(10)]
    put(others, *ids)
    meta.failures.append(failure)
    async with serve() as api:
        sync = await scheduled(api, meta)
        await support.until(lambda: held(meta) == hashes(*ids), "filled")
        assert (await support.settled(api, sync)).delivered == 10
        await first_ended(db)

        # The next one, which somebody asks for: what is refused of it is not left for the date either.
        put(others, "p10", member=False)
        await others.buyers.enter("p10")
        await others.buyers.leave("p0")
        meta.failures.append(failure)
        await api.syncs.RunSync(pb.RunSyncRequest(name=sync))
        await support.until(lambda: held(meta) == hashes(*ids[1:], "p10"), "changed")
        assert (await support.settled(api, sync)).delivered == 10


async def test_what_comes_while_a_refused_pass_goes_on_waits_for_the_date(
    serve: Any, meta: FakeMeta, others: Others, db: Database
) -> None:
    put(others, "p1", "p2")
    put(others, "p3", member=False)
    async with serve() as api:
        sync = await scheduled(api, meta)
        await support.until(lambda: held(meta) == hashes("p1", "p2"), "filled")
        await first_ended(db)
        meta.failures.append(SLOWED)
        await others.buyers.leave("p2")
        await api.syncs.RunSync(pb.RunSyncRequest(name=sync))
        await support.until(lambda: not meta.failures, "refused")
        await others.buyers.enter("p3")
        await support.until(lambda: held(meta) == hashes("p1"), "what was refused is done")
        await first_ended(db)
        assert (await db["list_members"].find_one({"p": "p3"}) or {})["due"]
        # Nobody is due but who waits for the date.
        assert await db["list_members"].count_documents({"due": {"$gt": 0}}) == 1
        assert held(meta) == hashes("p1")


async def test_a_refused_removal_that_needed_no_approval_needs_none_when_it_is_tried_again(
    serve: Any, meta: FakeMeta, others: Others, db: Database
) -> None:
    ids = [f"p{n}" for n in range(10)]
    put(others, *ids)
    async with serve() as api:
        sync = await scheduled(api, meta, most_changed_percent=40)
        await support.until(lambda: held(meta) == hashes(*ids), "filled")
        await first_ended(db)
        await others.buyers.leave("p0")
        meta.failures.append(DOWN)
        await api.syncs.RunSync(pb.RunSyncRequest(name=sync))
        await support.until(lambda: held(meta) == hashes(*ids[1:]), "taken off")
        assert not (await api.syncs.GetSync(pb.GetSyncRequest(name=sync))).sync.HasField("pending_plan")
