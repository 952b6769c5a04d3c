"""What the incremental audience engine costs alone, beside bare numpy doing the least of it.

100 audiences over an online shop's events: windows, counts, property predicates, traits, other audiences. The bare
baseline scatters the same batches into as many bare columns of times and compares them with the clock, without
decoding, without exactness and without saying who flipped.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from headrace_audience.engine.engine import Engine
from headrace_audience.language.definition import Definition
from headrace_audience.language.parser import parse_definition
from headrace_audience.language.text.reading import from_text

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.api.identity.v1.profile_pb2 import Decision, ResolvedBatch, ResolvedEvent

START = 1_767_225_600_000_000
DAY = 86_400_000_000
NAMES = ("Category viewed", "Search made", "Product viewed", "Added to cart", "Checkout made", "Purchased")
SHARES = (30, 15, 35, 10, 6, 4)
PARTITIONS = 64
ACTIVE = 2_000
SIZES = (10_000, 100_000, 1_000_000)


def definitions() -> dict[str, Definition]:
    """100 audiences."""
    found: list[dict[str, Any]] = []
    for days in (1, 3, 7, 14, 30, 60, 90):
        viewed = {"event": "Product viewed", "within": f"{days}d"}
        bought = {"event": "Purchased", "within": f"{days}d"}
        found += [
            viewed,
            bought,
            {"all": [viewed, {"not": bought}]},
            {"event": "Product viewed", "within": f"{days}d", "count": {"gte": 3}},
            {"event": "Purchased", "within": f"{days}d", "where": [{"property": "value", "gt": 100}]},
            {"event": "Added to cart", "within": f"{days}d", "where": [{"property": "category", "eq": "shoes"}]},
            {"all": [{"event": "Added to cart", "within": f"{days}d"}, {"not": {"event": "Checkout made"}}]},
            {"not": {"event": list(NAMES), "within": f"{days}d"}},
            {"event": "Search made", "within": f"{days}d", "count": {"between": [2, 5]}},
            {"all": [{"trait": "country", "eq": "IN"}, viewed]},
        ]
    for country in ("DE", "FR", "US", "IN", "GB", "BR", "JP", "NL", "SE", "IT"):
        found.append({"trait": "country", "eq": country})
        found.append({"all": [{"trait": "plan", "in": ["pro", "team"]}, {"trait": "country", "neq": country}]})
    for amount in (10, 50, 100, 200, 300):
        found.append({"event": "Purchased", "where": [{"property": "value", "gte": amount}], "count": {"gte": 2}})
        found.append({"any": [{"audience": "a0"}, {"trait": "age", "gt": amount / 10}]})
    named = {f"a{i}": parse_definition({"where": where}) for i, where in enumerate(found)}
    assert len(named) == 100
    return named


OVER_LISTS = {
    "sum": "performed Purchased in last 30d sum(value) >= 500",
    "average": "performed Purchased in last 30d avg(value) > 100",
    "different values": 'performed "Product viewed" in last 7d distinct(category) >= 3',
    "sequence": 'sequence ("Added to cart" then not Purchased within 1h) in last 7d',
    "restarted": 'restarted "Product viewed" inactive for 30d active within 7d',
    "regularly": 'regularly "Product viewed" in at least 2 of 4 periods of 7d',
    "last time with tests": "last performed Purchased where (value > 100) in last 30d",
}
"""Conditions that are answered from lists of events, by name."""


def batches(profiles: int, count: int, size: int, seed: int, since_us: int) -> list[bytes]:
    """Resolved batches as they come from the stream: serialised, in order of time."""
    choose = random.Random(seed)
    made: list[bytes] = []
    at = since_us
    categories = ("shoes", "books", "toys", "garden")
    for _ in range(count):
        events: list[ResolvedEvent] = []
        for _ in range(size):
            at += 50
            person = choose.randrange(profiles)
            profile = f"p{person:024x}"
            properties = {"value": choose.randrange(500), "category": choose.choice(categories), "currency": "EUR"}
            kind, name, traits = EventKind.EVENT_KIND_TRACK, choose.choices(NAMES, SHARES)[0], b""
            if choose.randrange(10) == 0:
                kind, name = EventKind.EVENT_KIND_IDENTIFY, ""
                values = {"country": ("DE", "IN", "US")[person % 3], "plan": ("free", "pro")[person % 2]}
                traits = json.dumps({**values, "age": person % 80, "email": f"{profile}@x.org"}).encode()
            events.append(
                ResolvedEvent(
                    profile_id=profile,
                    event=Event(
                        message_id=f"{choose.getrandbits(128):032x}",
                        kind=kind,
                        name=name,
                        traits=traits,
                        properties=json.dumps(properties).encode(),
                        context=b'{"ip":"203.0.113.7","userAgent":"Mozilla/5.0","locale":"en-GB"}',
                        timestamp_us=at,
                    ),
                    decision=Decision(identifiers=[Identifier(namespace="user_id", value=profile)]),
                )
            )
        made.append(ResolvedBatch(workspace_id="w", events=events).SerializeToString())
    return made


def new_engine(profiles: int, clock_us: int) -> tuple[Engine, set[str]]:
    """An engine with all audiences, not yet started, and the state keys whose history they need."""
    engine = Engine("w", PARTITIONS, clock_us, capacity=profiles)
    needed = [engine.set_audience(audience_id, definition) for audience_id, definition in definitions().items()]
    return engine, set().union(*needed)


def _seconds(work: Callable[[], object]) -> float:
    """Seconds of processor time: the engine is one thread, and other work on the machine does not count."""
    started = time.process_time()
    work()
    return time.process_time() - started


def _live(engine: Engine, data: list[bytes], flips: list[int] | None = None) -> Callable[[], None]:
    def work() -> None:
        for body in data:
            batch = ResolvedBatch.FromString(body)
            now = batch.events[-1].event.timestamp_us + 1
            engine.fold(batch.events, now_us=now)
            found = engine.advance(now)
            if flips is not None:
                flips.append(len(found))

    return work


def _bare(profiles: int, columns: int, data: list[bytes]) -> float:
    """Seconds for scattering the same batches into bare columns and comparing the touched ones with the clock."""
    index = {f"p{i:024x}": i for i in range(profiles)}
    times = [np.zeros(profiles, np.int64) for _ in range(columns)]
    decoded = [
        (
            np.array([index[e.profile_id] for e in batch.events]),
            np.array([e.event.timestamp_us for e in batch.events]),
        )
        for batch in map(ResolvedBatch.FromString, data)
    ]

    def work() -> None:
        for ordinals, at in decoded:
            for column in times:
                column[ordinals] = at
                np.count_nonzero(column[ordinals] > at[-1] - DAY)

    return _seconds(work)


def run(*, sizes: Sequence[int] = SIZES, events: int = 200_000) -> list[dict[str, Any]]:
    """Measure; returns rows with the keys of tests.benchmarks.results.Result."""
    rows = [row for profiles in sizes for row in with_people(profiles, events)]
    for name, (speed, of_each) in over_lists(ACTIVE, max(events // 10_000, 2), 1_000).items():
        what = "a count in place of it" if name == "none" else name
        rows.append(_row(f"batches of 1000, one condition alone: {what}", speed, "ev/s", note=f"{of_each} events each"))
    for name, (speed, of_event) in by_number(ACTIVE, max(events // 10_000, 2), 1_000).items():
        rows.append(_row(f"batches of 1000, {name} audiences", speed, "ev/s", note=f"{of_event:.2f} flips an event"))
    return rows


def _row(name: str, value: float, unit: str, **more: Any) -> dict[str, Any]:
    return {"name": f"audience engine: {name}", "value": value, "unit": unit, **more}


def with_people(profiles: int, events: int) -> list[dict[str, Any]]:
    """What 100 audiences of so many people cost; micro-batches are of 2,000 of them at most."""
    memory_before = _resident_mib()
    engine, needed = new_engine(profiles, START)
    rows: list[dict[str, Any]] = []

    def add(name: str, value: float, unit: str, **more: Any) -> None:
        rows.append(_row(f"{profiles:,} people: {name}", value, unit, **more))

    # Everybody is known, with three events each on average over the last 60 days.
    history = max(1, profiles * 3 // 10_000)
    for number in range(history):
        data = batches(profiles, 1, 10_000, number, START - 60 * DAY + number * (60 * DAY // history))
        engine.fold(ResolvedBatch.FromString(data[0]).events, conditions=needed)
    engine.fold(
        (
            ResolvedEvent(profile_id=f"p{i:024x}", event=Event(message_id=f"m{i}", kind=EventKind.EVENT_KIND_PAGE))
            for i in range(profiles)
        ),
        conditions=needed,
    )
    add("memory of the state", _resident_mib() - memory_before, "MiB", target=1024.0, lower_is_better=True)
    for audience_id in definitions():
        engine.start_audience(audience_id)
    add("first evaluation of everybody", _seconds(lambda: engine.advance(START)), "s", lower_is_better=True)
    # Live traffic comes from people who are active now; they have entered what their activity lets them enter.
    active = min(profiles, ACTIVE)
    _live(engine, batches(active, active * 100 // 1_000, 1_000, 1, START + 1))()
    for size in (1_000, 100, 1):
        count = max(events // 1_000, 20) if size == 1_000 else 200
        data = batches(active, count, size, 1_000_000 + size, engine.clock_us + 1)
        flips: list[int] = []
        speed = count * size / _seconds(_live(engine, data, flips))
        if size == 1_000:
            add("flips per event in them", sum(flips) / (count * size), "flips")
            bare = count * size / _bare(profiles, 100, data)
            more = {"baseline": "scatter and compare 100 bare columns", "baseline_value": bare}
            add("batches of 1000, 100 audiences", speed, "ev/s", target=100_000.0)
            add("the same beside bare numpy", speed, "ev/s", **more)
        else:
            add(f"batches of {size}, 100 audiences", speed, "ev/s")
    sweeps = sorted(_seconds(lambda: engine.advance(engine.clock_us + 1_000_000)) for _ in range(20))
    add("sweep, median of 20", sweeps[10] * 1e3, "ms", target=100.0, lower_is_better=True)
    add("sweep, slowest of 20", sweeps[-1] * 1e3, "ms", lower_is_better=True)
    column = np.zeros(profiles, np.int64)
    compare = _seconds(lambda: [np.flatnonzero(column > START) for _ in range(100)])
    add("bare comparison of 100 columns with the clock", compare * 1e3, "ms", lower_is_better=True)
    exported: list[bytes] = []
    taken = _seconds(lambda: exported.extend(engine.export_partition(p) for p in range(PARTITIONS)))
    add("snapshots of all partitions", taken, "s", lower_is_better=True)
    add("size of the snapshots", sum(map(len, exported)) / 2**20, "MiB", lower_is_better=True)
    again, _ = new_engine(profiles, engine.clock_us)
    taken = _seconds(lambda: _load(again, exported))
    add("loading the snapshots", taken, "s", lower_is_better=True)
    return rows


def over_lists(active: int, count: int, size: int) -> dict[str, tuple[float, int]]:
    """Events a second with one condition over lists alone, and how many events its people have by then, by condition.

    Args:
        active: People from whom the events come.
        count: Micro-batches that are measured.
        size: Events in each.
    """
    found: dict[str, tuple[float, int]] = {}
    for name, definition in {"none": "performed Purchased in last 30d", **OVER_LISTS}.items():
        engine = Engine("w", PARTITIONS, START, capacity=active)
        engine.set_audience("a", parse_definition(from_text(definition)))
        engine.start_audience("a")
        # Thirty events each over 60 days, of which some are dropped again where the span is shorter.
        for number in range(30):
            since = START - (60 - 2 * number) * DAY
            _live(engine, batches(active, 1, active, number, since))()
        data = batches(active, count, size, 1_000_000, max(engine.clock_us, START) + 1)
        found[name] = count * size / _seconds(_live(engine, data)), 30 + count * size // active
    return found


def by_number(active: int, count: int, size: int) -> dict[str, tuple[float, float]]:
    """With 1, 10, 100 and 1,000 audiences, alike or with windows of their own: events a second, and flips an event.

    Args:
        active: People from whom the events come.
        count: Micro-batches that are measured.
        size: Events in each.
    """
    hundred = [definition.where for definition in definitions().values()]
    windows = [parse_definition(from_text(f"performed Purchased in last {n}h")).where for n in range(1, 1_001)]
    sets = {
        "1": hundred[:1],
        "10": hundred[::10],
        "100": hundred,
        "1,000, of the same 100 conditions": [hundred[n % 100] for n in range(1_000)],
        "1,000, each with a window of its own": windows,
    }
    found: dict[str, tuple[float, float]] = {}
    for name, conditions in sets.items():
        engine = Engine("w", PARTITIONS, START, capacity=active)
        for number, condition in enumerate(conditions):
            engine.set_audience(f"a{number}", Definition("dynamic", condition))
            engine.start_audience(f"a{number}")
        _live(engine, batches(active, 60, active, 1, START + 1))()
        data = batches(active, count, size, 1_000_000, engine.clock_us + 1)
        flips: list[int] = []
        speed = count * size / _seconds(_live(engine, data, flips))
        found[name] = speed, sum(flips) / (count * size)
    return found


def _load(engine: Engine, snapshots: list[bytes]) -> None:
    for partition, data in enumerate(snapshots):
        engine.import_partition(partition, data)


def _resident_mib() -> float:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    for found in run():
        print(f"{found['name']:65} {found['value']:14,.1f} {found['unit']}")
