"""What a profile costs the audience engine in memory, by the number of audiences and of people.

Each figure is the growth of a fresh process, from before the engine to when the history of all states is folded, as
it is at a fill. Evaluating adds nothing that stays: memberships have their bits already.

    python -m tests.benchmarks.audience_memory --people 100000 --audiences 1 10 100 1000
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from headrace_audience.batch import queries
from headrace_audience.distributed.shards import stream_of
from headrace_audience.engine.engine import PROFILES, Engine
from headrace_audience.language.definition import Definition
from headrace_audience.language.parser import parse_definition
from headrace_audience.language.text.reading import from_text

from tests.benchmarks.audience_engine import DAY, NAMES, PARTITIONS, SHARES, START, _resident_mib, definitions

EACH = 20
"""Events of a person, over 60 days."""
SIZES = (10_000, 100_000, 1_000_000)
NUMBERS = (1, 10, 100, 1_000)
OWN = "own"
"""Audiences each with a window of its own, in place of the same 100 conditions again and again."""


def run() -> list[dict[str, Any]]:
    """Measure; returns rows with the keys of tests.benchmarks.results.Result."""
    asked = [(people, 100, "") for people in SIZES]
    asked += [(100_000, number, kind) for kind in ("", OWN) for number in NUMBERS]
    return [_row(*one) for one in dict.fromkeys(asked)]


def _row(people: int, audiences: int, kind: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.audience_memory", "--one", str(people), str(audiences), kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    mib = json.loads(done.stdout.splitlines()[-1])
    what = "each with a window of its own" if kind else "of 100 different conditions at most"
    return {
        "name": f"audience memory: {people:,} people, {audiences:,} audiences {what}",
        "value": mib * 2**20 / people,
        "unit": "bytes a person",
        "lower_is_better": True,
        "note": f"{mib:,.0f} MiB",
    }


def _conditions(audiences: int, kind: str) -> list[Definition]:
    if kind == OWN:
        texts = [f"performed Purchased in last {n}h" for n in range(1, audiences + 1)]
        return [parse_definition(from_text(text)) for text in texts]
    hundred = list(definitions().values())
    return [hundred[number % 100] for number in range(audiences)]


def _events(people: int) -> pa.Table:
    """The relation `events`."""
    choose = np.random.default_rng(1)
    count = people * EACH
    person = choose.permutation(np.repeat(np.arange(people), EACH))
    ids = np.char.add("p", np.char.zfill(np.arange(people).astype(str), 24))
    name = choose.choice(len(NAMES), count, p=np.array(SHARES) / sum(SHARES))
    is_identify = choose.random(count) < 0.1
    value = choose.integers(0, 500, count)
    properties = [f'{{"value":{v},"category":"shoes"}}' for v in range(500)]
    traits = [json.dumps({"country": ("DE", "IN", "US")[p % 3], "plan": ("free", "pro")[p % 2]}) for p in range(6)]
    nothing = pa.nulls(count, pa.string())
    return pa.table(
        {
            "profile": pa.DictionaryArray.from_arrays(person, ids.tolist()).cast(pa.string()),
            "timestamp_us": START - choose.integers(1, 60 * DAY, count),
            "message_id": pa.array(np.arange(count)).cast(pa.string()),
            "kind": np.where(is_identify, "identify", "track"),
            "name": pa.DictionaryArray.from_arrays(name, list(NAMES)).cast(pa.string()),
            "properties": pa.DictionaryArray.from_arrays(value, properties).cast(pa.string()),
            "traits": pa.DictionaryArray.from_arrays(pa.array(person % 6, mask=~is_identify), traits).cast(pa.string()),
            "namespaces": pa.nulls(count, pa.list_(pa.string())),
            "consents": nothing,
            "touch": nothing,
        }
    )


def _one(people: int, audiences: int, kind: str) -> float:
    """MiB of an engine in this process."""
    named = {f"a{number}": condition for number, condition in enumerate(_conditions(audiences, kind))}
    probe = Engine("w", PARTITIONS, START)
    keys = sorted({PROFILES}.union(*(probe.set_audience(a, d) for a, d in named.items())))
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.register("events", _events(people))
        streams = [stream_of(queries.condition_history(connection, key, START)) for key in keys]
    before = _settled_mib()
    engine = Engine("w", PARTITIONS, START)
    for audience_id, definition in named.items():
        engine.set_audience(audience_id, definition)
    for key, stream in zip(keys, streams, strict=True):
        engine.fold_history(key, pa.ipc.open_stream(stream).read_all())
    engine.advance(START)
    grown = _settled_mib() - before
    assert all(engine.size(audience_id) == 0 for audience_id in named)  # the engine is still there
    return grown


def _settled_mib() -> float:
    """Resident memory, after what is free was given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _resident_mib()


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.audience_memory", description=__doc__)
    parser.add_argument("--people", type=int, nargs="+", default=[100_000], help="numbers of people")
    parser.add_argument("--audiences", type=int, nargs="+", default=NUMBERS, help="numbers of audiences")
    parser.add_argument("--one", nargs=3, metavar=("PEOPLE", "AUDIENCES", "KIND"), help="in this process; prints MiB")
    asked = parser.parse_args()
    if asked.one:
        people, audiences, kind = asked.one
        pa.set_memory_pool(pa.system_memory_pool())  # gives back what is free
        print(json.dumps(_one(int(people), int(audiences), kind)))
        return
    for people in asked.people:
        for kind in ("", OWN):
            for audiences in asked.audiences:
                row = _row(people, audiences, kind)
                print(f"{row['name']:90} {row['value']:10,.0f} {row['unit']}  {row['note']}", flush=True)


if __name__ == "__main__":
    _main()
