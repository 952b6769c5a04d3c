"""Countries by IP address: what looking one up adds to reading a message, beside reading it without.

Processor time of one process, in rounds that take turns, so that what else runs on the machine matters little.
"""

from __future__ import annotations

import ipaddress
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from headrace_ingest.countries import Countries
from headrace_ingest.location import CountryOf
from headrace_ingest.messages import Arrival, read_message

from tests.benchmarks.accept import CONTEXT, message
from tests.benchmarks.results import Result
from tests.support.countries import write_table

MESSAGES = 5_000
ROUNDS = 15
NETWORKS = 10_000
VISITORS = 500
"""Different addresses when visitors come back: ten messages of each."""
_ARRIVAL = Arrival("bench", "bench", 1_793_534_400_000_000)


def run() -> list[Result]:
    """All figures of this file."""
    r = random.Random(7)
    networks = {f"{r.randrange(11, 100)}.{r.randrange(256)}.{r.randrange(256)}.0/24": "DE" for _ in range(NETWORKS)}
    with tempfile.TemporaryDirectory() as folder:
        countries = Countries(write_table(Path(folder) / "bench.mmdb", networks), every_s=60)
    addresses = [str(ipaddress.ip_network(network)[7]) for network in networks]
    visitors = [r.choice(addresses[:VISITORS]) for _ in range(MESSAGES)]
    fresh = (str(ipaddress.IPv4Address(r.randrange(11 << 24, 100 << 24))) for _ in iter(int, 1))
    ways: dict[str, Callable[[], list[bytes]]] = {
        "bare": lambda: _messages(iter(visitors)),
        "visitors that come back": lambda: _messages(iter(visitors)),
        "a new address each time": lambda: _messages(fresh),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, make in ways.items():
            seconds[way].append(_read(make(), None if way == "bare" else countries.country_of))
    cost_us = {way: median(found) / MESSAGES * 1e6 for way, found in seconds.items()}
    return [
        Result(name=f"country by IP address, {way}", value=cost_us[way], unit="us/message",
               baseline="reading without", baseline_value=cost_us["bare"], target=target, lower_is_better=True)
        for way, target in (("visitors that come back", 1.15), ("a new address each time", 2.0))
    ]  # fmt: skip


def _messages(addresses: Iterator[str]) -> list[bytes]:
    return [
        json.dumps({**message(number), "context": {**CONTEXT, "ip": next(addresses)}}).encode()
        for number in range(MESSAGES)
    ]


def _read(messages: list[bytes], country_of: CountryOf | None) -> float:
    arrival = Arrival(_ARRIVAL.workspace_id, _ARRIVAL.source_id, _ARRIVAL.received_at_us, country_of=country_of)
    started = time.process_time()
    events = [read_message(one, arrival) for one in messages]
    seconds = time.process_time() - started
    located = sum(b'"location"' in event.context for event in events)
    assert (located > 0) == (country_of is not None), "countries are found when they are looked for, and only then"
    return seconds
