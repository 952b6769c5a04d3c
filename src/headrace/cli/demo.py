"""`headrace demo`: the platform with a made-up shop's traffic, and a report that compares it with the truth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.problems import UsageProblem, say
from headrace.embedded.nursery import Nursery
from headrace.embedded.options import DEFAULT_PORT_BASE, Options

_LEAST_PEOPLE = 20
_DEFAULT_PEOPLE = 200


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the report instead of staying up.")] = False,
    people: Annotated[
        int, typer.Option(min=_LEAST_PEOPLE, help="Number of people in the made-up shop.")
    ] = _DEFAULT_PEOPLE,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="New or empty folder to keep the data in.", show_default="a temporary folder"),
    ] = None,
    port_base: Annotated[int, typer.Option(help="First of the ports that are used.")] = DEFAULT_PORT_BASE,
    as_json: Annotated[bool, typer.Option("--json", help="Write the report as one line of JSON.")] = False,
) -> int:
    """Start everything, play a demo shop, and compare what was found with the truth.

    Exit status 0 only if everything is as it should be.
    """
    if data_dir is not None and data_dir.is_dir() and any(data_dir.iterdir()):
        raise UsageProblem(
            f"{data_dir} is not empty: the demo compares with the whole truth, choose a new folder by --data-dir"
        )
    nursery = Nursery()  # it loads the services' code while this process loads its own
    from headrace.cli.demo_run import use_platform
    from headrace.cli.running import run_platform

    options = Options(
        data_dir=data_dir or Path(),
        ephemeral=data_dir is None,
        port_base=port_base,
        # The sandbox vendor listens on loopback, where destinations otherwise may not be.
        environment={**os.environ, "HEADRACE_ALLOW_PRIVATE_DESTINATIONS": "true"},
    )
    say("starting all services and stores; Ctrl-C stops")
    return run_platform(
        options, nursery, lambda platform, stop: use_platform(platform, stop, people, once=once, as_json=as_json)
    )
