"""Resolution alone: known and new people, merge storms, people of a thousand identifiers; in memory and with the store.

In memory is the resolver itself, beside reading the same events and looking their identifiers up in a dictionary. With
the store are micro-batches of 1,000 in transactions of one worker after the other, beside the same events inserted
as they are in such transactions.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TypeVar

from headrace_identity.explaining.explain import shortest_chain
from headrace_identity.explaining.graph_view import GraphView
from headrace_identity.resolving.graph import Changes, Graph
from headrace_identity.resolving.resolver import prepare, resolve
from headrace_identity.resolving.rules import Identifier
from headrace_identity.rules_store import RulesStore
from headrace_identity.worker import Incoming, Worker

from headrace.api.common.v1.event_pb2 import Event
from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Client, Database
from headrace.storage.mongo.indexes import make_indexes
from tests.benchmarks.identity_work import SUPER_NODE, WORKS, WORKSPACE, Numbered, Work, super_node
from tests.benchmarks.results import Result

DATABASE = "bench_resolution"
EVENTS = 20_000
BATCH = 1_000
SMALL_BATCH = 10

T = TypeVar("T")


async def run() -> list[Result]:
    """All figures of this file."""
    works = [make(EVENTS) for make in WORKS]
    results = in_memory(works)
    with tempfile.TemporaryDirectory() as folder:
        stores = EmbeddedStores(Path(folder))
        await asyncio.to_thread(stores.start)
        client = mongo_client.connect(stores.mongo_url)
        try:
            results += await with_the_store(client, works)
            results += await growth_of_a_person(client)
        finally:
            await mongo_client.close(client)
            await asyncio.to_thread(stores.stop)
    return results


def in_memory(works: Sequence[Work]) -> list[Result]:
    """Events a second of one core's time in the resolver, for each kind of work."""
    return [
        Result(
            name=f"resolver in memory, {work.name}",
            value=_resolved_in_memory(work),
            unit="events/s of a core",
            baseline="reading the event, a dict look-up per identifier",
            baseline_value=_looked_up_in_memory(work),
        )
        for work in works
    ]


def _resolved_in_memory(work: Work) -> float:
    graph, numbers = Graph(), itertools.count(1)
    events = [Event.FromString(e.SerializeToString()) for e in work.measured]

    def through(part: Sequence[Event]) -> None:
        changes = Changes()
        for event in part:
            resolve(graph, work.rules, prepare(event, work.rules), next(numbers), changes)

    through(work.before)
    with _undisturbed():
        started = time.process_time()
        for part in batches(events, BATCH):
            through(part)
        return len(events) / (time.process_time() - started)


def _looked_up_in_memory(work: Work) -> float:
    holders = {(i.namespace, i.value): e.message_id for e in work.before for i in e.identifiers}
    serialised = [e.SerializeToString() for e in work.measured]
    with _undisturbed():
        started = time.process_time()
        for data in serialised:
            for identifier in Event.FromString(data).identifiers:
                holders.get((identifier.namespace, identifier.value))
        return len(serialised) / (time.process_time() - started)


async def with_the_store(client: Client, works: Sequence[Work]) -> list[Result]:
    """Events a second of micro-batches, one after the other, for each kind of work."""
    results = []
    for work in works:
        db = await fresh_database(client, DATABASE)
        bare = await _inserted(db, work.measured)
        await RulesStore(db).write(WORKSPACE, work.rules.as_json())
        worker = Worker(db)
        for part in batches(work.before, BATCH):
            await resolve_batch(worker, part)
        started = time.perf_counter()
        for part in batches(work.measured, BATCH):
            await resolve_batch(worker, part)
        rate = len(work.measured) / (time.perf_counter() - started)
        results.append(
            Result(
                name=f"resolution with the store, {work.name}",
                value=rate,
                unit="events/s",
                baseline="bare event documents in transactions",
                baseline_value=bare,
            )
        )
    return results


