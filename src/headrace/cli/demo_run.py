"""What `headrace demo` does while the platform serves: sets the shop up, plays it, shows the report."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from importlib.resources import as_file, files

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from headrace.api.ingest.v1.source_service_pb2 import GetSourceRequest
from headrace.api.ingest.v1.source_service_pb2_grpc import SourceServiceStub
from headrace.cli.problems import DONE, FAILED, CommandFailed, say
from headrace.demo import report
from headrace.demo.report import Report
from headrace.demo.runner import Address, DemoFailed, Runner
from headrace.demo.sandbox import SandboxVendor
from headrace.demo.simulator import simulate
from headrace.domain.times import now_us
from headrace.embedded.platform import Platform
from headrace.embedded.services import SETTINGS_PREFIX
from headrace.rpc.channel import with_token

_CRM = "crm"
_PATIENCE_S = 60.0
_PATIENCE_PER_PERSON_S = 0.1


async def use_platform(platform: Platform, stop: asyncio.Event, people: int, *, once: bool, as_json: bool) -> int:
    """Play the demo; returns the exit status."""
    sandbox = SandboxVendor()
    await sandbox.start()
    try:
        playing = asyncio.create_task(_play(platform, sandbox, people))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({playing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not playing.done():
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
            return DONE
        found = playing.result()
        _show(found, sandbox, as_json=as_json)
        if not once:
            say(f"console: {platform.console_http}   events: {platform.ingest_http}   Ctrl-C stops")
            await stopped
        stopped.cancel()
        return DONE if found.right else FAILED
    finally:
        await sandbox.stop()


async def _play(platform: Platform, sandbox: SandboxVendor, people: int) -> Report:
    await _set_up(platform, sandbox)
    async with AsyncExitStack() as stack:
        channels = {
            service: await stack.enter_async_context(with_token(address, platform.api_token))
            for service, address in platform.grpc.items()
        }
        name = f"workspaces/{platform.workspace}/sources/{_CRM}"
        crm = await SourceServiceStub(channels["ingest"]).GetSource(GetSourceRequest(name=name))
        runner = Runner(
            simulate(people=people, now_us=now_us()),
            Address(platform.ingest_http, platform.write_key, crm.source.webhook_token),
            report.Platform(channels["identity"], channels["audience"], channels["sync"], platform.workspace),
            sandbox,
            stack.enter_context(_Shown()),
        )
        try:
            return await runner.play(patience_s=_PATIENCE_S + people * _PATIENCE_PER_PERSON_S)
        except DemoFailed as error:
            raise CommandFailed(f"{error}; logs are in {platform.data_dir / 'logs'}") from error


async def _set_up(platform: Platform, sandbox: SandboxVendor) -> None:
    """Apply demo.yaml as a user would."""
    with as_file(files("headrace.demo") / "demo.yaml") as path:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace.cli.main", "apply", "-f", str(path)),
            *("--ready-file", str(platform.ready_path)),
            env={**_without_settings(os.environ), "SANDBOX_URL": sandbox.url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    if process.returncode != DONE:
        raise CommandFailed(f"the demo cannot be set up: {output.decode().strip()}")


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Without HEADRACE_*: they may name another platform."""
    return {name: value for name, value in environment.items() if not name.upper().startswith(SETTINGS_PREFIX)}


class _Shown:
    """Progress as bars on a terminal, and as lines elsewhere."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = (
            Bars(
                TextColumn("{task.description:<32}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console,
            )
            if console.is_terminal
            else None
        )
        self._task: TaskID | None = None
        self._title = ""
        self._total = 0
        self._done = 0
        self._began = 0.0

    def __enter__(self) -> _Shown:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
        if self._bars is not None:
            self._bars.stop()

    def step(self, title: str, total: int) -> None:
        """A new step begins; the same one again only changes its total."""
        if title != self._title:
            self._finish()
            self._title, self._began, self._done = title, time.monotonic(), 0
            if self._bars is not None:
                self._task = self._bars.add_task(title, total=total)
        self._total = total

    def at(self, done: int) -> None:
        """So many units are done."""
        self._done = done
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=min(done, self._total), total=self._total)

    def _finish(self) -> None:
        if self._title and self._bars is None:
            say(f"{self._title}: {self._done} of {self._total} ({time.monotonic() - self._began:.1f} s)")


def _show(found: Report, sandbox: SandboxVendor, *, as_json: bool) -> None:
    if as_json:
        checks = [{"name": c.name, "expected": c.expected, "found": c.found, "right": c.right} for c in found.checks]
        totals = {"events": found.events, "people": found.people, "merges": found.merges}
        sys.stdout.write(json.dumps({"right": found.right, **totals, "checks": checks}) + "\n")
        sys.stdout.flush()
        return
    table = Table(title="What the platform found")
    table.add_column("")
    table.add_column("expected", justify="right")
    table.add_column("found", justify="right")
    table.add_column("")
    for check in found.checks:
        mark = "[green]right[/green]" if check.right else "[red]WRONG[/red]"
        table.add_row(check.name, str(check.expected), str(check.found), mark)
    console = Console()
    console.print(table)
    refusals = ", ".join(f"{kind} {count}" for kind, count in sorted(sandbox.refused.items())) or "none"
    console.print(f"{found.events} events of {found.people} people; {found.merges} profiles were merged into others.")
    console.print(f"On the way the sandbox vendor refused requests, as vendors do: {refusals}.")
