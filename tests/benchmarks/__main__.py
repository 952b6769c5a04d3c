"""`make bench`: measures everything, prints a table, writes bench-results/*.json. Never a test: machines are noisy."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import sys
from pathlib import Path

from tests.benchmarks.results import Result, show, write

SUITES = (
    "accept",
    "country",
    "identity",
    "resolution",
    "growth",
    "computed",
    "audience_engine",
    "audience_preview",
    "audience_flips",
    "audience_time",
    "plugin_calls",
    "sync",
    "list_sync",
    "limits",
    "isolation",
    "line",
)


def main() -> int:
    """Run the suites that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], help=f"some of {', '.join(SUITES)}; all by default")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder of the JSON files")
    arguments = parser.parse_args()
    results: list[Result] = []
    for suite in arguments.suites or SUITES:
        print(f"measuring {suite} ...", file=sys.stderr)
        module = importlib.import_module(f"tests.benchmarks.{suite}")
        found = module.run()
        rows = asyncio.run(found) if inspect.iscoroutine(found) else found
        results += [row if isinstance(row, Result) else Result(**row) for row in rows]
    show(results)
    print(f"written to {write(results, arguments.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