async def growth_of_a_person(client: Client) -> list[Result]:
    """What one more identifier costs a person who has few, and one who has nearly a thousand, event by event."""
    db = await fresh_database(client, DATABASE)
    work = super_node(0)
    await RulesStore(db).write(WORKSPACE, work.rules.as_json())
    worker, make = Worker(db), Numbered("one-more")
    seconds = []
    for start in range(0, SUPER_NODE - SMALL_BATCH, SMALL_BATCH):
        numbers = range(start, start + SMALL_BATCH)
        events = [make.event([("user_id", "one"), ("anonymous_id", f"one-{n}")]) for n in numbers]
        started = time.perf_counter()
        await resolve_batch(worker, events)
        seconds.append(time.perf_counter() - started)
    tenth = len(seconds) // 10
    few, many = median(seconds[1 : tenth + 1]) * 1000, median(seconds[-tenth:]) * 1000
    known = []
    for n in range(10 * tenth):
        event = make.event([("user_id", "one"), ("anonymous_id", f"one-{n}")])
        started = time.perf_counter()
        await resolve_batch(worker, [event])
        known.append(time.perf_counter() - started)
    explained = await _explained(db, [("anonymous_id", f"one-{n}") for n in range(start + SMALL_BATCH)])
    return [
        Result(
            name=f"micro-batch of {SMALL_BATCH} new identifiers of a person of nearly 1,000, p50",
            value=many,
            unit="ms",
            baseline="the same for a person of fewer than 100",
            baseline_value=few,
            target=1.5,
            lower_is_better=True,
        ),
        Result(
            name="micro-batch of one event of a person of 1,000 identifiers, p50",
            value=median(known) * 1000,
            unit="ms",
        ),
        Result(name="chain between two of the 1,000 identifiers of a person, p50", value=explained, unit="ms"),
    ]


async def _explained(db: Database, identifiers: Sequence[Identifier]) -> float:
    """Milliseconds, p50, to read why two identifiers of a person are one, from the store and without gRPC."""
    view, seconds = GraphView(db), []
    for first, second in itertools.pairwise(identifiers[:50]):
        started = time.perf_counter()
        person = await view.holder(WORKSPACE, first)
        assert person is not None
        assert len(shortest_chain(await view.joining(WORKSPACE, person), (), first, second)) == 2
        seconds.append(time.perf_counter() - started)
    return median(seconds) * 1000


async def fresh_database(client: Client, name: str) -> Database:
    """An empty database with all indexes."""
    await client.drop_database(name)
    await make_indexes(client[name])
    return client[name]


async def resolve_batch(worker: Worker, events: Sequence[Event]) -> None:
    """Resolve a micro-batch, all of whose events are new."""
    outcome = await worker.process(WORKSPACE, [Incoming(e, "segment", i) for i, e in enumerate(events)])
    assert len(outcome.resolved) == len(events)


async def _inserted(db: Database, events: Sequence[Event]) -> float:
    """Event documents a second: transactions of 1,000, one after the other, with the log's indexes."""
    decision = b"d" * 60
    documents = [
        log.event_document_of(
            event,
            event.SerializeToString(),
            profile_id=f"p{n:024d}",
            sequence=n,
            decision=decision,
            resolved_at_us=n,
            segment_id="segment",
            segment_index=0,
            linked=0,
        )
        for n, event in enumerate(events)
    ]
    started = time.perf_counter()
    for part in batches(documents, BATCH):
        async with mongo_client.transaction(db.client) as session:
            await db[log.EVENTS].insert_many(part, ordered=False, session=session)
    rate = len(events) / (time.perf_counter() - started)
    await db[log.EVENTS].delete_many({})
    return rate


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the garbage collector from looking at what was made before, as the service does."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Items in batches of a size, the last one perhaps smaller."""
    return (items[start : start + size] for start in range(0, len(items), size))
