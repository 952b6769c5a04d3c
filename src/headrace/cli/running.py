"""Runs a platform on this machine from the command line: what signals do, and what a failure is called."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import grpc
from pydantic import ValidationError

from headrace.cli.problems import DONE, CommandFailed, UsageProblem, say
from headrace.cli.serve import refuse_unknown, settings_problem
from headrace.embedded.errors import EmbeddedError, WrongOptions
from headrace.embedded.nursery import Nursery
from headrace.embedded.options import Options
from headrace.embedded.platform import Platform, open_platform

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Use = Callable[[Platform, asyncio.Event], Awaitable[int]]
"""What to do while a platform serves; gets an event that is set by the first signal, and returns the exit status."""


def run_platform(options: Options, nursery: Nursery, use: Use) -> int:
    """Run a platform from this process's main thread.

    The first Ctrl-C (or SIGTERM, SIGHUP) stops in order, a second one ends the services at once.

    Args:
        options: How to run it.
        nursery: Forks the services; closed at the end.
        use: What to do while it serves.

    Returns:
        The exit status of `use`; 0 when a signal came before.

    Raises:
        CommandFailed: It cannot run here, or a setting in the environment is wrong.
    """
    try:
        refuse_unknown(os.environ)
        return asyncio.run(_run(options, nursery, use))
    except WrongOptions as error:
        raise UsageProblem(str(error)) from error
    except EmbeddedError as error:
        raise CommandFailed(str(error)) from error
    except ValidationError as error:
        raise settings_problem(error) from None
    except grpc.aio.AioRpcError as error:
        raise CommandFailed(f"the first workspace cannot be made: {error.details()}") from error
    finally:
        nursery.close()


async def _run(options: Options, nursery: Nursery, use: Use) -> int:
    stop = asyncio.Event()
    serving = False

    async def live() -> int:
        nonlocal serving
        async with open_platform(options, nursery, say) as platform:
            serving = True
            return await use(platform, stop)

    living = asyncio.create_task(live())

    def on_signal() -> None:
        if serving and not stop.is_set():
            say("stopping; Ctrl-C again stops at once")
            stop.set()
        else:
            stop.set()
            living.cancel()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        return await living
    except asyncio.CancelledError:
        return DONE
