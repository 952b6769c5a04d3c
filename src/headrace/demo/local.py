"""A whole platform on this machine for as long as a block runs: `headrace up` as a child process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


class PlatformFailedError(Exception):
    """`headrace up` ended before it was ready; the text is what it said."""


@dataclass
class LocalPlatform:
    """`headrace up` in a folder.

    Args:
        folder: Data folder; the ready file and the output are written into it too.
        port_base: First port, as in `headrace up --port-base`.
        environment: Settings beside those of this process.
    """

    folder: Path
    port_base: int
    environment: Mapping[str, str]
    ready: dict[str, Any] | None = None
    _process: asyncio.subprocess.Process | None = None

    @property
    def ready_file(self) -> Path:
        """Where `headrace up` writes the addresses and keys."""
        return self.folder / "ready.json"

    @property
    def data_dir(self) -> Path:
        """The data folder of the platform."""
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """Process id of `headrace up`."""
        assert self._process is not None
        return self._process.pid

    async def start(self, *, timeout_s: float = 90.0) -> dict[str, Any]:
        """Start and wait until everything serves; returns the ready file's content."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "headrace.cli.main", "up", "--data-dir", str(self.data_dir)]
        command += ["--port-base", str(self.port_base), "--ready-file", str(self.ready_file)]
        output = (self.folder / "up.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **self.environment}, stdout=output, stderr=output, start_new_session=True
        )
        output.close()
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not self.ready_file.exists():
            late = asyncio.get_running_loop().time() > deadline
            if self._process.returncode is not None or late:
                await self.stop()
                said = (self.folder / "up.log").read_text(errors="replace")[-2000:]
                raise PlatformFailedError(f"the platform did not start: {said.strip() or 'it said nothing'}")
            await asyncio.sleep(0.1)
        self.ready = json.loads(self.ready_file.read_text())
        return self.ready

    async def stop(self) -> int | None:
        """End it as Ctrl-C does and wait; returns the exit status."""
        if self._process is None:
            return None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), 60)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        return self._process.returncode

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def children(self) -> dict[str, int]:
        """Process id of each running child by name: the services, "mongod" and "redis"."""
        names: dict[str, int] = {}
        for pid in _children_of(self.pid):
            name = _name_of(pid)
            if name is not None:
                names[name] = pid
        return names


def _children_of(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def _name_of(pid: int) -> str | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except FileNotFoundError:
        return None
    if "serve" in words:
        return words[words.index("serve") + 1]
    program = Path(words[0].split(" ", 1)[0]).name
    return {"mongod": "mongod", "redis-server": "redis"}.get(program)
