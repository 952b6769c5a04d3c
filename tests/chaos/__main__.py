"""`make soak`: a long chaos run. Exit status 0 only if the account is right."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.run import ChaosRun


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long to go on killing")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="decides on load and victims")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder:
        run = ChaosRun(Path(folder), arguments.seed)
        account = asyncio.run(run.play(minutes=arguments.minutes))
    print(f"seed {arguments.seed}: {len(run.killed)} kills, {account.events} events")
    for problem in account.problems:
        print(f"wrong: {problem}", file=sys.stderr)
    return 1 if account.problems else 0


if __name__ == "__main__":
    sys.exit(main())
