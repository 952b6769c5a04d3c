"""`headrace up`: all services and their stores on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import grpc
import typer
from pydantic import ValidationError

from headrace.cli.problems import DONE, CommandFailed, UsageProblem, say
from headrace.cli.serve import refuse_unknown, settings_problem
from headrace.embedded.errors import EmbeddedError, WrongOptions
from headrace.embedded.platform import DEFAULT_DATA_DIR, DEFAULT_PORT_BASE, Options, Platform, open_platform

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for data, logs and keys.", show_default=str(DEFAULT_DATA_DIR)),
    ] = None,
    port_base: Annotated[int, typer.Option(help="First of the ports that are used.")] = DEFAULT_PORT_BASE,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Data in a temporary folder, removed at the end.")
    ] = False,
    ready_file: Annotated[
        Path | None, typer.Option(help="JSON file with addresses and keys, there while everything serves.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write addresses and keys as one line of JSON when it serves.")
    ] = False,
) -> int:
    """Start all services and stores on this machine; Ctrl-C stops them and keeps the data."""
    if ephemeral and data_dir is not None:
        raise UsageProblem("--ephemeral takes a temporary folder: leave out --data-dir")
    refuse_unknown(os.environ)
    options = Options(
        data_dir=data_dir or DEFAULT_DATA_DIR,
        port_base=port_base,
        ephemeral=ephemeral,
        ready_file=ready_file,
        environment=dict(os.environ),
    )
    say("starting; Ctrl-C stops")
    return run_platform(options, lambda platform, stop: _show(platform, stop, as_json=as_json))


def run_platform(options: Options, use: Callable[[Platform, asyncio.Event], Awaitable[int]]) -> int:
    """Run a platform from this process's main thread.

    The first Ctrl-C (or SIGTERM, SIGHUP) stops in order, a second one ends the services at once.

    Args:
        options: How to run it.
        use: What to do while it serves; gets an event that is set by the first signal, and returns the exit status.

    Returns:
        The exit status of `use`; 0 when a signal came before.

    Raises:
        CommandFailed: It cannot run here.
    """
    try:
        return asyncio.run(_run(options, use))
    except WrongOptions as error:
        raise UsageProblem(str(error)) from error
    except EmbeddedError as error:
        raise CommandFailed(str(error)) from error
    except ValidationError as error:
        raise settings_problem(error) from None
    except grpc.aio.AioRpcError as error:
        raise CommandFailed(f"the first workspace cannot be made: {error.details()}") from error


async def _run(options: Options, use: Callable[[Platform, asyncio.Event], Awaitable[int]]) -> int:
    stop = asyncio.Event()
    serving = False

    async def live() -> int:
        nonlocal serving
        async with open_platform(options, say) as platform:
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


async def _show(platform: Platform, stop: asyncio.Event, *, as_json: bool) -> int:
    if as_json:
        lines = [json.dumps(platform.as_json())]
    else:
        lines = [
            "Headrace serves:",
            f"  events over HTTP  {platform.ingest_http}",
            f"  console           {platform.console_http}",
            *(f"  gRPC {name:<12} {address}" for name, address in platform.grpc.items()),
            f"  workspace         {platform.workspace}",
            f"  write key         {platform.write_key}",
            f"  API token         in {platform.keys_path}",
            f"  data and logs     {platform.data_dir}",
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    await stop.wait()
    return DONE
