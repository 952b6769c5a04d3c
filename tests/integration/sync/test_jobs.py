"""What vendors take into jobs waits for their end in the store: no pass waits, and no crash loses or repeats one."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from headrace_sync.jobs import follower
from headrace_sync.store import DELIVERIES, VENDOR_JOBS

from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.embedded.processes import free_port
from headrace.storage.mongo.client import Database
from tests.integration.sync.test_crashes import environment, process
from tests.support import sync as support
from tests.support.sync import Hooks, Line, Others
from tests.support.vendors.klaviyo import FakeKlaviyo

FOREVER = 1_000_000
PLUGINS = "klaviyo,webhook"


@pytest.fixture
async def klaviyo() -> AsyncIterator[FakeKlaviyo]:
    vendor = FakeKlaviyo(requests_a_second=1_000)
    await vendor.start()
    yield vendor
    await vendor.stop()


async def destination(api: support.Api, vendor: FakeKlaviyo) -> str:
    settings = {"api_key": vendor.key, "list_id": "LiSt01", "base_url": vendor.url}
    return await api.destination("klaviyo", "", connector="klaviyo", **settings)


async def list_sync(api: support.Api, vendor: FakeKlaviyo, **more: Any) -> str:
    name = await destination(api, vendor)
    return await api.sync("buyers", name, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE, **more)


def put(others: Others, *profile_ids: str) -> None:
    for profile_id in profile_ids:
        others.people.put(profile_id, email=f"{profile_id}@example.com")


def taken(vendor: FakeKlaviyo) -> int:
    """How many profiles were taken into jobs."""
    return sum(job["total"] for job in vendor.jobs.values())


def end_jobs(vendor: FakeKlaviyo) -> None:
    for job in vendor.jobs.values():
        job["looks"] = 0


async def runs(api: support.Api, sync: str) -> list[pb.SyncRun]:
    return list((await api.syncs.ListSyncRuns(pb.ListSyncRunsRequest(parent=sync))).runs)


async def test_a_pass_ends_while_the_vendors_job_runs(
    serve: Any, klaviyo: FakeKlaviyo, others: Others, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LONGEST_PAUSE_S", 0.2)
    klaviyo.looks = FOREVER
    put(others, "p1", "p2", "p3")
    async with serve() as api:
        sync = await list_sync(api, klaviyo)
        await others.buyers.enter("p1", "p2")

        async def have_ended() -> bool:
            found = await runs(api, sync)
            return all(run.HasField("end_time") for run in found) and sum(run.pending for run in found) == 2

        await support.until(have_ended, "the passes ended")
        waiting = await api.deliveries(sync, state=pb.DeliveryState.DELIVERY_STATE_WAITING)
        assert {d.reason for d in waiting} == {"the vendor works on it"}
        # Who comes now has a pass and a job of their own; who leaves is taken off once the job has ended.
        await others.buyers.enter("p3")
        await support.until(lambda: taken(klaviyo) == 3, "another import runs")
        await others.buyers.leave("p2")
        assert ("DELETE", "/api/lists/LiSt01/relationships/profiles") not in klaviyo.requests
        end_jobs(klaviyo)
        klaviyo.looks = 1
        await support.until(lambda: len(klaviyo.lists["LiSt01"]) == 2 and not klaviyo.on_list("p2@example.com"), "off")
        ledger = await support.settled(api, sync)
        assert (ledger.expected, ledger.delivered, ledger.waiting) == (2, 2, 0)

        async def is_counted() -> bool:
            found = await runs(api, sync)
            sums = [
                sum(counts) for counts in zip(*((r.added, r.removed, r.failed, r.pending) for r in found), strict=True)
            ]
            return sums == [3, 1, 0, 0]

        await support.until(is_counted, "each row is counted once")

        async def are_forgotten() -> bool:
            return await db["vendor_jobs"].count_documents({}) == 0

        await support.until(are_forgotten, "the jobs are forgotten")
    assert taken(klaviyo) == 3


async def test_what_a_job_put_on_the_list_before_says_nothing_of_the_one_that_is_filled_now(
    serve: Any, klaviyo: FakeKlaviyo, others: Others, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LONGEST_PAUSE_S", 0.2)
    klaviyo.lists["LiSt02"] = set()
    klaviyo.looks = FOREVER
    put(others, "p1", "p2")
    async with serve() as api:
        sync = await list_sync(api, klaviyo)
        await others.buyers.enter("p1", "p2")
        await support.until(lambda: taken(klaviyo) == 2, "an import runs")
        changed = pb.UpdateSyncRequest(sync=pb.Sync(name=sync, list="LiSt02"), update_mask=FieldMask(paths=["list"]))
        await api.syncs.UpdateSync(changed)
        ledger = await api.ledger(sync)
        assert (ledger.delivered, ledger.waiting) == (0, 2)

        async def is_followed() -> bool:
            return await db["sync_state"].count_documents({"_id": {"$regex": "^rows"}, "l": "LiSt02"}) == 1

        await support.until(is_followed, "passes follow the change")
        end_jobs(klaviyo)
        klaviyo.looks = 1
        await support.until(lambda: len(klaviyo.lists["LiSt02"]) == 2, "the list is filled")
        assert (await support.settled(api, sync)).delivered == 2
        assert len(klaviyo.lists["LiSt01"]) == 2


async def test_a_row_that_a_job_refuses_fails_and_is_replayed_by_its_status(
    serve: Any, klaviyo: FakeKlaviyo, others: Others
) -> None:
    klaviyo.fails = lambda profile: profile["email"] == "p2@example.com"
    put(others, "p1", "p2")
    async with serve() as api:
        sync = await list_sync(api, klaviyo)
        await others.buyers.enter("p1", "p2")
        ledger = await support.settled(api, sync)
        assert (ledger.delivered, ledger.failed) == (1, 1)
        (failed,) = await api.deliveries(sync, state=pb.DeliveryState.DELIVERY_STATE_FAILED)
        assert failed.profile_id == "p2" and "Klaviyo refused the profile" in failed.reason
        assert failed.status_code == 200
        request = pb.ReplayDeliveriesRequest(parent=sync, status_code=404)
        assert (await api.syncs.ReplayDeliveries(request)).replayed == 0
        klaviyo.fails = lambda profile: False
        request = pb.ReplayDeliveriesRequest(parent=sync, status_code=200, reason_contains="refused the profile")
        assert (await api.syncs.ReplayDeliveries(request)).replayed == 1
        await support.until(lambda: len(klaviyo.lists["LiSt01"]) == 2, "the other is there as well")


async def test_killed_while_jobs_run(
    settings_env: dict[str, str], klaviyo: FakeKlaviyo, others: Others, hooks: Hooks, line: Line, db: Database
) -> None:
    klaviyo.looks = FOREVER
    people = [f"p{n}" for n in range(20)]
    put(others, *people)
    port = free_port()
    env = environment(settings_env, others, port, HEADRACE_PLUGINS=PLUGINS)
    token = settings_env["HEADRACE_SERVICE_TOKEN"]
    async with process(env, port) as child, support.api(f"127.0.0.1:{port}", token) as api:
        name = await destination(api, klaviyo)
        listing = await api.sync("buyers", name, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE)
        events = await api.forwarding("people", name)
        others.buyers.change("p0", True)
        await others.buyers.enter(*people)
        sent = await line.send_new(20, "", profile_id="p1", identifiers=[("email", "p1@example.com")])
        assert sent
        await support.until(lambda: taken(klaviyo) == 40, "all is in jobs", within_s=30)

        async def is_stored() -> bool:
            found = [job async for job in db["vendor_jobs"].find({})]
            return sum(len(part["i"]) for job in found for part in job["p"]) == 40

        await support.until(is_stored, "the jobs are written down")
        child.send_signal(signal.SIGKILL)
        await child.wait()
    async with process(env, port) as child, support.api(f"127.0.0.1:{port}", token) as api:
        looked = len(klaviyo.requests)
        await support.until(lambda: len(klaviyo.requests) > looked + 3, "the jobs are asked for", within_s=30)
        # Other destinations go on meanwhile.
        hook = await api.forwarding("all", await api.destination("hook", hooks.url))
        ids = await line.send_new(5)
        await support.until(lambda: set(ids) <= set(hooks.accepted), "others are served")
        assert (await support.settled(api, hook)).delivered == 5
        end_jobs(klaviyo)
        assert (await support.settled(api, listing, within_s=60)).delivered == 20
        ledger = await support.settled(api, events, within_s=60)
        assert (ledger.waiting, ledger.failed, ledger.unaccounted) == (0, 0, 0)
        assert ledger.delivered >= 20
    assert len(klaviyo.lists["LiSt01"]) == 20
    # What was in a job at the kill was sent once: only the five new events may have gone out by imports since.
    assert taken(klaviyo) == 40
    assert not klaviyo.problems


async def test_jobs_of_deleted_destinations_and_syncs_are_forgotten(
    serve: Any, klaviyo: FakeKlaviyo, others: Others, db: Database
) -> None:
    klaviyo.looks = FOREVER
    put(others, "p1")
    others.buyers.change("p1", True)

    async def jobs() -> int:
        return await db[VENDOR_JOBS].count_documents({})

    async with serve() as api:
        sync = await list_sync(api, klaviyo)
        await support.until(lambda: taken(klaviyo) == 1, "the vendor has it")

        async def is_kept() -> bool:
            return await jobs() == 1

        await support.until(is_kept, "the job is kept")
        (left_over,) = [d async for d in db[VENDOR_JOBS].find({})]
        await api.syncs.DeleteSync(pb.DeleteSyncRequest(name=sync))
        assert await jobs() == 0
        (one,) = (
            await api.destinations.ListDestinations(dest.ListDestinationsRequest(parent=support.PARENT))
        ).destinations
        await api.destinations.DeleteDestination(dest.DeleteDestinationRequest(name=one.name))
        # As a process leaves it that ends between the deletion and the forgetting.
        await db[VENDOR_JOBS].insert_one({**left_over, "na": 0})

        async def is_gone() -> bool:
            return await jobs() == 0

        await support.until(is_gone, "nobody asks for it any more")


async def test_what_a_job_says_of_deleted_people_is_forgotten_also_where_nothing_is_sent(
    serve: Any, klaviyo: FakeKlaviyo, others: Others, line: Line, db: Database
) -> None:
    klaviyo.looks = FOREVER
    put(others, "p1", "p2")
    async with serve() as api:
        name = await destination(api, klaviyo)
        await api.forwarding("people", name)

        async def kept() -> int:
            return sum([len(part["i"]) async for job in db[VENDOR_JOBS].find({}) for part in job["p"]])

        async def is_kept(count: int) -> bool:
            await db[VENDOR_JOBS].update_many({}, {"$set": {"na": 0}})
            return await kept() == count

        # Two events are an import, which is a job; one would be told at once.
        await line.send_new(2, "", profile_id="p1", identifiers=[("email", "p1@example.com")])
        await support.until(lambda: is_kept(2), "the vendor has those of p1", every_s=0.2)
        await line.send_new(2, "", profile_id="p2", identifiers=[("email", "p2@example.com")])
        await support.until(lambda: is_kept(4), "and those of p2", every_s=0.2)
        paused = dest.Destination(name=name, state=dest.DestinationState.DESTINATION_STATE_PAUSED)
        await api.destinations.UpdateDestination(
            dest.UpdateDestinationRequest(destination=paused, update_mask=FieldMask(paths=["state"]))
        )
        await db[DELIVERIES].delete_many({"p": "p1"})  # as a deletion leaves it
        await support.until(lambda: is_kept(2), "nothing of p1 is kept", every_s=0.5)
        await db[DELIVERIES].delete_many({"p": "p2"})
        await support.until(lambda: is_kept(0), "nor of p2", every_s=0.5)
