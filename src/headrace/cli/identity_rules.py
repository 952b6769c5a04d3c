"""`headrace identity rules|rebuild|rebuilds|alarms`: by which rules people are told apart, and what that came to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.files import new_request_id, read_json
from headrace.cli.output import Output, plain_of, write, write_json
from headrace.cli.platform import Platform, listed
from headrace.cli.problems import FAILED, say

rules = group("Identity rules of the workspace: which values identify, and how many one person may have.")
rebuilds = group("Previews and rebuilds of who is who.")

_EVERY_S = 0.5
_SHOWN_EXAMPLES = 20
_ENDED = frozenset({"done", "failed", "cancelled"})

RulesFile = Annotated[Path, Argument(help="The rules as JSON; - is standard input.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `headrace identity`."""
    app.add_typer(rules, name="rules")
    app.add_typer(rebuilds, name="rebuilds")
    command(app, "rebuild")(rebuild)
    command(app, "alarms")(alarms)


@command(rules, "get")
async def get_rules(platform: Platform, out: Output) -> None:
    """Show the rules in force as JSON; with --json also their version and etag."""
    from headrace.api.identity.v1.identity_service_pb2 import GetIdentityRulesRequest

    answer = await platform.identity.GetIdentityRules(GetIdentityRulesRequest(name=f"{platform.parent}/identityRules"))
    found = plain_of(answer.identity_rules)
    write_json(found if out.as_json else found["rules"])


@command(rules, "set")
async def set_rules(
    platform: Platform,
    out: Output,
    file: RulesFile,
    etag: Annotated[str, Option("--etag", help="Only if the rules are those that had this etag.")] = "",
) -> None:
    """Set the rules for what is resolved from now on; `headrace identity rebuild` applies them to everything."""
    from headrace.api.identity.v1.identity_service_pb2 import IdentityRules, UpdateIdentityRulesRequest

    given = IdentityRules(name=f"{platform.parent}/identityRules", rules=_json(file), etag=etag)
    answer = await platform.identity.UpdateIdentityRules(
        UpdateIdentityRulesRequest(identity_rules=given, request_id=new_request_id())
    )
    stored = answer.identity_rules
    out.done(f"the rules are at version {stored.version}", stored)


@command(rules, "preview")
async def preview_rules(platform: Platform, out: Output, file: RulesFile) -> int:
    """Say what rules would change on the stored events: who would be joined, who split. Changes nothing."""
    from headrace.api.identity.v1.identity_service_pb2 import PreviewIdentityRulesRequest

    started = await platform.identity.PreviewIdentityRules(
        PreviewIdentityRulesRequest(parent=platform.parent, rules=_json(file), request_id=new_request_id())
    )
    return await _wait(platform, out, started.rebuild)


async def rebuild(
    platform: Platform,
    out: Output,
    rules_file: Annotated[
        Path | None, Option("--rules", help="New rules as JSON, put in force; default: those in force.")
    ] = None,
    preview: Annotated[bool, Option("--preview", help="Only say what it would change.")] = False,
    wait: Annotated[bool, Option("--wait", help="Wait until it is done; Ctrl-C leaves it running.")] = False,
    etag: Annotated[str, Option("--etag", help="Only if the rules are those that had this etag.")] = "",
) -> int:
    """Resolve all stored events anew, and put what comes of it in place; goes on while events come."""
    from headrace.api.identity.v1 import identity_service_pb2 as pb

    stub, parent = platform.identity, platform.parent
    text = _json(rules_file) if rules_file is not None else b""
    if preview:
        if not text:
            in_force = await stub.GetIdentityRules(pb.GetIdentityRulesRequest(name=f"{parent}/identityRules"))
            text = in_force.identity_rules.rules
        asked = pb.PreviewIdentityRulesRequest(parent=parent, rules=text, request_id=new_request_id())
        started: Any = await stub.PreviewIdentityRules(asked)
    else:
        begin = pb.StartRebuildRequest(parent=parent, rules=text, etag=etag, request_id=new_request_id())
        started = await stub.StartRebuild(begin)
    if wait or preview:
        return await _wait(platform, out, started.rebuild)
    name = started.rebuild.name
    out.done(f"started {name}\n{_how_to_go_on(name)}", started.rebuild)
    return 0


_COLUMNS = (
    "name",
    "preview",
    "state",
    "events=events_done",
    "moved=moved_events",
    "joined=merging",
    "split=splitting",
    "create_time",
    "error",
)


