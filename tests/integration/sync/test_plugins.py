"""Plugins that raise, hang, end, lose items or answers: only what is at fault is parked, and nothing is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from headrace_sync.outlets.batch import SEND_EVENTS
from headrace_sync.outlets.http import VendorClient
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.verdicts import Kind

from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from headrace_sdk import BatchPolicy, EventItem
from tests.support import plugin_zoo
from tests.support.outlets import Bench, benched

FAULTS = (
    "good",
    "raises",
    "hangs-once",
    "exits",
    "loses-item",
    "few-outcomes",
    "no-outcomes",
    "leaky-reasons",
    "takes-jobs",
    "refused-whole",
    "one-by-one",
    "remarks",
    "misconfigured",
)


@pytest.fixture
async def bench(tmp_path: Path, redis: Redis, db: Database) -> AsyncIterator[Bench]:
    plugin_zoo.install_callers(tmp_path, *FAULTS)
    async with benched(tmp_path, redis, db) as made:
        yield made


def items(*message_ids: str) -> list[EventItem]:
    return [EventItem(message_id=id, kind="track", name="Purchased") for id in message_ids]


async def kinds(outlet: Outlet, *message_ids: str) -> list[Kind]:
    verdicts = await outlet.send(SEND_EVENTS, items(*message_ids))
    assert all(plugin_zoo.SECRET not in verdict.reason for verdict in verdicts)
    return [verdict.kind for verdict in verdicts]


async def test_a_good_plugin_delivers(bench: Bench) -> None:
    assert await kinds(bench.outlet("good"), "a", "b", "c") == [Kind.DELIVERED] * 3


@pytest.mark.parametrize("fault", ["raises", "loses-item"])
async def test_a_plugin_that_fails_on_everything_parks_each_item(bench: Bench, fault: str) -> None:
    assert await kinds(bench.outlet(fault), "a", "b", "c") == [Kind.PLUGIN] * 3
    assert bench.requests == 0


async def test_a_remark_makes_a_warning_of_what_the_vendor_took(bench: Bench) -> None:
    taken, other = await bench.outlet("remarks").send(SEND_EVENTS, items("a", "b"))
    assert (taken.kind, taken.reason, taken.code, other.kind) == (Kind.WARNED, "has no currency", 200, Kind.DELIVERED)
    bench.status = 401
    refused, _ = await bench.outlet("remarks").send(SEND_EVENTS, items("a", "b"))
    assert refused.kind is Kind.UNTRIED


async def test_settings_that_turn_out_not_to_work_stop_the_destination(bench: Bench) -> None:
    assert await kinds(bench.outlet("misconfigured"), "a", "b") == [Kind.UNTRIED] * 2
    assert bench.halted == ["the settings cannot work: the list is gone: choose another"]
    assert bench.requests == 0


async def test_the_item_at_fault_is_found_by_halves(bench: Bench) -> None:
    found = await kinds(bench.outlet("hangs-once"), "poison", "b", "c", "d")
    assert found == [Kind.PLUGIN, Kind.DELIVERED, Kind.DELIVERED, Kind.DELIVERED]


async def test_a_plugin_that_ends_its_process_harms_only_its_own(bench: Bench) -> None:
    found = await kinds(bench.outlet("exits"), "a", "b")
    assert set(found) <= {Kind.PLUGIN, Kind.UNTRIED}
    assert Kind.PLUGIN in found


async def test_requests_of_one_item_go_out_one_after_the_other(bench: Bench) -> None:
    outlet = bench.outlet("one-by-one")
    assert await kinds(outlet, "a", "bad", "b") == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
    for name in "ab":
        assert [path for path in bench.paths if f"?{name}" in path] == [f"/in?{name}{step}" for step in range(3)]


@pytest.mark.parametrize(
    ("statuses", "kind", "sent"),
    [
        ([200, 503], Kind.RETRY, 2),
        ([500], Kind.RETRY, 1),
        ([202, 200, 200], Kind.WARNED, 3),
        ([200, 200, 503], Kind.RETRY, 3),
    ],
)
async def test_the_first_request_that_is_not_accepted_ends_an_item(
    bench: Bench, statuses: list[int], kind: Kind, sent: int
) -> None:
    bench.statuses = statuses
    assert await kinds(bench.outlet("one-by-one"), "a") == [kind]
    assert bench.requests == sent


@pytest.mark.parametrize("fault", ["few-outcomes", "no-outcomes"])
async def test_unreadable_answers_are_looked_at_item_by_item(bench: Bench, fault: str) -> None:
    found = await kinds(bench.outlet(fault), "a", "b")
    # Alone, each has as many outcomes as items with the first of the two plugins, and none with the other.
    assert found == [Kind.DELIVERED if fault == "few-outcomes" else Kind.PLUGIN] * 2


@pytest.mark.parametrize(
    ("message_ids", "requests"),
    [
        (["a", "bad", "b", "c"], 5),  # all four, the first two of them, each of these, the other two
        (["a", "bad", "bad-2"], 5),
        (["a", "bad-named", "b", "bad-2-named"], 2),
        (["bad-named", "a", "bad", "b"], 6),  # first without the one that is named, then by halves
        (["bad"], 1),
        (["bad-named"], 1),
        (["a", "b"], 1),
    ],
)
async def test_a_vendor_that_refuses_all_for_one_gets_the_others(
    bench: Bench, message_ids: list[str], requests: int
) -> None:
    found = await kinds(bench.outlet("refused-whole"), *message_ids)
    assert found == [Kind.REJECTED if one.startswith("bad") else Kind.DELIVERED for one in message_ids]
    assert bench.requests == requests


async def test_a_vendor_that_counts_repetitions_is_not_asked_twice(bench: Bench) -> None:
    found = await kinds(bench.outlet("few-outcomes", idempotency="none"), "a", "b")
    assert found == [Kind.LOST] * 2
    assert bench.requests == 1


async def test_reasons_are_masked_and_cut(bench: Bench) -> None:
    outlet = bench.outlet("leaky-reasons")
    (verdict,) = await outlet.send(SEND_EVENTS, items("a"))
    assert verdict.kind is Kind.REJECTED
    assert "********" in verdict.reason
    assert len(verdict.reason) <= 500


async def test_refused_credentials_stop_the_outlet(bench: Bench) -> None:
    outlet = bench.outlet("good")
    bench.status = 401
    assert await kinds(outlet, "a", "b") == [Kind.UNTRIED] * 2
    assert len(bench.halted) == 1
    assert plugin_zoo.SECRET not in bench.halted[0]
    assert outlet.paused_s() > 0
    assert await kinds(outlet, "c") == [Kind.UNTRIED]
    assert bench.requests == 1


async def test_a_request_that_is_too_large_is_halved(bench: Bench) -> None:
    policy = BatchPolicy(max_items=100, max_bytes=1, max_wait_s=0.0)
    found = await kinds(bench.outlet("good", batch=policy), "a", "b")
    assert found == [Kind.REJECTED] * 2  # even one is too large, and says so
    assert bench.requests == 0


async def test_private_addresses_are_refused(bench: Bench, redis: Redis) -> None:
    guarded = VendorClient(allow_private=False)
    bench.client = guarded
    verdicts = await bench.outlet("good").send(SEND_EVENTS, items("a"))
    assert verdicts[0].kind is Kind.REJECTED
    assert "private" in verdicts[0].reason
    await guarded.close()


async def test_jobs_are_followed_to_their_end(bench: Bench) -> None:
    bench.statuses = [202, 202, 202, 200]
    assert await kinds(bench.outlet("takes-jobs"), "a", "b") == [Kind.DELIVERED] * 2
    assert bench.paths == ["/in", "/in?job=j1", "/in?job=j1", "/in?job=j1"]
