"""Replicas of the audience service in processes of their own, and what must hold whatever was done to them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from headrace_audience.store import CHANGES, MEMBERSHIPS

from headrace.storage.mongo.client import Database
from tests.support.audience import QUICK


@contextmanager
def replica_process(environment: Mapping[str, str], lease_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """A replica in a process of its own."""
    quick = {
        f"HEADRACE_{name.upper()}": str(value) for name, value in (QUICK | {"audience_lease_seconds": lease_s}).items()
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace.cli.main", "serve", "audience"],
        env={**os.environ, **environment, **quick},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def consistent(db: Database) -> None:
    """The history of each membership is without gaps, alternates, and ends in its row."""
    histories: dict[tuple[str, str], list[tuple[int, bool]]] = {}
    async for change in db[CHANGES].find({}).sort([("a", 1), ("p", 1), ("v", 1)]):
        histories.setdefault((change["a"], change["p"]), []).append((change["v"], change["in"]))
    for history in histories.values():
        assert history == [(i + 1, i % 2 == 0) for i in range(len(history))]
    rows = {(d["a"], d["p"]): (d["version"], d["in"]) async for d in db[MEMBERSHIPS].find({})}
    assert rows == {key: history[-1] for key, history in histories.items()}
