"""Asking the events of a workspace what they hold, for as long as there is time."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from dataclasses import dataclass
from typing import Self

import duckdb

from headrace_audience.batch.values import json_path

LOOKED_AT = 2_000
"""So many events are looked at for what is common, before anything is looked for in all events."""
_INTERRUPT_EVERY_S = 0.01

Path = tuple[str, ...]


@dataclass(frozen=True)
class Names:
    """Where names stand in an event."""

    column: str
    """The column that has them."""
    is_json: bool = True
    """Whether they are the keys of a JSON object; else a list."""
    has: str = "true"
    """Which events are looked at, in SQL."""
    relation: str = "written"

    @property
    def names(self) -> str:
        """The names that stand in the object at the path `$at`, as a list in SQL."""
        # The order in which conditions are looked at is DuckDB's: what is no JSON must not reach json_keys().
        keys = f"CASE WHEN json_valid({self.column}) THEN json_keys({self.column}, $at) END"
        return keys if self.is_json else self.column

    def at(self, within: Path) -> dict[str, str]:
        """The parameters of `names`."""
        return {"at": json_path(within)} if self.is_json else {}


class Looking:
    """Asks events until the time is over."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, within_s: float | None) -> None:
        """Ask a connection for so many seconds, counted from now; None: without end."""
        self._connection = connection
        self._until = math.inf if within_s is None else time.monotonic() + within_s
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._interrupt, daemon=True)

    def __enter__(self) -> Self:
        """Begin to look at the clock."""
        if self._until < math.inf:
            self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Interrupt nothing from now on."""
        self._done.set()
        if self._until < math.inf:
            self._watch.join()

    def column(self, statement: str, **parameters: object) -> set[str] | None:
        """What a query finds, as texts; None when the time was over first."""
        if time.monotonic() >= self._until:
            return None
        try:
            return {str(v) for (v,) in self._connection.execute(statement, parameters or None).fetchall()}
        except duckdb.InterruptException:
            return None

    def _interrupt(self) -> None:
        if self._done.wait(max(0.0, self._until - time.monotonic())):
            return
        while not self._done.wait(_INTERRUPT_EVERY_S):
            # An interruption is lost when no query runs in that moment, and refused while one begins.
            with contextlib.suppress(duckdb.Error):
                self._connection.interrupt()
