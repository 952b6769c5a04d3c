"""Work of the sync service that is crashed between any two writes, run by `test_crash_points` in a process of its own.

python -m tests.integration.sync.crash_scenarios NAME MONGO_URL DATABASE FOLDER FIRST STEP [RECEIVER]
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from headrace_sync.alerts.hooks import Hook
from headrace_sync.alerts.message import Alert, AlertKind
from headrace_sync.alerts.sender import Alerts
from headrace_sync.config import SyncConfig
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.jobs.store import JobStore
from headrace_sync.leases import Lease, Leases
from headrace_sync.ledger.accounts import Accounts
from headrace_sync.ledger.retention import Retention
from headrace_sync.lists.following import Following
from headrace_sync.lists.runner import Lists
from headrace_sync.lists.store import ListStore
from headrace_sync.lists.targets import Place
from headrace_sync.outlets.batch import ADD_MEMBERS, REMOVE_MEMBERS
from headrace_sync.outlets.http import VendorClient
from headrace_sync.outlets.verdicts import Kind, Verdict
from headrace_sync.people.consents import Allowed
from headrace_sync.plans.keeper import PlanKeeper
from headrace_sync.plans.store import PlanState, PlanStore
from headrace_sync.registry import Registry
from headrace_sync.store import DELIVERED, FAILED, WAITING, ConfigStore

from headrace.api.audience.v1.audience_pb2 import MembershipChange
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.connector import wire
from headrace.domain.ids import new_time_ordered_id, time_ordered_floor
from headrace.domain.times import DAY_US, now_us
from headrace.storage.mongo.client import Database
from headrace.storage.mongo.log import event_document
from headrace_sdk import Member, Request, Row
from tests.support import resolved
from tests.support.crash_points import survive

LIST = SyncConfig(
    "acme\x1fs", "s-1", "acme", "s", "S", SyncKind.SYNC_KIND_LIST, "d", "buyers", (), "", False, False, 0, 0, 0, 1
)
QUICK_LEASE_S = 0.3


class Vendor:
    """A vendor whose list survives the process: a file to which each row that it took is appended."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "vendor.ndjson"
        self.info = SimpleNamespace(
            name="vendor",
            rows_match_people=False,
            concurrency=1,
            batch=SimpleNamespace(max_items=2),
            retry=SimpleNamespace(base_s=0.0, cap_s=0.0),
        )
        self.required_consents = ()
        self.consents_changed_us = 0
        self.place = Place()
        self.refusal = ""

    def paused_s(self) -> float:
        return 0.0

    def is_on_trial(self) -> bool:
        return False

    async def rows(self, members: Sequence[Member]) -> list[wire.MemberRows]:
        return [wire.MemberRows(rows=(Row(key=m.profile_id, data=m.profile_id),)) for m in members]

    async def send(self, operation: str, rows: Sequence[Row], **_: Any) -> list[Verdict]:
        for row in rows:
            self.note(operation, row.key)
        return [Verdict(Kind.DELIVERED)] * len(rows)

    async def members(self, _: Any, __: Any, profile_ids: Sequence[str]) -> dict[str, Allowed[Member]]:
        return {id: Allowed(Member(profile_id=id)) for id in profile_ids}

    def note(self, what: str, key: str = "") -> None:
        with self._file.open("a") as file:
            file.write(json.dumps([what, key]) + "\n")

    def told(self) -> list[list[str]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.exists() else []

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)


