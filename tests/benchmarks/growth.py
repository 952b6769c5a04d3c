"""Look-ups and resolution with 10,000, 100,000 and 1,000,000 people in the store: whether they grow."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import grpc.aio
from headrace_identity.documents import identifier_key
from headrace_identity.resolving.rules import Identifier
from headrace_identity.store import IDENTIFIERS
from headrace_identity.worker import Worker

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.api.identity.v1.profile_service_pb2 import LookupProfileRequest
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.rpc.channel import connect
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo.client import Database
from tests.benchmarks.alone import DATABASE, services_alone
from tests.benchmarks.identity_work import Numbered
from tests.benchmarks.population import WORKSPACE, check_form, fill, identifiers_of
from tests.benchmarks.resolution import batches, resolve_batch
from tests.benchmarks.results import Result

SIZES = (10_000, 100_000, 1_000_000)
CACHE_GB = 6.0
"""1,000,000 people and their events take 2 GB of MongoDB's own cache, which gives pages back from 80 % on: with less it
is reading and unpacking them again that is measured."""

_FLAT = 1.5
"""What a hundred times as many people may cost: the noise of a run, and a level more of the store's trees."""


class Effort(NamedTuple):
    """How much is measured at each size: single look-ups, batches of look-ups, micro-batches; and their sizes."""

    lookups: int = 3_000
    batches: int = 100
    batch: int = 500
    micro_batches: int = 30
    micro_batch: int = 1_000


class Figures(NamedTuple):
    """What came of one size: latencies in milliseconds (p50, p99), rates in events a second."""

    people: int
    bare: tuple[float, float]
    call: tuple[float, float]
    batched: tuple[float, float]
    known: float
    new: float


async def run() -> list[Result]:
    """All figures of this file."""
    with (
        tempfile.TemporaryDirectory() as folder,
        services_alone(Path(folder), ["identity"], cache_gb=CACHE_GB) as alone,
    ):
        client = mongo_client.connect(alone.stores.mongo_url)
        try:
            async with connect(alone.grpc["identity"], alone.settings) as channel:
                figures = await measure(client[DATABASE], channel, SIZES, Effort())
        finally:
            await mongo_client.close(client)
    return [line for one in figures for line in _lines(one, Effort().batch)] + _growth(figures[0], figures[-1])


async def measure(db: Database, channel: grpc.aio.Channel, sizes: Sequence[int], effort: Effort) -> list[Figures]:
    """Fill the store to each size, one after the other, and measure there.

    Args:
        db: Database of a service, empty, with all indexes.
        channel: Channel to that service.
        sizes: Numbers of people, rising.
        effort: How much is measured at each.
    """
    await check_form(db)
    found: list[Figures] = []
    filled = 0
    for size in sizes:
        await fill(db, range(filled, size))
        filled = size
        await db.client.admin.command("fsync")  # what was filled is written out now, not beside what is measured
        at_size = _AtSize(db, channel, size, effort)
        known = await at_size.resolved(at_size.known_people())
        new = await at_size.resolved(at_size.new_people())
        bare = await _latency(at_size.bare, effort.lookups)
        call = await _latency(at_size.call, effort.lookups)
        batched = await _latency(at_size.batched, effort.batches)
        found.append(Figures(size, bare, call, batched, known, new))
    return found


