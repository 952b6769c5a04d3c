"""Event syncs: one event per membership change, those that were missed included."""

from __future__ import annotations

from typing import Any

import pytest
from headrace_sync.ledger.accounts import Accounts
from pymongo.errors import AutoReconnect

from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from tests.support import sync as support
from tests.support.sync import Hooks, Others


async def test_entries_and_exits_are_told_once(serve: Any, hooks: Hooks, others: Others) -> None:
    others.people.put("p1", email="ada@example.com")
    others.buyers.change("early", True)  # a member before the sync was made
    async with serve() as api:
        destination = await api.destination("hook", hooks.url)
        both = await api.sync(
            "both", destination, SyncKind.SYNC_KIND_EVENT, audience=support.AUDIENCE, send_removals=True
        )
        await support.until(lambda: len(hooks.accepted) == 1, "who was a member already is told of")
        entered = others.buyers.change("p1", True)
        await others.buyers.tell(entered)
        await others.buyers.tell(entered)  # redelivered
        await others.buyers.leave("p1")
        await others.buyers.tell(others.buyers.change("early", False, cause="merge", merged_into="p1"))

        await support.until(lambda: len(hooks.accepted) == 3, "three events arrived")
        ledger = await support.settled(api, both)
    assert set(hooks.accepted.values()) == {1}
    assert (ledger.expected, ledger.delivered, dict(ledger.filtered)) == (4, 3, {"merged": 1})
    told_of = sorted((b["profile"]["id"] if b["profile"] else "", b["name"]) for b in hooks.bodies.values())
    assert told_of == [("", "added_to_segment"), ("p1", "added_to_segment"), ("p1", "removed_from_segment")]
    body = next(b for b in hooks.bodies.values() if b["profile"])
    assert (body["properties"]["audience_id"], body["properties"]["audience_name"]) == ("buyers", "Buyers")
    assert body["profile"]["traits"]["email"] == "ada@example.com"


async def test_who_was_a_member_before_is_counted_once_whatever_happens_while_they_are_told(
    serve: Any, hooks: Hooks, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Accounts.count_initial
    refusals = 1
    for id in ("p1", "p2", "p3"):
        others.buyers.change(id, True)

    async def count(self: Accounts, *args: Any) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            others.buyers.change("p3", False)  # leaves before it is tried again
            raise AutoReconnect("stepped down")
        await counting(self, *args)

    monkeypatch.setattr(Accounts, "count_initial", count)
    async with serve() as api:
        destination = await api.destination("hook", hooks.url)
        sync = await api.sync("added", destination, SyncKind.SYNC_KIND_EVENT, audience=support.AUDIENCE)
        await support.until(lambda: refusals < 0, "it was tried again")
        ledger = await support.settled(api, sync)
    assert (ledger.expected, ledger.delivered, dict(ledger.filtered)) == (4, 3, {"removals_off": 1})


async def test_removals_are_filtered_unless_wanted(serve: Any, hooks: Hooks, others: Others) -> None:
    async with serve() as api:
        destination = await api.destination("hook", hooks.url)
        sync = await api.sync("added", destination, SyncKind.SYNC_KIND_EVENT, audience=support.AUDIENCE)
        await others.buyers.enter("p1", "p2")
        await others.buyers.leave("p1")
        ledger = await support.settled(api, sync)
        await support.until(lambda: len(hooks.accepted) == 2, "both entries arrived")
        ledger = await support.settled(api, sync)
    assert (ledger.expected, ledger.delivered, dict(ledger.filtered)) == (3, 2, {"removals_off": 1})


async def test_missed_changes_are_told_after_comparing(serve: Any, hooks: Hooks, others: Others) -> None:
    async with serve(reconcile_seconds=0.5) as api:
        destination = await api.destination("hook", hooks.url)
        sync = await api.sync("added", destination, SyncKind.SYNC_KIND_EVENT, audience=support.AUDIENCE)
        await others.buyers.enter("p1")
        others.buyers.change("p2", True)  # told to nobody
        others.buyers.change("p2", False)
        others.buyers.change("p2", True)
        ledger = await support.settled(api, sync)
    assert ledger.expected == 4
    assert sorted(b["name"] for b in hooks.bodies.values()) == ["added_to_segment"] * 3
    assert set(hooks.accepted.values()) == {1}
