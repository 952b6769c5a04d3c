"""What list syncs store of members: many at a time, and exact when somebody else writes in between."""

from __future__ import annotations

from typing import Any

import pytest
from headrace_sync.lists.diff import HeldRow, MemberRecord, RowChange, RowState
from headrace_sync.lists.results import MemberResult
from headrace_sync.lists.store import ListStore
from headrace_sync.store import DELIVERED, LIST_MEMBERS, WAITING

from headrace.api.audience.v1.audience_pb2 import MembershipChange
from headrace.storage.mongo.client import Database, Document

SYNC = "acme/buyers"
WORKSPACE = "acme"


@pytest.fixture
def lists(db: Database) -> ListStore:
    return ListStore(db)


async def stored(db: Database) -> dict[str, Document]:
    return {d["p"]: d async for d in db[LIST_MEMBERS].find({})}


def change(profile_id: str, version: int = 1, *, member: bool = True, into: str = "") -> MembershipChange:
    return MembershipChange(profile_id=profile_id, member=member, version=version, merged_into=into)


async def enter(lists: ListStore, *profile_ids: str) -> None:
    await lists.change_members(WORKSPACE, [(SYNC, change(p)) for p in profile_ids], now=1)


def with_row(profile_id: str, state: RowState = RowState.SENT) -> MemberRecord:
    return MemberRecord(profile_id, True, 1, {f"row of {profile_id}": HeldRow({"EMAIL": profile_id}, state)})


@pytest.mark.parametrize("member", [True, False])
async def test_who_is_new_is_inserted_as_an_update_would_make_them(
    lists: ListStore, db: Database, member: bool
) -> None:
    """The first change is an insertion; of two changes at once the second one is an update of the same member."""
    into = "" if member else "survivor"
    await lists.change_members(WORKSPACE, [(SYNC, change("one", 3, member=member, into=into))], now=7)
    old, new = change("two", 2, member=not member), change("two", 3, member=member, into=into)
    await lists.change_members(WORKSPACE, [(SYNC, old), (SYNC, new)], now=7)
    found = await stored(db)
    assert found["two"].pop("g") == found["one"].pop("g") + 1
    for document in found.values():
        del document["_id"], document["p"]
    assert found["one"] == found["two"]
    assert found["one"] | {"k": SYNC, "w": WORKSPACE, "desired": member, "into": into, "v": 3, "due": 7} == found["one"]


async def test_a_change_that_another_process_stored_meanwhile_is_taken_in(
    lists: ListStore, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Insertions that find somebody there already become updates, and older versions change nothing."""
    await lists.change_members(WORKSPACE, [(SYNC, change("newer", 9, member=False)), (SYNC, change("older"))], now=1)
    collection = type(db[LIST_MEMBERS])
    find = collection.find

    def blind(self: Any, query: Document, *more: Any) -> Any:
        return find(self, {"_id": "nobody"}, *more)

    with monkeypatch.context() as patch:
        patch.setattr(collection, "find", blind)
        changes = [change("newer", 5), change("older", 5, member=False), change("third", 5)]
        await lists.change_members(WORKSPACE, [(SYNC, c) for c in changes], now=2)
    found = {p: (d["desired"], d["v"], d["due"]) for p, d in (await stored(db)).items()}
    assert found == {"newer": (False, 9, 1), "older": (False, 5, 2), "third": (True, 5, 2)}


async def test_nothing_is_intended_for_who_left(lists: ListStore, db: Database) -> None:
    """Between the look and the sending people leave, are forgotten, or leave and come back."""
    await enter(lists, "stays", "leaves", "returns", "forgotten")
    await lists.change_members(WORKSPACE, [(SYNC, change("leaves", 2, member=False))], now=2)
    await lists.mark_erased(SYNC, ["forgotten"], now=2)
    assert await lists.drop_members(SYNC, ["forgotten"]) == 1
    get = lists.get

    await lists.change_members(WORKSPACE, [(SYNC, change("returns", 2, member=False))], now=2)

    async def get_late(sync_key: str, profile_ids: list[str]) -> dict[str, Document]:
        await lists.change_members(WORKSPACE, [(SYNC, change("returns", 3))], now=3)
        return await get(sync_key, profile_ids)

    lists.get = get_late  # type: ignore[method-assign, assignment]
    people = ["stays", "leaves", "returns", "forgotten"]
    assert await lists.intend_rows(SYNC, [with_row(p) for p in people]) == {"leaves", "returns", "forgotten"}
    found = await stored(db)
    assert {p: len(d.get("rows", ())) for p, d in found.items()} == {"stays": 1, "leaves": 0, "returns": 0}


async def test_members_that_end_alike_are_finished_together(lists: ListStore, db: Database) -> None:
    """Rows are acknowledged in all of them; who was asked for meanwhile keeps its rows' state and stays due."""
    await enter(lists, "one", "two", "asked", "asked-replaced", "replaced")
    people = ["one", "two", "asked", "asked-replaced", "replaced"]
    assert not await lists.intend_rows(SYNC, [with_row(p) for p in people])
    await lists.mark_dirty(SYNC, ["asked", "asked-replaced"], now=5)
    results = []
    for p in people:
        rows = RowChange.REPLACED if p.endswith("replaced") else RowChange.ACKNOWLEDGED
        record = with_row(p, RowState.ACKNOWLEDGED)
        if rows is RowChange.REPLACED:
            record.rows = {"another": HeldRow({"EMAIL": "x"}, RowState.ACKNOWLEDGED)}
        results.append(MemberResult(record=record, generation=1, state=DELIVERED, rows=rows))
    await lists.finish(results, sync_key=SYNC, now=9)
    found = await stored(db)
    assert {p: d["st"] for p, d in found.items()} == {
        "one": DELIVERED,
        "two": DELIVERED,
        "replaced": DELIVERED,
        "asked": WAITING,
        "asked-replaced": WAITING,
    }
    assert {p: d.get("due") for p, d in found.items() if p.startswith("asked")} == {"asked": 5, "asked-replaced": 5}
    assert not any("due" in d for p, d in found.items() if not p.startswith("asked"))
    for p, document in found.items():
        keys = ["another"] if p.endswith("replaced") else [f"row of {p}"]
        assert [(row["k"], row["s"]) for row in document["rows"]] == [(k, RowState.ACKNOWLEDGED) for k in keys], p


async def test_results_that_differ_are_stored_apart(lists: ListStore, db: Database) -> None:
    """Each keeps its own reason, tries, moment and plan."""
    await enter(lists, "one", "two", "three", "four")
    results = [  # each differs from another in one thing alone
        MemberResult(record=MemberRecord("one"), generation=1, state=WAITING, reason="busy", tries=2, due=20),
        MemberResult(record=MemberRecord("two"), generation=1, state=WAITING, reason="busy", tries=3, due=20),
        MemberResult(record=MemberRecord("three"), generation=1, state=WAITING, reason="busy", tries=2, due=30),
        MemberResult(
            record=MemberRecord("four"), generation=1, state=WAITING, reason="busy", tries=2, due=20, plan=["p", "d"]
        ),
    ]
    await lists.finish(results, sync_key=SYNC, now=9)
    found = {p: (d["r"], d["at"], d["due"], d.get("pn")) for p, d in (await stored(db)).items()}
    assert found == {
        "one": ("busy", 2, 20, None),
        "two": ("busy", 3, 20, None),
        "three": ("busy", 2, 30, None),
        "four": ("busy", 2, 20, ["p", "d"]),
    }
