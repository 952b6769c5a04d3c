"""Merges and undone merges at list syncs: the real passes on a real store; the vendor ends with the members' rows.

The reference is plain: people are sets of parts, each part has rows of its own (some the same as another's), and who
is a member has the rows of all their parts on the list. Membership changes come late and in bundles, passes come at any
time, and the vendor loses answers and refuses.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from headrace_sync.config import SyncConfig
from headrace_sync.lists.passes import ListPass, Tally
from headrace_sync.lists.store import ListStore
from headrace_sync.mappings.items import NO_PROFILE
from headrace_sync.outlets.batch import ADD_MEMBERS
from headrace_sync.outlets.verdicts import Kind, Verdict
from headrace_sync.people.consents import Allowed
from headrace_sync.planning.rules import MERGED

from headrace.api.audience.v1.audience_pb2 import MembershipChange
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.connector import wire
from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database
from headrace_sdk import Member, Row

PARTS = ("p0", "p1", "p2", "p3", "p4")
OWN_ROWS = {"p0": {"a"}, "p1": {"b", "c"}, "p2": {"c"}, "p3": {"d"}, "p4": {"a", "d"}}
SYNC = SyncConfig(
    "acme\x1fs", "s-1", "acme", "s", "S", SyncKind.SYNC_KIND_LIST, "d", "buyers", (), "", False, False, 0, 0, 0, 1
)


@dataclass
class World:
    """Identity, the audience and the vendor, in the plainest form."""

    chance: random.Random
    matches_people: bool
    merges: list[tuple[str, str]] = field(default_factory=list)
    """(loser, survivor) of the merges in force, in their order."""
    vanished: set[str] = field(default_factory=set)
    qualified: set[str] = field(default_factory=set)
    versions: dict[str, int] = field(default_factory=dict)
    told: dict[str, bool] = field(default_factory=dict)
    untold: list[MembershipChange] = field(default_factory=list)
    vendor: set[str] = field(default_factory=set)

    def root(self, part: str) -> str:
        into = dict(self.merges)
        while part in into:
            part = into[part]
        return part

    def rows(self, root: str) -> set[str]:
        return set().union(*(OWN_ROWS[p] for p in PARTS if self.root(p) == root and p not in self.vanished))

    def members(self) -> set[str]:
        return {self.root(p) for p in self.qualified if p not in self.vanished} - self.vanished

    def tell_members(self) -> None:
        """The audience notices who is a member now."""
        members = self.members()
        for part in PARTS:
            member = part in members
            if member != self.told.get(part, False):
                self.told[part] = member
                self.versions[part] = self.versions.get(part, 0) + 1
                root = self.root(part)
                into = root if not member and root != part else ""
                self.untold.append(
                    MembershipChange(
                        audience_id="buyers",
                        profile_id=part,
                        member=member,
                        version=self.versions[part],
                        merged_into=into,
                    )
                )

    # What a pass asks of the way to the vendor:

    @property
    def info(self) -> Any:
        return SimpleNamespace(
            rows_match_people=self.matches_people,
            concurrency=1,
            batch=SimpleNamespace(max_items=2),
            retry=SimpleNamespace(base_s=0.0, cap_s=0.0),
        )

    async def rows_of(self, members: Sequence[Member]) -> list[wire.MemberRows]:
        return [
            wire.MemberRows(rows=tuple(Row(key=key, data=key) for key in sorted(self.rows(member.profile_id))))
            for member in members
        ]

    async def send(self, operation: str, rows: Sequence[Row], **_: Any) -> list[Verdict]:
        verdicts = []
        for row in rows:
            fate = self.chance.choice(self.fates)
            if fate != "refused":
                (self.vendor.add if operation == ADD_MEMBERS else self.vendor.discard)(row.key)
            verdicts.append(Verdict(Kind.DELIVERED) if fate == "ok" else Verdict(Kind.RETRY, fate, after_s=0.0))
        return verdicts

    fates: tuple[str, ...] = ("ok", "ok", "ok", "lost", "refused")

    # What it asks of whoever makes members:

    async def made(self, _: Any, __: Any, profile_ids: Sequence[str]) -> dict[str, Allowed[Member] | Verdict]:
        found: dict[str, Allowed[Member] | Verdict] = {}
        for id in profile_ids:
            if id in self.vanished:
                found[id] = Verdict(Kind.SKIPPED, NO_PROFILE)
            elif self.root(id) != id:
                found[id] = Verdict(Kind.GONE, MERGED)
            else:
                found[id] = Allowed(Member(profile_id=id))
        return found


async def run_pass(world: World, lists: ListStore) -> None:
    outlet = SimpleNamespace(
        info=world.info,
        required_consents=(),
        paused_s=lambda: 0.0,
        is_on_trial=lambda: False,
        rows=world.rows_of,
        send=world.send,
    )
    await ListPass(
        sync=SYNC,
        outlet=cast(Any, outlet),
        lists=lists,
        items=cast(Any, SimpleNamespace(members=world.made)),
        lease=cast(Any, SimpleNamespace(check=lambda: None)),
        tally=Tally(),
        jobs=cast(Any, None),
    ).run()


async def step(world: World, lists: ListStore, db: Database) -> None:
    chance = world.chance
    what = chance.choice(["qualify", "qualify", "merge", "undo", "tell", "pass", "pass", "vanish"])
    if what == "qualify":
        world.qualified ^= {chance.choice(PARTS)}
    elif what == "merge":
        loser, survivor = chance.sample(PARTS, 2)
        if world.root(loser) == loser and world.root(survivor) == survivor and not world.vanished & {loser, survivor}:
            world.merges.append((loser, survivor))
            await lists.mark_dirty(SYNC.key, [survivor], now=now_us())
    elif what == "undo" and world.merges:
        undone = world.merges.pop(chance.randrange(len(world.merges)))
        affected = {*undone, world.root(undone[1])}
        await lists.mark_dirty(SYNC.key, affected, now=now_us())
    elif what == "vanish":
        part = chance.choice(PARTS)
        if not any(part in merge for merge in world.merges):
            world.vanished ^= {part}
            await lists.mark_dirty(SYNC.key, [part], now=now_us())
    elif what == "tell":
        world.tell_members()
        count = chance.randint(0, len(world.untold))
        changes, world.untold = world.untold[:count], world.untold[count:]
        await lists.change_members("acme", [(SYNC.key, change) for change in changes], now=now_us())
    elif what == "pass":
        await run_pass(world, lists)
        if chance.random() < 0.3:
            await db["list_members"].update_many({"hold": {"$exists": True}}, {"$set": {"hold": 1}})


@pytest.mark.parametrize("matches_people", [False, True])
@pytest.mark.parametrize("seed", [*range(6), 34])
async def test_the_vendor_ends_with_the_rows_of_the_members(db: Database, seed: int, matches_people: bool) -> None:
    world = World(random.Random(seed), matches_people)
    lists = ListStore(db)
    for _ in range(40):
        await step(world, lists, db)
    world.tell_members()
    await lists.change_members("acme", [(SYNC.key, change) for change in world.untold], now=now_us())
    world.fates = ("ok",)
    for _ in range(4):
        await db["list_members"].update_many({"hold": {"$exists": True}}, {"$set": {"hold": 1}})
        await db["list_members"].update_many({"due": {"$gt": 0}}, {"$set": {"due": 1}})
        await run_pass(world, lists)
    should = set().union(*(world.rows(root) for root in world.members()))
    held = {d["p"]: sorted(r["k"] for r in d.get("rows", ())) async for d in db["list_members"].find({})}
    assert world.vendor == should, (held, world.members(), world.merges, world.vanished)
    assert {p: keys for p, keys in held.items() if keys} == {
        root: sorted(world.rows(root)) for root in world.members() if world.rows(root)
    }
