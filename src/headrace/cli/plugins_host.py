"""Runs the installed plugins for a command, with failures said in sentences."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from headrace.cli.problems import CommandFailed, UsageProblem

if TYPE_CHECKING:
    from headrace.plugins import PluginHost

T = TypeVar("T")


def with_plugins(use: Callable[[PluginHost], Awaitable[T]]) -> T:
    """Load all plugins, use them, end them.

    Raises:
        UsageProblem: What was given to them cannot be used.
        CommandFailed: A plugin failed.
    """
    from headrace.plugins import PluginConfigError, PluginError, PluginErrorKind
    from headrace.plugins.mapping import MappingError
    from headrace.plugins.offline import InputError

    logging.getLogger("headrace").setLevel(logging.ERROR)  # failures to load are shown by `headrace plugin list`
    try:
        return asyncio.run(_run(use))
    except PluginConfigError as error:
        raise UsageProblem(f"settings: {error}") from None
    except MappingError as error:
        raise UsageProblem(f"mapping: {error}") from None
    except InputError as error:
        raise UsageProblem(f"input: {error}") from None
    except PluginError as error:
        if error.kind is PluginErrorKind.LOAD:
            raise UsageProblem(str(error)) from None
        raise CommandFailed(str(error)) from None


async def _run(use: Callable[[PluginHost], Awaitable[T]]) -> T:
    from headrace.plugins import Options, PluginHost

    try:
        host = PluginHost.of(Options.of_environment(os.environ))
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    try:
        await host.start()
        return await use(host)
    finally:
        await host.close()
