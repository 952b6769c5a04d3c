"""How soon memberships flip whose moment passes: the real service on real stores, with 100 audiences.

A million people are put into snapshots as the service stores them, and the service starts from these. Then some of them
get events through the streams that make them leave or enter audiences later by time alone: evenly over a minute, and
very many at one moment, as at midnight. The lag is from that moment to the commit of the membership (by the wall clock
of MongoDB's operation log) and to the message on the changes stream (by the clock of Redis).
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np
import pyarrow as pa
from headrace_audience.calls.handlers import Audiences
from headrace_audience.engine.conditions import states_of
from headrace_audience.engine.engine import PROFILES, Engine
from headrace_audience.language.parser import parse_definition
from headrace_audience.memberships.flips import FlipWriter
from headrace_audience.partitions.incarnation import incarnation
from headrace_audience.partitions.snapshots import Snapshot, SnapshotStore
from headrace_audience.store import ACTIVE, AUDIENCES, CHANGES, MEMBERSHIPS, membership_key
from pymongo import MongoClient

from headrace.api.audience.v1.audience_pb2 import MembershipChangeBatch
from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.api.identity.v1.profile_pb2 import ResolvedBatch, ResolvedEvent
from headrace.domain.ids import partition_of
from headrace.domain.times import DAY_US, SECOND_US, now_us
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo.client import Client, Database, Document
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from tests.benchmarks.alone import DATABASE, Alone, services_alone
from tests.benchmarks.results import Result
from tests.support.audience import NoComputedTraits

WORKSPACE = "bench"
PARTITIONS = 64
PEOPLE = int(os.environ.get("BENCH_PEOPLE", "1000000"))
"""Number of people; BENCH_PEOPLE makes it smaller."""
BURST = int(os.environ.get("BENCH_BURST", "50000"))
"""Flips at one moment."""
TRICKLE_S = 60
PER_SECOND = 100
"""People whose moments pass in a second of the trickle; most flip in two audiences."""
TARGET_S = 2.0
DAYS = (1, 2, 3, 5, 7, 14, 30, 45, 60, 90)
KINDS = 40


def definitions() -> dict[str, dict[str, Any]]:
    """100 audiences."""
    found: dict[str, dict[str, Any]] = {"registered": {"event": "Registered"}, "probe": {"event": "Probe"}}
    for days in DAYS[2:]:
        found[f"often-{days}"] = {"event": "Viewed", "within": f"{days}d", "count": {"gte": 8}}
    for n, days in enumerate(DAYS):
        found[f"due-{n}"] = {"event": f"Due {n}", "older_than": f"{days}d", "within": f"{days + 1}d"}
    for n in range(KINDS):
        did = {"event": f"Left {n}", "within": f"{DAYS[n % len(DAYS)]}d"}
        found[f"left-{n}"] = did
        found[f"left-unsold-{n}"] = {"all": [did, {"not": {"event": "Purchased", "within": "7d"}}]}
    assert len(found) == 100
    return found


async def run(people: int = PEOPLE, burst: int = BURST) -> list[Result]:
    """All figures of this file."""
    quiet = {"HEADRACE_PARTITIONS": str(PARTITIONS), "HEADRACE_AUDIENCE_CHECK_SECONDS": "1000000"}
    with tempfile.TemporaryDirectory() as folder, services_alone(Path(folder), [], quiet, cache_gb=2.0) as alone:
        client = mongo_client.connect(alone.stores.mongo_url)
        redis = streams.connect(alone.stores.redis_url)
        try:
            return await _Measuring(alone, client, redis, people, burst).run()
        finally:
            await redis.aclose()
            await mongo_client.close(client)


class _Measuring:
    def __init__(self, alone: Alone, client: Client, redis: streams.Redis, people: int, burst: int) -> None:
        self._alone = alone
        self._client = client
        self._db: Database = client[DATABASE]
        self._redis = redis
        self._people = people
        self._burst = burst // 2
        """People of the burst: each flips in two audiences."""
        self._position = "0"
        self._number = 0

    async def run(self) -> list[Result]:
        await fill(self._client, self._db, self._redis, self._people)
        began = time.monotonic()
        self._alone.serve(["audience"])
        await self._send([self._event(n, "Probe", now_us()) for n in range(min(self._people, 1_000))])
        await self._changes("probe", min(self._people, 1_000))
        ready_s = time.monotonic() - began
        found = [
            Result(name=f"start of the service with {self._people:,} people", value=ready_s, unit="s",
                   lower_is_better=True, note=f"{self._alone.resident_mib('audience'):,.0f} MiB resident"),
        ]  # fmt: skip
        found += await self._measured("trickle", self._trickle)
        found += await self._measured("burst", self._at_once)
        return found

    def _trickle(self, begin: int) -> list[ResolvedEvent]:
        events = []
        count = min(TRICKLE_S * PER_SECOND, self._people // 4)
        for n in range(count):
            moment = begin + n * TRICKLE_S * SECOND_US // count
            kind = n // 2 % (KINDS if n % 2 else len(DAYS))
            days = DAYS[kind % len(DAYS)]
            events.append(self._event(n, f"{'Left' if n % 2 else 'Due'} {kind}", moment - days * DAY_US))
        return events

    def _at_once(self, begin: int) -> list[ResolvedEvent]:
        first = self._people // 2
        count = min(self._burst, self._people // 2)
        return [
            self._event(first + n, f"Left {n % KINDS}", begin - DAYS[n % KINDS % len(DAYS)] * DAY_US)
            for n in range(count)
        ]

    async def _measured(self, name: str, make: Any) -> list[Result]:
        lead_s = 20 + self._burst // (200 if name == "burst" else 2_000)
        events = make(now_us() + lead_s * SECOND_US)
        operations = await self._now()
        await self._send(events)
        entering = 2 * sum(e.event.name.startswith("Left") for e in events)
        await self._changes("left-", entering)
        expected = sum(2 if e.event.name.startswith("Left") else 1 for e in events)
        sent = await self._changes("", expected, cause="time")
        stored = await asyncio.to_thread(
            committed, self._alone.stores.mongo_url, operations, {(a, p, e) for a, p, e, _ in sent}
        )
        lines = []
        for what, lags in (
            ("stored membership", [lag / SECOND_US for lag in stored]),
            ("message on the stream", [(at - e) / SECOND_US for _, _, e, at in sent]),
        ):
            p50, p99 = (quantiles(lags, n=100)[i] for i in (49, 98))
            title = f"{name} of {len(sent):,} flips, {self._people:,} people: to the {what}"
            note = f"p50 {p50:.3f} s, p99 {p99:.3f} s, max {max(lags):.3f} s"
            lines.append(Result(name=title, value=p99, unit="s", target=TARGET_S, lower_is_better=True, note=note))
        return lines

    async def _now(self) -> Any:
        answer = await self._client.admin.command("ping")
        return answer["operationTime"]

    def _event(self, person: int, name: str, at_us: int) -> ResolvedEvent:
        self._number += 1
        event = Event(
            message_id=f"live{self._number}",
            workspace_id=WORKSPACE,
            kind=EventKind.EVENT_KIND_TRACK,
            name=name,
            timestamp_us=at_us,
            received_at_us=now_us(),
        )
        return ResolvedEvent(profile_id=profile_of(person), event=event)

    async def _send(self, events: Sequence[ResolvedEvent]) -> None:
        batches: dict[int, list[ResolvedBatch]] = {}
        for event in events:
            partition = partition_of(event.profile_id, PARTITIONS)
            own = batches.setdefault(partition, [])
            if not own or len(own[-1].events) == 100:
                own.append(ResolvedBatch(workspace_id=WORKSPACE, partition=partition))
            own[-1].events.append(event)
        messages = [(names.resolved(p), b.SerializeToString()) for p, own in batches.items() for b in own]
        await streams.send(self._redis, messages, max_length=100_000)

    async def _changes(self, prefix: str, count: int, *, cause: str = "event") -> list[tuple[str, str, int, int]]:
        """The next so many changes of audiences: (audience, profile, moment from which it holds, when it was sent)."""
        found: list[tuple[str, str, int, int]] = []
        deadline = time.monotonic() + 300
        while len(found) < count:
            if time.monotonic() > deadline:
                # Perhaps the first moments passed before everybody was in: on a busy machine more lead is needed.
                raise RuntimeError(f"{len(found)} of {count} changes of {prefix!r} by {cause} came")
            for entry in await streams.read_from(self._redis, {names.CHANGES: self._position}, count=500, block_ms=100):
                self._position = entry.id
                at = streams.id_order(entry.id)[0] * 1_000
                found += [
                    (c.audience_id, c.profile_id, c.effective_at_us, at)
                    for c in MembershipChangeBatch.FromString(entry.payload).changes
                    if c.audience_id.startswith(prefix) and c.cause == cause
                ]
        return found


def profile_of(person: int) -> str:
    """The profile of a person."""
    return f"p{person:024x}"


async def fill(client: Client, db: Database, redis: streams.Redis, people: int) -> None:
    """Store audiences, memberships and snapshots as the service does, of people with four events each."""
    audiences = Audiences(client, db, NoComputedTraits(), PARTITIONS)
    named = {a: {"where": where} for a, where in definitions().items()}
    engine = Engine(WORKSPACE, PARTITIONS, now_us(), capacity=people)
    keys: set[str] = set()
    for audience_id, definition in named.items():
        await audiences.create(WORKSPACE, audience_id, audience_id, json.dumps(definition))
        await audiences.activate(WORKSPACE, audience_id)
        keys |= engine.set_audience(audience_id, parse_definition(definition))
    done = {"state": ACTIVE, "done": list(range(PARTITIONS))}
    await db[AUDIENCES].update_many({"w": WORKSPACE, "a": {"$exists": True}}, {"$set": done})
    everybody = [profile_of(n) for n in range(people)]
    rng = np.random.default_rng(4)
    engine.fold_history(PROFILES, _history(everybody, np.zeros(people, np.int64)))
    half = everybody[::2]
    for key in states_of(parse_definition(named["registered"])):
        engine.fold_history(key, _history(half, np.full(len(half), now_us() - 200 * DAY_US)))
    often = {key for a in named if a.startswith("often") for key in states_of(parse_definition(named[a]))}
    for _ in range(3):
        times = now_us() - rng.integers(1, 60 * DAY_US, people)
        for key in often:
            engine.fold_history(key, _history(everybody, times))
    for audience_id in named:
        engine.start_audience(audience_id)
    flips = engine.advance(now_us())
    assert {flip.audience_id for flip in flips} == {"registered"}, "nobody is in what is measured"
    for start in range(0, len(flips), 20_000):
        rows: list[Document] = [
            {
                "_id": membership_key(WORKSPACE, flip.audience_id, flip.profile_id),
                "w": WORKSPACE, "a": flip.audience_id, "p": flip.profile_id,
                "q": partition_of(flip.profile_id, PARTITIONS), "in": True, "since": flip.effective_at_us,
                "version": 1, "token": 0, "changed": now_us(), "into": "",
            }
            for flip in flips[start : start + 20_000]
        ]  # fmt: skip
        await db[MEMBERSHIPS].insert_many(rows, ordered=False)
    incarnated = await incarnation(redis)
    await FlipWriter(client, db, redis, PARTITIONS).claim(dict.fromkeys(range(PARTITIONS), 0))
    for partition in range(PARTITIONS):
        states = {WORKSPACE: engine.export_partition(partition)}
        await SnapshotStore(db).save(partition, 0, Snapshot("0-0", incarnated, now_us(), now_us(), states))
    await client.admin.command("fsync")


def _history(profiles: Sequence[str], times: Any) -> pa.Table:
    ids = [f"m{n}-{t}" for n, t in enumerate(times.tolist())]
    return pa.table({"profile": profiles, "timestamp_us": times, "message_id": ids})


def committed(url: str, since: Any, wanted: set[tuple[str, str, int]]) -> list[int]:
    """For each of these changes the microseconds from its moment to its commit, of all that came since an operation."""
    lags: list[int] = []
    waiting = set(wanted)
    project = {"$project": {"wallTime": 1, "fullDocument.a": 1, "fullDocument.p": 1, "fullDocument.e": 1}}
    with MongoClient[Document](url) as client:
        collection = client[DATABASE][CHANGES]
        with collection.watch(
            [{"$match": {"operationType": "insert"}}, project], start_at_operation_time=since, batch_size=5_000
        ) as changes:
            while waiting:
                change = changes.try_next()
                if change is None:
                    raise RuntimeError(f"{len(waiting)} changes are on the stream and not in the operation log")
                document = change["fullDocument"]
                key = (document["a"], document["p"], document["e"])
                if key in waiting:
                    waiting.discard(key)
                    lags.append(int(change["wallTime"].timestamp() * 1e6) - document["e"])
    return lags