class _AtSize:
    """What is measured while the store holds some number of people."""

    def __init__(self, db: Database, channel: grpc.aio.Channel, people: int, effort: Effort) -> None:
        self._db = db
        self._stub = ProfileServiceStub(channel)
        self._worker = Worker(db)
        self._people = people
        self._effort = effort
        self._rng = random.Random(people)
        self._make = Numbered(f"at-{people}")

    def known_people(self) -> list[Event]:
        """Events of people chosen from all."""
        return [self._make.event(identifiers_of(self._rng.randrange(self._people))) for _ in range(self._count)]

    def new_people(self) -> list[Event]:
        """Events of people who come for the first time."""
        return [self._make.event([("anonymous_id", f"new-{self._people}-{n}")]) for n in range(self._count)]

    @property
    def _count(self) -> int:
        return self._effort.micro_batch * self._effort.micro_batches

    async def resolved(self, events: Sequence[Event]) -> float:
        """Events a second, in micro-batches one after the other: the median of them, after a tenth to warm up."""
        seconds = []
        for part in batches(events, self._effort.micro_batch):
            started = time.perf_counter()
            await resolve_batch(self._worker, part)
            seconds.append((time.perf_counter() - started) / len(part))
        return 1 / median(seconds[len(seconds) // 10 :])

    async def bare(self) -> None:
        """Read who holds an identifier, without the service."""
        key = identifier_key(WORKSPACE, self._identifier())
        assert await self._db[IDENTIFIERS].find_one({"_id": key}) is not None

    async def call(self) -> None:
        """Ask the service for the profile that holds an identifier."""
        namespace, value = self._identifier()
        identifier = IdentifierMessage(namespace=namespace, value=value)
        await self._stub.LookupProfile(LookupProfileRequest(parent=f"workspaces/{WORKSPACE}", identifier=identifier))

    async def batched(self) -> None:
        """Read who holds each of many identifiers at once, as a micro-batch does."""
        people = self._rng.sample(range(self._people), min(self._effort.batch, self._people))
        keys = [identifier_key(WORKSPACE, identifiers_of(n)[0]) for n in people]
        found = await self._db[IDENTIFIERS].find({"_id": {"$in": keys}}, {"p": 1}).to_list(None)
        assert len(found) == len(keys)

    def _identifier(self) -> Identifier:
        return identifiers_of(self._rng.randrange(self._people))[0]


async def _latency(action: Callable[[], Awaitable[None]], times: int) -> tuple[float, float]:
    """p50 and p99 in milliseconds, one after the other, after a tenth of them to warm up."""
    for _ in range(times // 10):
        await action()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        await action()
        seconds.append(time.perf_counter() - started)
    return median(seconds) * 1000, quantiles(seconds, n=100)[98] * 1000


def _lines(figures: Figures, batch: int) -> list[Result]:
    people = f"{figures.people:,} people"
    return [
        Result(
            name=f"LookupProfile, {people}, p50",
            value=figures.call[0],
            unit="ms",
            baseline="a bare find_one",
            baseline_value=figures.bare[0],
            lower_is_better=True,
            note=f"p99 {figures.call[1]:.2f} ms, bare {figures.bare[1]:.2f} ms",
        ),
        Result(
            name=f"a bare find of {batch} identifiers at once, {people}, p50",
            value=figures.batched[0],
            unit="ms",
            lower_is_better=True,
            note=f"p99 {figures.batched[1]:.2f} ms; {batch * 1000 / figures.batched[0]:,.0f} identifiers/s",
        ),
        Result(name=f"resolution of known people, {people}", value=figures.known, unit="events/s"),
        Result(name=f"resolution of new people, {people}", value=figures.new, unit="events/s"),
    ]


def _growth(small: Figures, large: Figures) -> list[Result]:
    step = f"growth from {small.people:,} to {large.people:,} people"
    latencies = [
        ("LookupProfile, p50", small.call[0], large.call[0], _FLAT),
        ("LookupProfile, p99", small.call[1], large.call[1], _FLAT),
        # What the store does by itself, and what everything above rests on.
        ("a bare find_one, p50", small.bare[0], large.bare[0], None),
        ("a bare find_one, p99", small.bare[1], large.bare[1], None),
        ("a bare find of many at once, p50", small.batched[0], large.batched[0], None),
    ]
    rates = [
        ("resolution of known people", small.known, large.known),
        ("resolution of new people", small.new, large.new),
    ]
    return [
        Result(
            name=f"{step}: {what}",
            value=after,
            unit="ms",
            baseline="the smallest",
            baseline_value=before,
            target=target,
            lower_is_better=True,
        )
        for what, before, after, target in latencies
    ] + [
        Result(
            name=f"{step}: {what}",
            value=after,
            unit="events/s",
            baseline="the smallest",
            baseline_value=before,
            target=1 / _FLAT,
        )
        for what, before, after in rates
    ]
