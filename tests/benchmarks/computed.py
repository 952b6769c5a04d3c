"""Computed traits: what they cost an event of a micro-batch, what reading them costs, how quickly they are filled.

The cost of an event is processor time, of the worker's process and of MongoDB together, so that what else runs on the
machine matters little. Every event concerns every trait, except where it says otherwise: the most that traits can cost.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from headrace_identity.computed.filling import Filler
from headrace_identity.computed.reading import ComputedValues
from headrace_identity.computed.store import ComputedTraitStore
from headrace_identity.store import PROFILES
from headrace_identity.worker import Incoming, Worker

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.domain.times import DAY_US, now_us
from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo.client import Client, Database
from headrace.storage.mongo.indexes import make_indexes
from tests.benchmarks.accept import CONTEXT, PROPERTIES
from tests.benchmarks.results import Result

DATABASE = "bench_computed"
PEOPLE = 2_000
BATCH = 1_000
ROUNDS = 8
_CONTEXT = json.dumps(CONTEXT).encode()

DEFINITIONS: list[dict[str, Any]] = [
    {"event": "Purchased", "compute": "count"},
    {"event": "Purchased", "within": "30d", "compute": "count"},
    {"event": "Purchased", "compute": {"sum": "bench.total"}},
    {"event": "Purchased", "within": "30d", "compute": {"sum": "bench.total"}},
    {"event": "Purchased", "compute": {"last": "bench.category"}},
    {"event": "Purchased", "within": "90d", "compute": {"most_frequent": "bench.category"}},
    {"event": "Purchased", "compute": {"unique_list": "bench.category"}},
    {"event": "Purchased", "within": "7d", "compute": {"max": "bench.total"}},
    {"event": "Purchased", "within": "1d", "compute": {"avg": "bench.total"}},
    {"event": "Purchased", "compute": {"first": "bench.category"}, "where": [{"property": "bench.total", "gt": 0}]},
]
OTHERS = [{**definition, "event": "Never"} for definition in DEFINITIONS]


async def run() -> list[Result]:
    """All figures of this file."""
    with tempfile.TemporaryDirectory() as folder:
        stores = EmbeddedStores(Path(folder))
        await asyncio.to_thread(stores.start)
        client = mongo_client.connect(stores.mongo_url)
        try:
            return await measure(client, people=PEOPLE, batch=BATCH, rounds=ROUNDS)
        finally:
            await mongo_client.close(client)
            await asyncio.to_thread(stores.stop)


async def measure(client: Client, *, people: int, batch: int, rounds: int) -> list[Result]:
    """The figures, at a size."""
    await client.drop_database(DATABASE)
    db = client[DATABASE]
    await make_indexes(db)
    kinds = {
        "no computed trait": [],
        "1 computed trait": DEFINITIONS[:1],
        "10 computed traits": DEFINITIONS,
        "10 computed traits of other events": OTHERS,
    }
    workers = {}
    for number, definitions in enumerate(kinds.values()):
        workers[number] = Worker(db)
        for i, definition in enumerate(definitions):
            store = ComputedTraitStore(db)
            await store.create(f"w{number}", f"t{i}", "", json.dumps(definition).encode())
        for start in range(0, people, 1_000):
            numbers = range(start, min(start + 1_000, people))
            await _process(workers[number], [_event(f"w{number}", f"first-{n}", n, 0) for n in numbers])
    await _fill(db)
    costs: dict[str, list[float]] = {kind: [] for kind in kinds}
    rng = random.Random(1)
    for round_ in range(rounds):
        chosen = [(rng.randrange(people), rng.randrange(30 * DAY_US)) for _ in range(batch)]
        # One kind after the other in each round, so that the machine is the same for all.
        for number, kind in enumerate(kinds):
            events = [_event(f"w{number}", f"{round_}-{i}", n, ago) for i, (n, ago) in enumerate(chosen)]
            before = await _processor_us(db)
            await _process(workers[number], events)
            costs[kind].append((await _processor_us(db) - before) / batch)
    bare = median(costs["no computed trait"])
    results = [
        Result(
            name=f"an event of known people with {kind}",
            value=median(costs[kind]),
            unit="µs of processors",
            baseline="without computed traits",
            baseline_value=bare,
            lower_is_better=True,
        )
        for kind in kinds
    ]
    return [*results, await _reading(db, people), await _filling(db)]


async def _reading(db: Database, people: int) -> Result:
    """Reading the ten traits of 100 people, five of which have windows, from buckets of 30 days."""
    found = [d["_id"].partition("\x1f")[2] async for d in db[PROFILES].find({"w": "w2"}, {"_id": 1}).limit(100)]
    values, seconds = ComputedValues(db), []
    for _ in range(10):
        started = time.process_time()
        await values.values("w2", {p: [p] for p in found}, now_us())
        seconds.append(time.process_time() - started)
    milliseconds = median(seconds) * 1000
    note = f"of {len(found)} people at a time"
    return Result(name="reading ten computed traits of a person", value=milliseconds / len(found), unit="ms", note=note)


async def _filling(db: Database) -> Result:
    """Filling one more trait of the workspace without any."""
    events = await db["events"].count_documents({"w": "w0"})
    await ComputedTraitStore(db).create("w0", "t0", "", json.dumps(DEFINITIONS[3]).encode())
    started = time.perf_counter()
    await _fill(db)
    return Result(name="filling a trait", value=events / (time.perf_counter() - started), unit="events/s")


async def _fill(db: Database) -> None:
    filler = Filler(db)
    while await filler.step():
        pass


async def _process(worker: Worker, events: Sequence[Event]) -> None:
    outcome = await worker.process(events[0].workspace_id, [Incoming(e, "s", i) for i, e in enumerate(events)])
    assert len(outcome.resolved) == len(events)


async def _processor_us(db: Database) -> float:
    """Processor time of this process and of MongoDB so far, in microseconds."""
    info = (await db.command("serverStatus"))["extra_info"]
    return time.process_time() * 1e6 + float(info["user_time_us"]) + float(info["system_time_us"])


def _event(workspace_id: str, message_id: str, person: int, ago_us: int) -> Event:
    own = {"total": person % 100 + 0.99, "category": f"category {person % 7}"}
    return Event(
        message_id=message_id,
        workspace_id=workspace_id,
        source_id="bench",
        kind=EventKind.EVENT_KIND_TRACK,
        name="Purchased",
        identifiers=[Identifier(namespace="user_id", value=f"person-{person}")],
        properties=json.dumps({**PROPERTIES, "bench": own}).encode(),
        context=_CONTEXT,
        received_at_us=now_us(),
        timestamp_us=now_us() - ago_us,
    )
