"""What it takes to fill a new audience from history, beside computing it anew with DuckDB, with Spark, and bare numpy.

An archive of 20 events for each of 10,000 to 1,000,000 people lies on disk. A replica that knows all people and holds
all partitions gets a new audience and fills it as in production: `Backfill` asks the archive for the history of each
state and folds it, then the first evaluation of everybody gives the flips. Writing the memberships to MongoDB is not in
it. DuckDB alone answers the same definition over the same view; numpy alone scatters the times of the matching events,
which it is given as arrays, and compares them with the beginning of the window. All of it is processor time of this
process, so that other work on the machine does not count; Spark's is the time that passes: its workers are others.

    python -m tests.benchmarks.audience_fill --people 10000 100000 --audiences 100 --spark
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from headrace_audience.archive import layout
from headrace_audience.archive.files import Files
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.archive.registry import ArchiveFile, Registry
from headrace_audience.archive.samples import sample_of
from headrace_audience.batch import queries
from headrace_audience.definitions.catalog import Audience
from headrace_audience.distributed.shards import Question
from headrace_audience.distributed.spark import SparkEvaluator, spark_context
from headrace_audience.evaluation import Evaluation
from headrace_audience.filling.backfill import Backfill
from headrace_audience.language.definition import Definition
from headrace_audience.language.parser import parse_definition
from headrace_audience.language.text.reading import from_text
from headrace_audience.store import FILLING

from headrace.domain.ids import partition_of
from headrace.domain.times import DAY_US, SECOND_US, now_us
from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo.client import Database
from headrace.storage.mongo.indexes import make_indexes
from tests.benchmarks.audience_engine import PARTITIONS, definitions

SIZES = (10_000, 100_000, 1_000_000)
EACH = 20
"""Events of a person."""
DAYS = 60
WORKSPACE = "acme"
WINDOW_US = 30 * DAY_US

FILLED = {
    "bought in 30 days": "performed Purchased in last 30d",
    "viewed three times in 30 days": 'performed "Product viewed" in last 30d count >= 3',
    "a property": "performed Purchased where (value > 100) in last 30d",
    "a trait": 'trait country = "IN"',
    "a sum": "performed Purchased in last 30d sum(value) >= 500",
    "a sequence": 'sequence ("Added to cart" then not Purchased within 1h) in last 7d',
    "not": 'not performed "Checkout made" in last 30d',
}
"""New audiences, by what they ask for."""


class Shop(NamedTuple):
    """An archive that is read."""

    db: Database
    reader: ArchiveReader
    root: str


@asynccontextmanager
async def shop(people: int) -> AsyncIterator[Shop]:
    """An archive of an online shop."""
    with tempfile.TemporaryDirectory() as folder:
        stores = EmbeddedStores(Path(folder) / "stores")
        stores.start()
        client = mongo_client.connect(stores.mongo_url)
        try:
            db = client["headrace"]
            await make_indexes(db)
            files, registry = Files(f"{folder}/archive"), Registry(client, db)
            await registry.claim(1)
            added = await asyncio.to_thread(_write, files, people)
            await registry.commit(1, added, watermark=now_us())
            reader = ArchiveReader(db, registry, files, margin_us=60 * SECOND_US, memory_mb=2_048)
            yield Shop(db, reader, f"{folder}/archive")
        finally:
            await mongo_client.close(client)
            stores.stop()


_EVENTS = """
SELECT CASE WHEN c < 10 THEN '' WHEN c < 38 THEN 'Category viewed' WHEN c < 52 THEN 'Search made'
    WHEN c < 83 THEN 'Product viewed' WHEN c < 92 THEN 'Added to cart' WHEN c < 96 THEN 'Checkout made'
    ELSE 'Purchased' END AS name,
  CASE WHEN c < 10 THEN 'identify' ELSE 'track' END AS kind,
  printf('p%024x', p) AS profile, $from + (random() * 86399999999)::BIGINT AS timestamp_us,
  md5(i::VARCHAR || $from::VARCHAR) AS message_id, $from + i AS sequence, $from AS received_at_us,
  $from AS resolved_at_us, 'web' AS source_id, NULL AS group_id, false AS future, ['user_id'] AS namespaces,
  [{'namespace': 'user_id', 'value': printf('p%024x', p)}] AS identifiers,
  printf('{"value":%d,"category":"%s","currency":"EUR"}', (random() * 499)::INTEGER,
    ['shoes', 'books', 'toys', 'garden'][1 + (random() * 3)::INTEGER]) AS properties,
  NULL AS traits,
  CASE WHEN c < 10 THEN printf('{"country":"%s","plan":"%s","age":%d}', ['DE', 'IN', 'US'][1 + p % 3],
    ['free', 'pro'][1 + p % 2], p % 80) END AS person_traits,
  NULL AS consents, NULL AS touch,
  '{"ip":"203.0.113.7","userAgent":"Mozilla/5.0","locale":"en-GB"}' AS context
