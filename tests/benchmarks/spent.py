"""Processor time of processes: on a busy machine it says more than the clock on the wall."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

PLUGINS = "plugins"


class Spent:
    """Processor time from now on: of a service, of MongoDB, and of the processes of the service's plugins."""

    def __init__(self, service: int, mongo: int) -> None:
        """Count from now on.

        Args:
            service: Process id of the service; what it started are its plugins.
            mongo: Process id of mongod.
        """
        self._pids = {"the service": service, "MongoDB": mongo}
        self._service = service
        self._before = self._now()

    def seconds(self) -> dict[str, float]:
        """Seconds of each until now."""
        now = self._now()
        return {name: now[name] - self._before[name] for name in now}

    def us_each(self, items: int) -> str:
        """Microseconds of each per item, in words."""
        return in_words({name: spent / items * 1e6 for name, spent in self.seconds().items()})

    def _now(self) -> dict[str, float]:
        own = {name: _processor_s(pid) for name, pid in self._pids.items()}
        return {**own, PLUGINS: sum(map(_processor_s, _children(self._service)))}


def in_words(us: Mapping[str, float]) -> str:
    """Microseconds by name, in words."""
    return ", ".join(f"{name} {own:,.0f} µs" for name, own in us.items())


def _children(pid: int) -> list[int]:
    """All processes that a process started, and those that they did."""
    own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*own, *(further for child in own for further in _children(child))]


def _processor_s(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
