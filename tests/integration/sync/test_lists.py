"""List syncs with the real Meta plugin against a vendor that enforces Meta's rules: the list becomes the audience."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from headrace_sync.lists.store import ListStore
from pymongo.errors import AutoReconnect

from headrace.api.audience.v1.audience_pb2 import AudienceState
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.storage.mongo.client import Database
from tests.support import resolved
from tests.support import sync as support
from tests.support.fake_meta import Failure, FakeMeta
from tests.support.sync import Line, Others

PLUGINS = "meta-audience"
LIST = "1234567890"


def hashes(*emails: str) -> set[str]:
    return {hashlib.sha256(email.encode()).hexdigest() for email in emails}


def held(meta: FakeMeta) -> set[str]:
    """The e-mail hashes on the list."""
    return {value for row in meta.rows.get(LIST, set()) for name, value in row if name == "EMAIL"}


async def list_sync(api: support.Api, meta: FakeMeta) -> str:
    destination = await api.destination(
        "meta", "", connector="meta-audience", audience_id=LIST, access_token=meta.token, base_url=meta.url
    )
    return await api.sync("buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE)


def put(others: Others, *profile_ids: str) -> None:
    for profile_id in profile_ids:
        others.people.put(profile_id, email=f"{profile_id}@example.com")


async def test_the_list_follows_the_audience(serve: Any, meta: FakeMeta, others: Others) -> None:
    put(others, "p1", "p2", "p3", "p4")
    others.people.put("p5", plan="no way to reach this one")
    others.buyers.change("p1", True)  # a member before the sync was made, and never told
    async with serve() as api:
        sync = await list_sync(api, meta)
        await others.buyers.enter("p2", "p3", "p5")
        await support.until(lambda: held(meta) == hashes("p1@example.com", "p2@example.com", "p3@example.com"), "added")
        await others.buyers.leave("p2")
        await others.buyers.enter("p4")
        await support.until(
            lambda: held(meta) == hashes("p1@example.com", "p3@example.com", "p4@example.com"), "changed"
        )
        ledger = await support.settled(api, sync)
        assert (ledger.expected, ledger.delivered, sum(ledger.filtered.values())) == (4, 3, 1)
        (skipped,) = await api.deliveries(sync, state=pb.DeliveryState.DELIVERY_STATE_FILTERED)
        assert skipped.profile_id == "p5"
        assert skipped.reason
        runs = (await api.syncs.ListSyncRuns(pb.ListSyncRunsRequest(parent=sync))).runs
        assert sum(run.added for run in runs) == 4
        assert sum(run.removed for run in runs) == 1
        assert any(run.skipped for run in runs)
    assert not meta.violations


async def test_changes_wait_for_the_schedule_and_withdrawals_do_not(
    serve: Any, meta: FakeMeta, others: Others, line: Line, db: Database
) -> None:
    put(others, "p1", "p2", "p3")
    for id in ("p1", "p2", "p3"):
        others.people.say(id, ad_user_data=True)
        if id != "p3":
            others.buyers.change(id, True)
    async with serve() as api:
        destination = await api.destination(
            "meta",
            "",
            connector="meta-audience",
            audience_id=LIST,
            access_token=meta.token,
            base_url=meta.url,
            required_consents=["ad_user_data"],
        )
        sync = await api.sync("buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE, schedule="90d")
        await support.until(lambda: held(meta) == hashes("p1@example.com", "p2@example.com"), "the first fill")

        async def first_is_done() -> bool:
            return await db["sync_state"].count_documents({"_id": {"$regex": "^scheduled"}}) == 1

        await support.until(first_is_done, "its pass has ended")
        await others.buyers.enter("p3")
        others.people.say("p1", ad_user_data=False)
        await line.send_new(1, "trackConsent", "p1", properties={"ad_user_data": "denied"})
        await support.until(lambda: held(meta) == hashes("p2@example.com"), "the withdrawal does not wait")
        await api.syncs.RunSync(pb.RunSyncRequest(name=sync))
        await support.until(lambda: held(meta) == hashes("p2@example.com", "p3@example.com"), "who asks need not wait")


async def test_failures_heal_at_the_next_pass(serve: Any, meta: FakeMeta, others: Others) -> None:
    ids = [f"p{n}" for n in range(30)]
    put(others, *ids)
    meta.failures.extend(
        [
            Failure(500, 2, message="Service temporarily unavailable.", transient=True),
            Failure(400, 80003, message="There have been too many calls.", headers={"Retry-After": "0"}),
            Failure(502, html=True),
        ]
    )
    async with serve() as api:
        sync = await list_sync(api, meta)
        await others.buyers.enter(*ids)
        await support.until(lambda: held(meta) == hashes(*(f"{p}@example.com" for p in ids)), "healed")
        ledger = await support.settled(api, sync)
        assert ledger.delivered == 30


async def test_lost_changes_heal_by_comparing_with_the_audience(serve: Any, meta: FakeMeta, others: Others) -> None:
    put(others, "p1", "p2", "p3")
    async with serve(reconcile_seconds=0.5) as api:
        sync = await list_sync(api, meta)
        await others.buyers.enter("p1", "p2")
        await support.until(lambda: held(meta) == hashes("p1@example.com", "p2@example.com"), "added")
        others.buyers.change("p3", True)  # told to nobody
        await support.until(lambda: len(held(meta)) == 3, "the lost entry healed")
        assert (await support.settled(api, sync)).delivered == 3


@pytest.mark.parametrize("state", ["ACTIVE", "PAUSED", "ARCHIVED"])
async def test_a_lost_exit_heals_too(serve: Any, meta: FakeMeta, others: Others, db: Database, state: str) -> None:
    put(others, "p1", "p2")
    async with serve(reconcile_seconds=0.5) as api:
        await list_sync(api, meta)
        await others.buyers.enter("p1", "p2")
        await support.until(lambda: len(held(meta)) == 2, "added")
        others.buyers.change("p2", False)  # told to nobody
        others.buyers.state = AudienceState.Value(f"AUDIENCE_STATE_{state}")
        # Only members that came in a while ago count as absent; make them so.
        await db["list_members"].update_many({}, {"$set": {"a": 1}})
        await support.until(lambda: held(meta) == hashes("p1@example.com"), "the lost exit healed")


async def test_a_changed_address_replaces_the_row(serve: Any, meta: FakeMeta, others: Others, line: Line) -> None:
    put(others, "p1")
    async with serve() as api:
        await list_sync(api, meta)
        await others.buyers.enter("p1")
        await support.until(lambda: held(meta) == hashes("p1@example.com"), "added")
        others.people.put("p1", email="new@example.com")
        await line.resolve(resolved.event("p1", traits={"email": "new@example.com"}))
        await support.until(lambda: held(meta) == hashes("new@example.com"), "replaced")


async def test_a_merge_hands_rows_to_the_survivor(serve: Any, meta: FakeMeta, others: Others) -> None:
    put(others, "p1", "p2")
    async with serve() as api:
        sync = await list_sync(api, meta)
        await others.buyers.enter("p1", "p2")
        await support.until(lambda: len(held(meta)) == 2, "added")
        sent = len(meta.requests)
        # p2 is merged into p1, whose profile now has one address only: that of p2.
        others.people.put("p1", email="p2@example.com")
        others.people.merge("p2", "p1")
        await others.buyers.tell(
            others.buyers.change("p2", False, cause="merge", merged_into="p1"),
            others.buyers.change("p1", False),
            others.buyers.change("p1", True),
        )
        await support.until(lambda: held(meta) == hashes("p2@example.com"), "handed over")
        ledger = await support.settled(api, sync)
        assert (ledger.expected, ledger.delivered) == (1, 1)
        removed = [body for method, _, body in meta.requests[sent:] if method == "DELETE"]
        assert len(removed) == 1  # only the address that nobody has any more


async def test_a_full_pass_sends_everything_again(serve: Any, meta: FakeMeta, others: Others) -> None:
    put(others, "p1", "p2", "p3")
    async with serve() as api:
        sync = await list_sync(api, meta)
        await others.buyers.enter("p1", "p2", "p3")
        await support.until(lambda: len(held(meta)) == 3, "added")
        await support.settled(api, sync)
        meta.rows[LIST].clear()  # somebody emptied it at the vendor
        answer = await api.syncs.RunSync(pb.RunSyncRequest(name=sync, full=True))
        assert answer.run.id
        await support.until(lambda: len(held(meta)) == 3, "sent again")

        async def ended() -> bool:
            runs = (await api.syncs.ListSyncRuns(pb.ListSyncRunsRequest(parent=sync))).runs
            return any(run.id == answer.run.id and run.HasField("end_time") and run.added == 3 for run in runs)

        await support.until(ended, "the pass is recorded")


async def test_rows_the_vendor_refuses_stay_with_their_reason(serve: Any, meta: FakeMeta, others: Others) -> None:
    put(others, "p1", "p2")
    meta.bad_cells = hashes("p2@example.com")
    async with serve() as api:
        sync = await list_sync(api, meta)
        await others.buyers.enter("p1", "p2")
        ledger = await support.settled(api, sync)
        assert (ledger.expected, ledger.delivered) == (2, 1)
        assert ledger.failed + ledger.warned == 1
        assert held(meta) == hashes("p1@example.com")


async def test_a_new_identifier_that_the_store_did_not_take_at_first_is_not_forgotten(
    serve: Any, meta: FakeMeta, others: Others, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(others, "p1")
    marking = ListStore.mark_dirty
    refusals = 1

    async def mark(self: ListStore, *args: Any, **more: Any) -> int:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise AutoReconnect("stepped down")
        return await marking(self, *args, **more)

    async with serve() as api:
        await list_sync(api, meta)
        await others.buyers.enter("p1")
        await support.until(lambda: held(meta) == hashes("p1@example.com"), "added")
        monkeypatch.setattr(ListStore, "mark_dirty", mark)
        others.people.put("p1", email="new@example.com")
        pair = [("anonymous_id", "a"), ("email", "new@example.com")]
        await line.resolve(resolved.event("p1", "Viewed", identifiers=pair))
        await support.until(lambda: held(meta) == hashes("new@example.com"), "replaced")
