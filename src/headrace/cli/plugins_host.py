"""Runs the installed plugins for a command, with failures said in sentences."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from headrace.cli.problems import CommandFailed, UsageProblem

if TYPE_CHECKING:
    from headrace.plugins import PluginHost

T = TypeVar("T")


def with_plugins(use: Callable[[PluginHost], Awaitable[T]], *, plugin: str = "") -> T:
    """Load plugins, use them, end them.

    Args:
        use: Uses them.
        plugin: What is to be used. When a plugin has this name, or an entry point of it, only that one is loaded; else
            all are, for any may offer a connector of this name.

    Raises:
        UsageProblem: What was given to them cannot be used.
        CommandFailed: A plugin failed.
    """
    from headrace.plugins import PluginConfigError, PluginError, PluginErrorKind
    from headrace.plugins.mapping import MappingError
    from headrace.plugins.offline import InputError

    logging.getLogger("headrace").setLevel(logging.ERROR)  # failures to load are shown by `headrace plugin list`
    try:
        return asyncio.run(_run(use, plugin))
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


async def _run(use: Callable[[PluginHost], Awaitable[T]], plugin: str) -> T:
    from headrace.plugins import Options, PluginHost
    from headrace.plugins.discovery import discover

    try:
        options = Options.of_environment(os.environ)
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    if plugin and options.plugins is None and discover([plugin], folders=options.folders)[0]:
        options = dataclasses.replace(options, plugins=(plugin,))
    host = PluginHost.of(options)
    try:
        await host.start()
        return await use(host)
    finally:
        await host.close()
