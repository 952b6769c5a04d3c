"""A chaos run: the whole platform under load while its processes and stores are killed at random, then the account.

Nothing is simulated: `headrace up` runs as a child process, SIGKILL is SIGKILL, and all that is looked at in the end
is what the public methods answer.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.demo.sandbox import ACCESS_TOKEN, SandboxVendor
from tests.chaos.account import Account, read_account
from tests.chaos.load import Load
from tests.support.up import Up, platform_up

CONFIGURATION = Path(__file__).parent / "chaos.yaml"
VICTIMS = ("ingest", "identity", "audience", "sync", "console", "mongod", "redis-server")


@dataclass
class ChaosRun:
    """One run.

    Attributes:
        folder: Where data and logs go.
        seed: Decides on load and victims.
        say: Told what happens.
        killed: The victims, in order.
    """

    folder: Path
    seed: int
    say: Callable[[str], None] = print
    killed: list[str] = field(default_factory=list)

    async def play(self, *, rounds: int | None = None, minutes: float = 0) -> Account:
        """Kill something `rounds` times, or for some minutes, under load; then settle and read the account."""
        rng = random.Random(self.seed)
        sandbox = SandboxVendor()
        await sandbox.start()
        try:
            with platform_up(self.folder, {"HEADRACE_ALLOW_PRIVATE_DESTINATIONS": "true"}) as up:
                await self._apply(up, sandbox)
                load = Load(up.ready["ingest_http"], up.ready["write_key"], random.Random(self.seed + 1))
                stop = asyncio.Event()
                sending = asyncio.create_task(load.run(stop))
                try:
                    await self._kill(up, rng, rounds, time.monotonic() + minutes * 60, sending)
                finally:
                    stop.set()
                await asyncio.wait_for(sending, 120)
                self.say(f"{len(load.acknowledged)} events acknowledged; answers: {dict(load.answers)}")
                return await self._settled(up, load, sandbox)
        finally:
            await sandbox.stop()

    async def _kill(
        self, up: Up, rng: random.Random, rounds: int | None, until: float, sending: asyncio.Task[None]
    ) -> None:
        # Every victim comes before one comes again, so that twenty rounds meet each of them.
        order: list[str] = []
        while len(self.killed) < rounds if rounds is not None else time.monotonic() < until:
            await asyncio.sleep(rng.uniform(0.3, 2.0))
            if sending.done():
                sending.result()
            if not order:
                order = rng.sample(VICTIMS, len(VICTIMS))
            victim = order.pop()
            deadline = time.monotonic() + 30
            while (pid := up.pid(victim)) is None:
                assert time.monotonic() < deadline, f"{victim} was not started again"
                await asyncio.sleep(0.05)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.killed.append(victim)
            self.say(f"round {len(self.killed)}: killed {victim}")

    async def _apply(self, up: Up, sandbox: SandboxVendor) -> None:
        environment = {"SANDBOX_URL": sandbox.url, "SANDBOX_TOKEN": ACCESS_TOKEN}
        applied = await asyncio.to_thread(up.headrace, "apply", "-f", str(CONFIGURATION), **environment)
        assert applied.returncode == 0, applied.stderr

    async def _settled(self, up: Up, load: Load, sandbox: SandboxVendor) -> Account:
        """The account, as soon as it is right, or what it is after two minutes."""
        deadline = time.monotonic() + 120
        while True:
            account: Account | None = None
            problem: Any = None
            try:
                account = await read_account(up.ready, load, sandbox)
            except Exception as error:
                problem = error
            if account is not None and not account.problems:
                return account
            if time.monotonic() > deadline:
                if account is None:
                    raise problem
                return account
            await asyncio.sleep(1)