class Guarded:
    """Passes of a list sync that asks for approval."""

    def __init__(self, folder: Path, sync: SyncConfig) -> None:
        self.vendor = Vendor(folder)
        self.sync = sync

    def lists(self, db: Database) -> Lists:
        leases = Leases(db, owner=new_time_ordered_id(), ttl_s=QUICK_LEASE_S)
        hooks = cast(Any, SimpleNamespace(of=lambda _: Hook("http://alerts.example", "")))
        alerts = Alerts(db, cast(Any, None), leases, hooks)
        store, items = ListStore(db), cast(Any, self.vendor)
        return Lists(
            registry=cast(Any, SimpleNamespace(current=SimpleNamespace(syncs={self.sync.key: self.sync}))),
            fleet=cast(Any, SimpleNamespace(outlet_of=lambda _: self.vendor)),
            lists=store,
            items=items,
            leases=leases,
            plans=PlanKeeper(PlanStore(db), store, items, alerts),
            jobs=JobStore(db),
            following=Following(db, store, PlanStore(db)),
            delete=ConfigStore(db).delete_sync,
            debounce_s=0.0,
            every_s=1.0,
        )

    async def reset(self, db: Database) -> None:
        for name in ("list_members", "sync_plans", "sync_runs", "sync_state", "sync_alerts"):
            await db[name].delete_many({})
        self.vendor.forget()

    async def change(self, db: Database, profile_ids: Sequence[str], *, member: bool, version: int) -> None:
        changes = [MembershipChange(profile_id=id, member=member, version=version) for id in profile_ids]
        await ListStore(db).change_members("acme", [(self.sync.key, c) for c in changes], now=now_us())

    async def passes(self, db: Database) -> None:
        """Passes until there is nothing to do but to wait for somebody."""
        lists, store = self.lists(db), ListStore(db)
        async with asyncio.timeout(20):
            while True:
                ran = await lists.pass_once(self.sync.key)
                asks = await PlanStore(db).needs_pass(self.sync.key, guarded=True)
                if ran and not asks and not await store.has_due(self.sync.key, now=now_us()):
                    return
                await asyncio.sleep(0.02)

    async def alerts_match(self, db: Database) -> None:
        """Each plan that was complete is told of, once."""
        alerts = sorted([d["plan"] async for d in db["sync_alerts"].find({})])
        plans = sorted([d["_id"] async for d in db["sync_plans"].find({"st": {"$ne": PlanState.MAKING}})])
        assert alerts == plans, (alerts, plans)


class Approval(Guarded):
    """A first fill that is approved as soon as it is asked for."""

    PEOPLE = ("p1", "p2", "p3", "p4", "p5")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, replace(LIST, require_approval=True))

    async def work(self, db: Database) -> None:
        await self.change(db, self.PEOPLE, member=True, version=1)
        await self.passes(db)
        plans = PlanStore(db)
        waiting = (await plans.waiting([self.sync.key])).get(self.sync.key)
        if waiting is not None:
            assert waiting["added"] == len(self.PEOPLE)
            self.vendor.note("approved", waiting["_id"])
            await plans.approve(self.sync.key, waiting["_id"], now=now_us())
        await self.passes(db)

    async def check(self, db: Database) -> None:
        told = self.vendor.told()
        plans = {key for what, key in told if what == "approved"}
        assert len(plans) == 1, "one plan is asked for, however often"
        assert told[0][0] == "approved", "nothing is sent before the approval"
        added = Counter(key for what, key in told if what == ADD_MEMBERS)
        assert set(added) == set(self.PEOPLE) and max(added.values()) <= 2, added
        assert not [what for what, _ in told if what == REMOVE_MEMBERS]
        members = [d async for d in db["list_members"].find({})]
        assert {d["st"] for d in members} == {DELIVERED}
        assert all(row["s"] == 1 for d in members for row in d["rows"])
        await self.alerts_match(db)


class BlastRadius(Guarded):
    """Six of ten people leave a list of which three tenths may be changed unasked."""

    PEOPLE = tuple(f"p{n}" for n in range(10))

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, replace(LIST, most_changed_percent=30))

    async def reset(self, db: Database) -> None:
        await super().reset(db)
        await self.change(db, self.PEOPLE, member=True, version=1)
        sync, self.sync = self.sync, LIST
        await self.passes(db)
        self.sync = sync
        self.vendor.forget()

    async def work(self, db: Database) -> None:
        for first in (0, 3):
            await self.change(db, self.PEOPLE[first : first + 3], member=False, version=2)
            await self.passes(db)

    async def check(self, db: Database) -> None:
        told = self.vendor.told()
        removed = Counter(key for what, key in told if what == REMOVE_MEMBERS)
        assert len(removed) <= 3 and max(removed.values(), default=0) <= 2, removed
        window = await db["sync_state"].find_one({"_id": {"$regex": "^window"}})
        assert window is not None and window["others"] >= len(removed), "what was sent is counted"
        held = [d async for d in db["list_members"].find({"r": "approval"})]
        # Who was removed by a process that did not live to write it down may wait, too: nobody knows it here.
        assert {d["p"] for d in held} | removed.keys() == set(self.PEOPLE[:6]), "who was not removed waits to be"
        waiting = [d async for d in db["sync_plans"].find({"st": PlanState.WAITING})]
        # What was counted and not sent is asked for; who left after the plan was made waits for the next one.
        assert [0 < d["removed"] <= len(held) for d in waiting] == [True], waiting
        await self.alerts_match(db)