FROM (SELECT i, (random() * 99.999)::INTEGER AS c, (((i + $first) * 2654435761) % $people)::BIGINT AS p
  FROM range($count) t(i))
"""


def _write(files: Files, people: int) -> list[ArchiveFile]:
    """One file a day, the same at each run."""
    today = now_us() // DAY_US * DAY_US
    count = people * EACH // DAYS
    added: list[ArchiveFile] = []
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SELECT setseed(0.5)").fetchall()
        for number in range(DAYS):
            start = today - (DAYS - number) * DAY_US
            values = {"from": start, "people": people, "count": count, "first": number * count}
            table = connection.sql(_EVENTS, params=values).to_arrow_table()
            samples = pa.array(map(sample_of, table.column("profile").to_pylist()), pa.int8())
            table = table.append_column("sample", samples)
            ordered = table.select(layout.EVENT_SCHEMA.names).cast(layout.EVENT_SCHEMA)
            day = layout.day_of(start)
            path = layout.path_of(layout.EVENTS, WORKSPACE, day, start, start + count, 1, 0)
            size = files.write(path, ordered, layout.SORT_KEYS[layout.EVENTS])
            of = (path, layout.EVENTS, WORKSPACE, day, start, start + count, 0, count, size)
            added.append(ArchiveFile(*of))
    return added


async def running(of: Shop) -> tuple[Evaluation, Backfill]:
    """A replica that holds all partitions and knows everybody, with no audience."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # as the service does
    evaluation = Evaluation(WORKSPACE, PARTITIONS, now_us() + DAY_US)
    lock = asyncio.Lock()
    backfill = Backfill(of.db, of.reader, lock, lambda profile_id: partition_of(profile_id, PARTITIONS))
    for partition in range(PARTITIONS):
        evaluation.add_partition(partition, None)
    await backfill.bring(evaluation)
    evaluation.start_what_is_complete(range(PARTITIONS))
    evaluation.advance(evaluation.engine.clock_us)
    return evaluation, backfill


async def fill(evaluation: Evaluation, backfill: Backfill, named: Mapping[str, Definition]) -> tuple[float, float]:
    """Fill audiences; returns the seconds for bringing their history, and for the first evaluation."""
    for audience_id, definition in named.items():
        audience = Audience(WORKSPACE, audience_id, FILLING, definition, 1, "fill", 0, 0, frozenset())
        evaluation.set_audience(audience, now_us())
    began = time.process_time()
    await backfill.bring(evaluation)
    brought = time.process_time()
    evaluation.start_what_is_complete(range(PARTITIONS))
    evaluation.advance(evaluation.engine.clock_us)
    while evaluation.engine.is_sweeping:
        evaluation.advance(evaluation.engine.clock_us)
    return brought - began, time.process_time() - brought


async def recompute(of: Shop, named: Mapping[str, Definition], at_us: int) -> tuple[float, dict[str, int]]:
    """Seconds for opening the archive and asking DuckDB for the members of audiences, and how many there are."""
    began = time.process_time()
    sizes = {}
    async with of.reader.open(WORKSPACE) as view:
        for audience_id, definition in named.items():
            ask = functools.partial(queries.evaluate, definition=definition, now_us=at_us, audiences=named)
            sizes[audience_id] = len(await view.run(ask))
    return time.process_time() - began, sizes


async def bare(of: Shop, at_us: int) -> float:
    """Seconds of numpy alone for "bought in 30 days"."""
    async with of.reader.open(WORKSPACE) as view:
        found = view.connection.sql("SELECT profile, timestamp_us FROM events WHERE name = 'Purchased'")
        table = found.to_arrow_table().combine_chunks()
    profiles = table.column("profile").combine_chunks().dictionary_encode()
    ordinals, people = profiles.indices.to_numpy(), len(profiles.dictionary)
    times = table.column("timestamp_us").to_numpy()
    began = time.process_time()
    newest = np.zeros(people, np.int64)
    np.maximum.at(newest, ordinals, times)
    np.count_nonzero(newest > at_us - WINDOW_US)
    return time.process_time() - began