@command(rebuilds, "list")
async def list_rebuilds(platform: Platform, out: Output, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List previews and rebuilds, newest first."""
    from headrace.api.identity.v1.identity_service_pb2 import ListRebuildsRequest

    stub, parent = platform.identity, platform.parent
    out.rows(
        await listed(
            lambda size, token: stub.ListRebuilds(ListRebuildsRequest(parent=parent, page_size=size, page_token=token)),
            "rebuilds",
            limit=limit,
            everything=everything,
        ),
        _COLUMNS,
    )


_Rebuild = Annotated[str, Argument(metavar="REBUILD", help="Id or resource name of a preview or rebuild.")]


@command(rebuilds, "get")
async def get_rebuild(
    platform: Platform,
    out: Output,
    name: _Rebuild,
    wait: Annotated[bool, Option("--wait", help="Wait until it is done; Ctrl-C leaves it running.")] = False,
) -> int:
    """Show a preview or rebuild, with examples."""
    found = await _read(platform, platform.name("rebuilds", name))
    if wait:
        return await _wait(platform, out, found)
    _show(out, found)
    return 0


@command(rebuilds, "cancel")
async def cancel_rebuild(platform: Platform, out: Output, name: _Rebuild) -> None:
    """Stop a preview or rebuild; what is in place already stays."""
    from headrace.api.identity.v1.identity_service_pb2 import CancelRebuildRequest

    answer = await platform.identity.CancelRebuild(CancelRebuildRequest(name=platform.name("rebuilds", name)))
    out.done(f"{answer.rebuild.name} is {_state(answer.rebuild)}", answer.rebuild)


async def alarms(platform: Platform, out: Output, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List profiles at a cap, people with very many identifiers, values that many people carry; newest first."""
    from headrace.api.identity.v1.identity_service_pb2 import ListIdentityAlarmsRequest

    stub, parent = platform.identity, platform.parent
    found = await listed(
        lambda size, token: stub.ListIdentityAlarms(
            ListIdentityAlarmsRequest(parent=parent, page_size=size, page_token=token)
        ),
        "alarms",
        limit=limit,
        everything=everything,
    )
    about = [plain_of(a) | {"about": a.profile or f"{a.identifier.namespace}:{a.identifier.value}"} for a in found]
    out.rows(found if out.as_json else about, ("create_time", "kind", "about", "count", "advice"))


def _json(file: Path) -> bytes:
    return json.dumps(read_json(file), ensure_ascii=False).encode()


def _state(found: Any) -> str:
    return str(plain_of(found)["state"])


async def _read(platform: Platform, name: str) -> Any:
    from headrace.api.identity.v1.identity_service_pb2 import GetRebuildRequest

    return (await platform.identity.GetRebuild(GetRebuildRequest(name=name))).rebuild


async def _wait(platform: Platform, out: Output, found: Any) -> int:
    """Show progress until it has ended, then what came of it; exit status 1 unless it is done."""
    try:
        with _progress() as show:
            while _state(found) not in _ENDED:
                show(found)
                await asyncio.sleep(_EVERY_S)
                found = await _read(platform, found.name)
    except asyncio.CancelledError:
        say(f"{found.name} goes on. {_how_to_go_on(found.name)}")
        raise
    _show(out, found)
    return 0 if _state(found) == "done" else FAILED


def _how_to_go_on(name: str) -> str:
    id = name.rpartition("/")[2]
    return f"Look at it by `headrace identity rebuilds get {id}`, stop it by `headrace identity rebuilds cancel {id}`."


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Any], None]]:
    """A bar on a terminal."""
    if not sys.stderr.isatty():
        yield lambda found: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("waiting", total=None)

        def show(found: Any) -> None:
            if _state(found) == "switching":
                bar.update(task, description="putting people in place", completed=found.switched, total=found.to_switch)
            elif found.events_total:
                bar.update(task, description="resolving events", completed=found.events_done, total=found.events_total)

        yield show


def _show(out: Output, found: Any) -> None:
    if out.as_json:
        out.item(found)
        return
    state = _state(found)
    write(
        f"{found.name}: {'preview' if found.preview else 'rebuild'}, {state}{f': {found.error}' if found.error else ''}"
    )
    if state not in _ENDED:
        write(f"events resolved: {found.events_done} of {found.events_total}")
        write(f"groups of people in place: {found.switched} of {found.to_switch}")
    if not found.profiles_before and not found.profiles_after:
        return
    verb = "would be" if found.preview else "are"
    write(f"profiles: {found.profiles_before} before, {found.profiles_after} after")
    write(f"{found.merging} {verb} joined with others, {found.splitting} {verb} split")
    write(f"{found.moved_events} events {'would belong' if found.preview else 'belong'} to another profile")
    for title, examples in (("joined", found.merge_examples), ("split", found.split_examples)):
        for example in list(examples)[:_SHOWN_EXAMPLES]:
            write(f"\n{title}: {_people(example.before)}")
            write(f"    to: {_people(example.after)}")


def _people(profiles: Any) -> str:
    return " | ".join(
        f"{p.name.rpartition('/')[2]} [{', '.join(f'{i.namespace}:{i.value}' for i in p.identifiers)}]"
        for p in profiles
    )
