"""How long the size of a definition takes before it is saved, with 10,000, 100,000 and 1,000,000 people.

20 events a person over 120 days, in files as the archive's compactor leaves them; one person in ten was two before. A
preview answers from a sample of people when there are many: beside it stand counting everybody, which is the whole
statement in DuckDB, and how far the estimate was off.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from headrace_audience.answers.preview import Preview
from headrace_audience.archive import layout
from headrace_audience.archive.files import Files
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.archive.registry import ArchiveFile, Registry
from headrace_audience.archive.samples import sample_of
from headrace_audience.batching import batched
from headrace_audience.calls.handlers import Audiences
from headrace_audience.store import ACTIVE, AUDIENCES, MEMBERSHIPS, audience_key, membership_key

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.api.identity.v1.profile_pb2 import Decision, ResolvedEvent
from headrace.domain.ids import partition_of, profile_id
from headrace.domain.times import DAY_US, now_us
from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Client, Database, Document
from headrace.storage.mongo.indexes import make_indexes
from tests.benchmarks.results import Result
from tests.support.audience import NoComputedTraits

DATABASE = "bench_preview"
WORKSPACE = "acme"
SIZES = (10_000, 100_000, 1_000_000)
EVENTS = 20
DAYS = 120
TARGET_S = 2.0
EXACT_EVENTS = 3_000_000
"""The dear definitions are counted for everybody up to so many events: beyond that it takes minutes."""

DEFINITIONS = {
    "one event": "performed Purchased in last 30d",
    "trait": 'trait country = "DE"',
    "viewed, not purchased": 'performed "Product viewed" in last 90d and not performed Purchased in last 90d',
    "sum": "performed Purchased in last 90d sum(value) >= 200",
    "cart left": 'sequence ("Added to cart" then not Purchased within 24h) in last 14d',
    "dear": 'sequence ("Product viewed" then "Product viewed" within 7d same (category)) and performed '
    '("Product viewed", "Category viewed") distinct(category) >= 3 and not trait country = "DE"',
    "not in a large static audience": "performed Purchased in last 30d and not in audience stored",
}
STORED = "stored"
"""A static audience that definitions name: half of all people are its stored members."""
_ROWS_AT_A_TIME = 50_000
_NAMES = np.array(
    ["Category viewed", "Search made", "Product viewed", "Added to cart", "Checkout made", "Purchased", ""], object
)
_SHARES = (0.28, 0.14, 0.33, 0.10, 0.06, 0.04, 0.05)
_MERGED = 0.1


async def run(sizes: Sequence[int] = SIZES) -> list[Result]:
    """All figures of this file."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        stores = EmbeddedStores(Path(folder) / "stores")
        await asyncio.to_thread(stores.start)
        client = mongo_client.connect(stores.mongo_url)
        try:
            for people in sizes:
                results += await measure(client, Path(folder) / str(people), people)
        finally:
            await mongo_client.close(client)
            await asyncio.to_thread(stores.stop)
    return results