async def run(
    *, sizes: Sequence[int] = SIZES, audiences: int = 100, one_by_one: bool = True, spark: bool = True
) -> list[dict[str, Any]]:
    """Measure; returns rows with the keys of tests.benchmarks.results.Result."""
    rows: list[dict[str, Any]] = []
    for people in sizes:
        async with shop(people) as of:
            rows += [
                {**row, "name": f"{people:,} people, {people * EACH:,} events: {row['name']}"}
                for row in await _measure(of, audiences, one_by_one=one_by_one, spark=spark)
            ]
    return rows


async def _measure(of: Shop, audiences: int, *, one_by_one: bool, spark: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def add(name: str, value: float, **more: Any) -> None:
        rows.append({"name": name, "value": value, "unit": "s", "lower_is_better": True, **more})
        print(_line(rows[-1]), file=sys.stderr, flush=True)  # a run takes minutes

    began = time.process_time()
    evaluation, backfill = await running(of)
    add("a replica gets to know everybody", time.process_time() - began)
    at_us = evaluation.engine.clock_us
    for name, text in FILLED.items() if one_by_one else ():
        named = {name.replace(" ", "-"): parse_definition(from_text(text))}
        brought, evaluated = await fill(evaluation, backfill, named)
        seconds, found = await recompute(of, named, at_us)
        (audience_id,) = named
        assert evaluation.engine.size(audience_id) == found[audience_id]
        note = f"history {brought:.2f} s, first evaluation {evaluated:.2f} s, {found[audience_id]:,} members"
        more = {"baseline": "computed by DuckDB", "baseline_value": seconds, "note": note}
        add(f"fill of {name}", brought + evaluated, **more)
        evaluation.remove_audience(audience_id)
    add("bare numpy: newest time and window of one audience", await bare(of, at_us))
    many = dict(list(definitions().items())[:audiences])
    many_seconds, many_sizes = await recompute(of, many, at_us)
    brought, evaluated = await fill(evaluation, backfill, many)
    assert {a: evaluation.engine.size(a) for a in many} == many_sizes
    members = sum(many_sizes.values())
    note = f"history {brought:.1f} s, first evaluation {evaluated:.1f} s, {members:,} memberships"
    more = {"baseline": "computed by DuckDB", "baseline_value": many_seconds, "note": note}
    add(f"fill of {len(many)} audiences", brought + evaluated, **more)
    if spark:
        for name, seconds in (await _spark(of, many, many_sizes, at_us)).items():
            add(name, seconds)
    return rows


async def _spark(of: Shop, many: Mapping[str, Definition], sizes: Mapping[str, int], at_us: int) -> dict[str, float]:
    content = await of.reader.content(WORKSPACE)
    one = parse_definition(from_text(FILLED["bought in 30 days"]))

    def work() -> dict[str, float]:
        seconds = {}
        began = time.perf_counter()
        with spark_context("local[2]", config={"spark.driver.memory": "2g"}) as context:
            evaluator = SparkEvaluator.of_content(context, of.root, content)
            evaluator.sizes([])
            seconds["Spark: start"] = time.perf_counter() - began
            for name, named in (("one audience", {"one": one}), (f"{len(many)} audiences", many)):
                began = time.perf_counter()
                found = evaluator.sizes([Question(a, d, at_us) for a, d in named.items()], many)
                seconds[f"Spark, local mode, 2 workers: {name}"] = time.perf_counter() - began
                assert "one" in found or found == sizes
        return seconds

    return await asyncio.to_thread(work)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.audience_fill", description=__doc__)
    parser.add_argument("--people", type=int, nargs="+", default=SIZES, help="numbers of people, one after the other")
    parser.add_argument("--audiences", type=int, default=100, help="so many at once, at most 100")
    parser.add_argument("--spark", action="store_true", help="also by Spark; needs Java")
    parser.add_argument("--only-many", action="store_true", help="no single audiences")
    asked = parser.parse_args()
    work = run(sizes=asked.people, audiences=asked.audiences, one_by_one=not asked.only_many, spark=asked.spark)
    for row in asyncio.run(work):
        print(_line(row))


def _line(row: Mapping[str, Any]) -> str:
    beside = f"{row['baseline_value']:10.3f} s {row['baseline']}" if "baseline" in row else ""
    return f"{row['name']:75} {row['value']:10.3f} {row['unit']} {beside}  {row.get('note', '')}"


if __name__ == "__main__":
    _main()
