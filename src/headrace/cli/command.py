"""How commands that call the platform are declared: their own parameters, and the shared ones added here.

    @command(app, "get")
    async def get(platform: Platform, out: Output, source: Annotated[str, Argument(help="Source id.")]) -> None:

becomes a command with `--ready-file`, `--address`, `--token`, `--workspace` and `--json`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from headrace.cli import connection
from headrace.cli.output import Output
from headrace.cli.platform import Platform

Body = Callable[..., Awaitable[int | None]]

All = Annotated[bool, typer.Option("--all", help="All of them, however many pages it takes.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most this many.")]
DEFAULT_LIMIT = 100

_SHARED: dict[str, Any] = {
    "ready_file": Annotated[
        Path | None,
        typer.Option("--ready-file", help="Addresses and keys of a platform, as `headrace up` writes them."),
    ],
    "address": Annotated[
        list[str] | None,
        typer.Option("--address", help="HOST:PORT of all services, or SERVICE=HOST:PORT; may be repeated."),
    ],
    "token": Annotated[str | None, typer.Option("--token", help="API token.", show_envvar=False)],
    "workspace": Annotated[str | None, typer.Option("--workspace", help="Workspace id.")],
    "as_json": Annotated[bool, typer.Option("--json", help="JSON for machines in place of tables.")],
}
_DEFAULTS = {"ready_file": None, "address": None, "token": None, "workspace": None, "as_json": False}


def group(help: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True, help=help)


def command(app: typer.Typer, name: str) -> Callable[[Body], Body]:
    """Register a coroutine function whose first two parameters are `platform` and `out` as a command of a group."""

    def register(body: Body) -> Body:
        app.command(name=name)(calling(body))
        return body

    return register


def calling(body: Body) -> Callable[..., int]:
    """A plain function for Typer: the body's own parameters and the shared ones, returning the exit status."""
    own = list(inspect.signature(body).parameters.values())[2:]
    hints = get_type_hints(body, include_extras=True)

    @functools.wraps(body)
    def run(**values: Any) -> int:
        found = connection.resolve(
            ready_file=values.pop("ready_file"),
            addresses=values.pop("address") or (),
            token=values.pop("token"),
            workspace=values.pop("workspace"),
        )
        return asyncio.run(_call(body, found, Output(as_json=values.pop("as_json")), values))

    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[name], annotation=annotation)
        for name, annotation in _SHARED.items()
    ]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in own]
    signature = inspect.Signature([*keyword, *shared])
    run.__signature__ = signature  # type: ignore[attr-defined]  # what inspect, and so Typer, looks at
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    del run.__wrapped__
    return run


async def _call(body: Body, found: connection.Connection, out: Output, values: dict[str, Any]) -> int:
    import grpc

    from headrace.cli.calls import explained

    platform = Platform(found)
    try:
        return await body(platform, out, **values) or 0
    except grpc.aio.AioRpcError as error:
        raise explained(error, platform) from error
    finally:
        await platform.close()


def shared_options() -> dict[str, str]:
    """The options that `command` adds, with what they are for."""
    return {_option_of(name): annotation.__metadata__[0].help for name, annotation in _SHARED.items()}


def _option_of(name: str) -> str:
    return "--" + name.removeprefix("as_").replace("_", "-")