async def measure(client: Client, folder: Path, people: int) -> list[Result]:
    """The figures with so many people."""
    await client.drop_database(DATABASE)
    db = client[DATABASE]
    await make_indexes(db)
    registry, files = Registry(client, db), Files(str(folder))
    await registry.claim(1)
    at_us = now_us()
    crowd = _Crowd(people, at_us)
    added = await asyncio.to_thread(lambda: list(crowd.write(files)))
    await registry.commit(1, added, watermark=at_us)
    await db[log.EVENTS].insert_many([log.event_document(e) for e in crowd.of_losers()])
    await _store_members(db, crowd.ids[: people // 2])
    traits = NoComputedTraits()
    reader = ArchiveReader(db, registry, files, margin_us=0)
    preview = Preview(db, Audiences(client, db, traits, 64), traits, reader)
    results = []
    for name, definition in DEFINITIONS.items():
        took, found = [], None
        for _ in range(3):
            began = time.perf_counter()
            found = await preview.preview(WORKSPACE, definition, 10)
            took.append(time.perf_counter() - began)
        assert found is not None
        size, low, high = found.size
        note = (
            f"{size:,} ({low:,} to {high:,}) from {found.sampled_people:,} people" if found.sampled_people else "exact"
        )
        whole = {}
        if name != "dear" or people * EVENTS <= EXACT_EVENTS:
            began = time.perf_counter()
            exact = await preview.preview(WORKSPACE, definition, 10, exact=True)
            whole = {"baseline": "counting everybody", "baseline_value": time.perf_counter() - began}
            note += f"; in truth {exact.size.size:,}" if found.sampled_people else f", {size:,}"
        title = f"preview of {people:,} people: {name}"
        results.append(Result(name=title, value=max(took), unit="s", lower_is_better=True, note=note, **whole))  # type: ignore[arg-type]
    slowest = max(r.value for r in results)
    name = f"preview of {people:,} people: the slowest"
    return [*results, Result(name=name, value=slowest, unit="s", target=TARGET_S, lower_is_better=True)]


async def _store_members(db: Database, members: Sequence[str]) -> None:
    """The audience STORED, as it is stored when it is active."""
    definition = '{"kind": "static", "where": {"event": "Purchased"}}'
    document = {"_id": audience_key(WORKSPACE, STORED), "w": WORKSPACE, "a": STORED, "name": STORED, "def": definition}
    state: Document = {
        "state": ACTIVE,
        "traits": [],
        "computed": {},
        "pending": None,
        "gen": 1,
        "rev": 1,
        "open": False,
    }
    await db[AUDIENCES].insert_one({**document, **state})
    for some in batched(members, _ROWS_AT_A_TIME):
        keys = [(membership_key(WORKSPACE, STORED, p), p) for p in some]
        common = {"w": WORKSPACE, "a": STORED, "in": True, "since": 0, "version": 1}
        rows = [{"_id": key, "p": p, "q": partition_of(p, 64), **common} for key, p in keys]
        await db[MEMBERSHIPS].insert_many(rows, ordered=False)


class _Crowd:
    """People with events, one in ten of them merged from two profiles."""

    def __init__(self, people: int, at_us: int) -> None:
        self._random = np.random.default_rng(7)
        self._at_us = at_us
        self._people = people
        parts = people + int(people * _MERGED)
        self.ids = [profile_id(WORKSPACE, str(n)) for n in range(parts)]
        self._samples = pa.array([sample_of(p) for p in self.ids], pa.int8())
        self._profiles = pa.array(self.ids, pa.string())
        self._sequence = 1
        categories = ("shoes", "books", "toys", "garden")
        made = [
            {
                "value": round(v, 2),
                "category": categories[n % 4],
                "product": {"id": f"sku-{n % 5_000}", "name": f"P{n}"},
            }
            for n, v in enumerate(self._random.gamma(1.5, 60, 50_000).tolist())
        ]
        self._properties = pa.array([json.dumps(one) for one in made])
        countries = self._random.choice(["DE", "FR", "IN", "US", "BR"], 1_000)
        self._traits = pa.array([f'{{"country":"{country}","plan":"pro"}}' for country in countries])

    def write(self, files: Files) -> Iterator[ArchiveFile]:
        """Write files of one day each, and the merges."""
        for day in range(DAYS):
            yield self._file(files, layout.EVENTS, self._day(day), f"{day:03d}")
        losers, survivors = self.ids[self._people :], self.ids[: len(self.ids) - self._people]
        rows = {"loser": losers, "survivor": survivors, "sequence": range(len(losers)), "message_id": losers}
        merges = pa.table({name: list(column) for name, column in rows.items()}, schema=layout.MERGE_SCHEMA)
        yield self._file(files, layout.MERGES, merges, "merges")

    def of_losers(self) -> Iterator[ResolvedEvent]:
        """Events of merged profiles as the log has them: a sample reads those from there."""
        for number, loser in enumerate(self.ids[self._people :]):
            event = Event(
                message_id=f"l{number}",
                workspace_id=WORKSPACE,
                kind=EventKind.EVENT_KIND_TRACK,
                name="Product viewed",
                timestamp_us=self._at_us - DAY_US,
            )
            decision = Decision(sequence=number + 1)
            yield ResolvedEvent(event=event, profile_id=loser, decision=decision)

    def _day(self, day: int) -> pa.Table:
        count = self._people * EVENTS // DAYS
        first, self._sequence = self._sequence, self._sequence + count
        choose = self._random
        who = pa.array(choose.integers(0, self._people, count))
        kinds = choose.choice(len(_NAMES), count, p=_SHARES)
        is_identify = kinds == len(_NAMES) - 1
        times = self._at_us - (DAYS - day) * DAY_US + choose.integers(0, DAY_US, count)
        numbers = pa.array(np.arange(first, self._sequence))
        properties = self._properties.take(pa.array(choose.integers(0, len(self._properties), count)))
        traits = self._traits.take(pa.array(choose.integers(0, len(self._traits), count)))
        nothing = pa.scalar(None, pa.string())
        columns = {
            "name": pa.array(_NAMES[kinds], pa.string()),
            "kind": pa.array(np.where(is_identify, "identify", "track")),
            "profile": self._profiles.take(who),
            "timestamp_us": pa.array(times),
            "message_id": pc.binary_join_element_wise("m", pc.cast(numbers, pa.string()), ""),
            "sequence": numbers,
            "source_id": pa.repeat("shop", count),
            "properties": pc.if_else(pa.array(is_identify), nothing, properties),
            "traits": pc.if_else(pa.array(is_identify), traits, nothing),
            "person_traits": pc.if_else(pa.array(is_identify), traits, nothing),
            "sample": self._samples.take(who),
        }
        given = [columns.get(field.name, pa.nulls(count, field.type)) for field in layout.EVENT_SCHEMA]
        return pa.table(given, schema=layout.EVENT_SCHEMA)

    def _file(self, files: Files, kind: str, table: pa.Table, name: str) -> ArchiveFile:
        path = f"{layout.folder_of(kind, WORKSPACE)}/{name}.parquet"
        size = files.write(path, table, layout.SORT_KEYS[kind])
        return ArchiveFile(path, kind, WORKSPACE, "", 0, self._at_us, 2, table.num_rows, size)
