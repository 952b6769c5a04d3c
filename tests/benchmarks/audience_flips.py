"""What writing a flip costs: the writer alone on real stores, beside bare writes of the same documents.

All flips are of one moment, in 80 audiences and 64 partitions, as when windows end at midnight. The cost is processor
time, of MongoDB and of this process each, so that what else runs on the machine counts for little. Bare are writes of
what the last exits have left, in batches of the same size in transactions: rows and history with the indexes that the
service has, and with none but that on _id.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace_audience.engine.engine import Flip
from headrace_audience.memberships.flips import LANES, ROWS_PER_TRANSACTION, FlipWriter
from headrace_audience.memberships.pending import Pending
from headrace_audience.store import CHANGES, INDEXES, MEMBERSHIPS
from pymongo import IndexModel

from headrace.domain.ids import partition_of
from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo.client import Client, Database, Document, transaction
from headrace.storage.mongo.indexes import make_indexes
from headrace.storage.streams import client as streams
from tests.benchmarks.results import Result

FLIPS = int(os.environ.get("BENCH_BURST", "50000"))
"""Flips at one moment; BENCH_BURST makes it smaller."""
STORED = 200_000
"""Memberships that are there before."""
PARTITIONS = 64
KINDS = 40
WORKSPACE = "bench"


@dataclass(frozen=True)
class _Cost:
    """Of one flip, in microseconds."""

    mongod: float
    process: float
    wall_s: float
    """Of all flips together, in seconds."""


async def run(flips: int = FLIPS) -> list[Result]:
    """All figures of this file."""
    gc.set_threshold(50_000, 20, 20)  # as the service does
    with tempfile.TemporaryDirectory() as folder:
        stores = EmbeddedStores(Path(folder), cache_gb=1.0)
        stores.start()
        client = mongo_client.connect(stores.mongo_url)
        redis = streams.connect(stores.redis_url)
        try:
            return await _Measuring(client, redis, flips).run()
        finally:
            await redis.aclose()
            await mongo_client.close(client)
            stores.stop()


class _Measuring:
    def __init__(self, client: Client, redis: streams.Redis, flips: int) -> None:
        self._client = client
        self._db: Database = client["bench"]
        self._count = flips
        self._writer = FlipWriter(client, self._db, redis, PARTITIONS)

    async def run(self) -> list[Result]:
        await make_indexes(self._db)
        await self._writer.claim(dict.fromkeys(range(PARTITIONS), 1))
        await self._write(_flips(self._count, STORED, member=True, at=1))
        kinds = (("entry of a new member", True), ("exit", False), ("entry of a former member", True))
        costs = [await self._written(member, at) for at, (_, member) in enumerate(kinds, 2)]
        indexed, plain = await self._bare(INDEXES), await self._bare({})
        results: list[Result] = []
        for place, ((name, _), cost) in enumerate(zip(kinds, costs, strict=True)):
            is_stored = place > 0
            results += [
                Result(
                    name=f"{name}: MongoDB", value=cost.mongod, unit="µs", lower_is_better=True,
                    baseline="bare writes with the same indexes", baseline_value=indexed[is_stored],
                    note=f"bare without indexes {plain[is_stored]:.0f} µs; {cost.wall_s:.1f} s for {self._count:,}",
                ),
                Result(name=f"{name}: the writer's process", value=cost.process, unit="µs", lower_is_better=True),
            ]  # fmt: skip
        return results

    async def _written(self, member: bool, at: int) -> _Cost:
        return await self._cost(self._write(_flips(0, self._count, member=member, at=at)))

    async def _write(self, flips: Sequence[Flip]) -> None:
        """As the worker does."""
        pending = Pending(lambda profile_id: partition_of(profile_id, PARTITIONS))
        pending.add(flips)
        while some := pending.take(LANES * ROWS_PER_TRANSACTION):
            await self._writer.write(WORKSPACE, some, {}, 1)
            await self._writer.send_unsent()

    async def _bare(self, indexes: Mapping[str, list[IndexModel]]) -> tuple[float, float]:
        """What MongoDB spends on bare writes as of a new member's flip, and as of one whose row is stored."""
        names = {MEMBERSHIPS: "bare_rows", CHANGES: "bare_history"}
        for name, bare in names.items():
            await (await self._db[name].aggregate([{"$out": bare}])).to_list()
            if name in indexes:
                await self._db[bare].create_indexes(indexes[name])
        rows, history = (self._db[bare] for bare in names.values())
        stored = await rows.find().sort("_id", 1).limit(self._count).to_list(None)
        changes = await history.find().sort("_id", 1).limit(self._count).to_list(None)

        async def new(some: slice) -> None:
            async with transaction(self._client) as session:
                await rows.insert_many([_again(row, "x") for row in stored[some]], ordered=False, session=session)
                await history.insert_many([_again(d, "x") for d in changes[some]], ordered=False, session=session)

        async def known(some: slice) -> None:
            keys = [row["_id"] for row in stored[some]]
            change: Document = {"$set": {"in": False, "since": 9}, "$inc": {"version": 1}}
            async with transaction(self._client) as session:
                await rows.update_many({"_id": {"$in": keys}}, change, session=session)
                await history.insert_many([_again(d, "y") for d in changes[some]], ordered=False, session=session)

        costs = (await self._cost(self._chunks(new))).mongod, (await self._cost(self._chunks(known))).mongod
        for bare in names.values():
            await self._db[bare].drop()
        return costs

    async def _chunks(self, write: Callable[[slice], Awaitable[None]]) -> None:
        """All, in transactions of which as many are in flight as the service has."""

        async def lane(first: int) -> None:
            for start in range(first, self._count, LANES * ROWS_PER_TRANSACTION):
                await write(slice(start, start + ROWS_PER_TRANSACTION))

        await asyncio.gather(*(lane(number * ROWS_PER_TRANSACTION) for number in range(LANES)))

    async def _cost(self, work: Awaitable[None]) -> _Cost:
        await self._client.admin.command("fsync")
        mongod, process, began = await self._mongod_us(), time.process_time(), time.monotonic()
        await work
        return _Cost(
            (await self._mongod_us() - mongod) / self._count,
            (time.process_time() - process) * 1e6 / self._count,
            time.monotonic() - began,
        )

    async def _mongod_us(self) -> float:
        """Processor time of MongoDB so far, in microseconds."""
        info = (await self._db.command("serverStatus"))["extra_info"]
        return float(info["user_time_us"]) + float(info["system_time_us"])


def _flips(first: int, count: int, *, member: bool, at: int) -> list[Flip]:
    """Two of each profile, in audiences of two kinds."""
    return [
        Flip(f"{kind}-{n % KINDS}", f"p{(first + n) * 7_919 % 1_000_003:024x}", member, at, "time")
        for n in range(count // 2)
        for kind in ("left", "left-unsold")
    ]


def _again(document: Document, mark: str) -> Document:
    """The same document of another profile."""
    profile = document["p"] + mark
    return {**document, "_id": document["_id"].replace(document["p"], profile), "p": profile}