class Telling:
    """Alerts that are kept and told."""

    IDS = ("a1", "a2", "a3")

    def __init__(self, folder: Path, receiver: str) -> None:
        self._receiver = receiver

    def alerts(self, db: Database, client: VendorClient) -> Alerts:
        hooks = cast(Any, SimpleNamespace(of=lambda _: Hook(self._receiver, "key")))
        return Alerts(db, client, Leases(db, owner=new_time_ordered_id()), hooks)

    async def reset(self, db: Database) -> None:
        await db["sync_alerts"].delete_many({})
        await self._say("/reset")

    async def work(self, db: Database) -> None:
        client = VendorClient(allow_private=True)
        alerts = self.alerts(db, client)
        for id in self.IDS:
            await alerts.add("acme\x1fd", Alert(id, AlertKind.APPROVAL_NEEDED, "a sync", "a reason", 1))
        await alerts.tell(Lease())
        await client.close()

    async def check(self, db: Database) -> None:
        told: Counter[str] = Counter(json.loads(await self._say("/told")))
        assert set(told) == set(self.IDS), told
        assert sum(told.values()) <= len(self.IDS) + 1, "a crash repeats one alert at most, under its id"
        assert await db["sync_alerts"].count_documents({"na": {"$exists": True}}) == 0

    async def _say(self, path: str) -> bytes:
        client = VendorClient(allow_private=True)
        url = self._receiver.removesuffix("/alerts") + path
        answer = await client.send(Request(method="GET", url=url, headers={}, body=b"", items=()), timeout_s=10)
        await client.close()
        return answer.body


class Forgetting:
    """Deliveries that are too old go; what waits and what is young stays, and the account balances."""

    SYNC = replace(
        LIST, kind=SyncKind.SYNC_KIND_FORWARDING, audience_id="", created_us=1, updated_us=1, doc_id="acme\x1ff", id="f"
    )
    NOW = now_us()

    def __init__(self, folder: Path) -> None:
        pass

    async def reset(self, db: Database) -> None:
        for name in ("syncs", "deliveries", "ledger", "sync_state", "events"):
            await db[name].delete_many({})
        await db["syncs"].insert_one(self.SYNC.document())
        for n, (age_days, state) in enumerate([(40, DELIVERED), (40, FAILED), (1, DELIVERED), (1, WAITING)]):
            made = self.NOW - age_days * DAY_US
            segment = time_ordered_floor(made)
            event = resolved.event("p1", "Purchased", message_id=f"m{n}")
            event.segment_id, event.segment_index = segment, 0
            event.decision.sequence = made
            await db["events"].insert_one(event_document(event))
            delivery = {"_id": f"{self.SYNC.key}\x1fm{n}", "k": self.SYNC.key, "w": "acme", "m": f"m{n}"}
            await db["deliveries"].insert_one({**delivery, "st": state, "c": made, "u": made, "g": segment, "na": made})

    async def work(self, db: Database) -> None:
        store = ConfigStore(db)
        registry = Registry(store)
        accounts = self.accounts(db)
        leases = Leases(db, owner=new_time_ordered_id(), ttl_s=QUICK_LEASE_S)
        retention = Retention(db, store, registry, accounts, leases, days=28)
        for _ in range(2):
            await registry.refresh()
            (sync,) = registry.current.syncs.values()
            await accounts.account(sync)  # somebody looks at the account now and then
            await retention.sweep(Lease(), now=self.NOW)

    def accounts(self, db: Database) -> Accounts:
        return Accounts(db, DeliveryStore(db), ListStore(db), cast(Any, None))

    async def check(self, db: Database) -> None:
        assert sorted([d["m"] async for d in db["deliveries"].find({})]) == ["m2", "m3"]
        registry = Registry(ConfigStore(db))
        await registry.refresh()
        (sync,) = registry.current.syncs.values()
        account = await self.accounts(db).account(sync)
        assert (account.expected, account.delivered, account.waiting, account.unaccounted) == (2, 1, 1, 0), account


def main() -> None:
    """Run a scenario; writes how many crashes it survived."""
    name, url, database, folder, first, step, *more = sys.argv[1:]
    made: Any = {
        "approval": Approval,
        "blast-radius": BlastRadius,
        "alerts": Telling,
        "retention": Forgetting,
    }[name](Path(folder), *more)
    sys.stdout.write(str(survive(made, url, database, first=int(first), step=int(step))))


if __name__ == "__main__":
    main()
