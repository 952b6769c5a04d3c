"""What a benchmark found, and how it is shown."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line.

    Attributes:
        name: What was measured.
        value: The figure.
        unit: Its unit.
        baseline: Name of the bare part that it is compared with; empty for none.
        baseline_value: Figure of that part in the same run and unit.
        target: Least (or, with `lower_is_better`, greatest) share of the baseline, or least figure without one.
        lower_is_better: True for latencies and sizes.
        note: More, such as percentiles.
    """

    name: str
    value: float
    unit: str
    baseline: str = ""
    baseline_value: float = 0.0
    target: float | None = None
    lower_is_better: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Share of the baseline."""
        return self.value / self.baseline_value if self.baseline_value else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        if self.target is None:
            return None
        figure = self.value if self.ratio is None else self.ratio
        return figure <= self.target if self.lower_is_better else figure >= self.target


def show(results: Sequence[Result]) -> None:
    """Print a table."""
    table = Table("measured", "figure", "unit", "ratio", "of", "target", "met", "note")
    for r in results:
        ratio = "" if r.ratio is None else f"{r.ratio:.0%}"
        target = "" if r.target is None else (f"{r.target:,.0f}" if r.ratio is None else f"{r.target:.0%}")
        met = {None: "", True: "yes", False: "no"}[r.met]
        table.add_row(r.name, f"{r.value:,.4g}" if r.value < 1000 else f"{r.value:,.0f}", r.unit, ratio, r.baseline,
                      target, met, r.note)  # fmt: skip
    Console(width=180).print(table)


def write(results: Sequence[Result], folder: Path) -> Path:
    """Write a JSON file named by the moment; returns its path."""
    folder.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = folder / f"{now:%Y%m%dT%H%M%SZ}.json"
    machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
    body = {
        "time": now.isoformat(timespec="seconds"),
        "machine": machine,
        "results": [asdict(r) | {"ratio": r.ratio, "met": r.met} for r in results],
    }
    path.write_text(json.dumps(body, indent=1) + "\n")
    return path
