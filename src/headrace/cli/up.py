"""`headrace up`: all services and their stores on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.problems import DONE, UsageProblem, say
from headrace.embedded.nursery import Nursery
from headrace.embedded.options import DEFAULT_DATA_DIR, DEFAULT_PORT_BASE, Options

if TYPE_CHECKING:
    from headrace.embedded.platform import Platform


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
    nursery = Nursery()  # it loads the services' code while this process loads its own
    from headrace.cli.running import run_platform

    options = Options(
        data_dir=data_dir or DEFAULT_DATA_DIR,
        port_base=port_base,
        ephemeral=ephemeral,
        ready_file=ready_file,
        environment=dict(os.environ),
    )
    say("starting; Ctrl-C stops")
    return run_platform(options, nursery, lambda platform, stop: _show(platform, stop, as_json=as_json))


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
