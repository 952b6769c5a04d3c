"""`headrace plugin dev`: loads a connector from its folder and shows what it makes of samples, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlsplit

from typer import Argument, Option

from headrace.cli.files import read_json, read_lines, read_text
from headrace.cli.output import table, write, write_json
from headrace.cli.problems import FAILED, UsageProblem, say
from headrace.connector.calls import TRACEBACKS_VARIABLE

if TYPE_CHECKING:
    from headrace.authoring.project import Project
    from headrace.authoring.replay import Input, Replay

SAMPLES = "samples"


def dev(
    path: Annotated[Path, Argument(help="Folder of the connector: with a pyproject.toml or a headrace-plugin.toml.")],
    settings: Annotated[
        Path | None,
        Option("--settings", help="Settings as JSON; default: samples/settings.json, else made from the manifest."),
    ] = None,
    mapping: Annotated[
        Path | None, Option("--mapping", help="Field: expression, as JSON; default: samples/mapping.json, if there.")
    ] = None,
    events: Annotated[
        Path | None, Option("--events", help="NDJSON with events; default: samples/events.ndjson, if there.")
    ] = None,
    members: Annotated[
        Path | None,
        Option("--members", help="NDJSON with profiles of members; default: samples/members.ndjson, if there."),
    ] = None,
    connector: Annotated[str, Option("--connector", help="Name of the connector, when there are several.")] = "",
    send: Annotated[
        str,
        Option(
            "--send",
            help='Sends the requests: "fake" to a small vendor that this command runs, an address to that server in '
            'place of the vendor\'s, "vendor" to where they say.',
        ),
    ] = "",
    answers: Annotated[
        Path | None,
        Option("--answers", help='NDJSON, {"status", "headers", "body"} a line: what the fake vendor says by turns.'),
    ] = None,
    seed: Annotated[int, Option("--seed", help="Of the data that is made when there are no samples.")] = 0,
    in_process: Annotated[
        bool, Option("--in-process", help="In this process, where a debugger stops in it, in place of a worker.")
    ] = False,
    once: Annotated[bool, Option("--once", help="One turn; exit status 1 when the connector failed.")] = False,
    as_json: Annotated[bool, Option("--json", help="With --once: JSON for machines.")] = False,
) -> int:
    """Replay samples through a connector as it lies in its folder, again whenever a file changes, until Ctrl-C.

    Shows the requests with secrets masked and, with --send, what became of each item. Nothing has to be installed.
    """
    from headrace.authoring.project import ProjectError, read_project

    if as_json and not once:
        raise UsageProblem("--json goes with --once")
    if answers is not None and send != "fake":
        raise UsageProblem("--answers goes with --send fake")
    if send not in ("", "fake", "vendor") and urlsplit(send).scheme not in ("http", "https"):
        raise UsageProblem('--send takes "fake", "vendor" or an http or https address')
    logging.getLogger("headrace").setLevel(logging.ERROR)  # what went wrong is shown
    files = _Files(path, settings, mapping, events, members, answers)

    async def turn(scratch: Path) -> Replay:
        try:
            project = read_project(path)
        except ProjectError as error:
            raise UsageProblem(str(error)) from None
        return await _turn(project, scratch, files.read(connector, send, seed), in_process=in_process)

    with tempfile.TemporaryDirectory(prefix="headrace-dev-") as scratch, _tracebacks():
        if not once:
            asyncio.run(_again_and_again(lambda: turn(Path(scratch)), files))
        found = asyncio.run(turn(Path(scratch)))
    if as_json:
        write_json(found.document())
    else:
        _show(found)
    return FAILED if found.problem else 0


@dataclass(frozen=True, slots=True)
class _Files:
    """Where the samples are: as given, else in the plugin's folder, if there."""

    folder: Path
    settings: Path | None
    mapping: Path | None
    events: Path | None
    members: Path | None
    answers: Path | None

    def read(self, connector: str, send: str, seed: int) -> Input:
        """What to replay.

        Raises:
            UsageProblem: A file cannot be used.
        """
        from headrace.authoring.replay import Input
        from headrace.authoring.vendor import read_answers
        from headrace.plugins.offline import InputError

        settings, mapping = self._found(self.settings, "settings.json"), self._found(self.mapping, "mapping.json")
        events, members = self.events, self.members
        if events is None and members is None:
            events, members = self._found(None, "events.ndjson"), self._found(None, "members.ndjson")
        given = read_json(settings) if settings is not None else None
        if settings is not None and not isinstance(given, dict):
            raise UsageProblem(f"{settings}: settings are a JSON object")
        try:
            answers = read_answers(read_lines(self.answers)) if self.answers is not None else ()
        except InputError as error:
            raise UsageProblem(f"{self.answers}: {error}") from None
        return Input(
            connector=connector,
            settings=given,
            mapping=read_text(mapping) if mapping is not None else None,
            events=read_lines(events) if events is not None else None,
            members=read_lines(members) if members is not None else None,
            seed=seed,
            send_to=send,
            answers=answers,
        )

    def watched(self) -> list[Path]:
        """What to look at for changes."""
        given = (self.settings, self.mapping, self.events, self.members, self.answers)
        return [self.folder, *(path for path in given if path is not None)]

    def _found(self, given: Path | None, name: str) -> Path | None:
        usual = self.folder / SAMPLES / name
        return given if given is not None or not usual.is_file() else usual


async def _turn(project: Project, scratch: Path, given: Input, *, in_process: bool) -> Replay:
    """One turn with a host of its own, so that changed code is loaded anew."""
    from headrace.authoring.replay import replay
    from headrace.plugins import PluginHost
    from headrace.plugins.mapping import MappingError
    from headrace.plugins.offline import InputError

    project.forget_code()
    host = PluginHost(path=project.path(scratch), folders=project.folders(), in_process=in_process)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed) if in_process else contextlib.nullcontext():
            return await replay(host, given, printed if in_process else None)
    except MappingError as error:
        raise UsageProblem(f"mapping: {error}") from None
    except InputError as error:
        raise UsageProblem(f"input: {error}") from None
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    finally:
        await host.close()


async def _again_and_again(turn: Callable[[], Awaitable[Replay]], files: _Files) -> NoReturn:
    """Replay now and after each change, until interrupted."""
    try:
        from watchfiles import awatch
    except ImportError:
        raise UsageProblem("watchfiles is not installed: pip install 'headrace[author]', or use --once") from None
    async with contextlib.aclosing(awatch(*files.watched())) as changes:
        # Asked before the turn, so that what changes while it runs is seen after it.
        changed = asyncio.ensure_future(anext(changes))
        try:
            while True:
                await _turn_shown(turn)
                say("waiting for changes; Ctrl-C ends")
                names = sorted({Path(name).name for _, name in await changed})
                changed = asyncio.ensure_future(anext(changes))
                say(f"changed: {', '.join(names)}")
        finally:
            changed.cancel()
            await asyncio.gather(changed, return_exceptions=True)


async def _turn_shown(turn: Callable[[], Awaitable[Replay]]) -> None:
    """Make a turn and show it; what cannot be used is said, for it may be changed."""
    try:
        _show(await turn())
    except UsageProblem as problem:
        say(f"error: {problem}")


def _show(found: Replay) -> None:
    for place, request in enumerate(found.requests, start=1):
        write(f"--- request {place} for {', '.join(request['message_ids'])}")
        write(f"{request['method']} {request['url']}")
        for name, value in request["headers"].items():
            write(f"{name}: {value}")
        body = request["body"]
        write("")
        write(body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False))
        if "answer" in request:
            write(f"--- answer {request['answer']['status']}")
            write(request["answer"]["body"])
    for heading, rows in (("SKIPPED", found.skipped), ("WARNING", found.warnings)):
        if rows:
            write(table([heading, "REASON"], [[row["message_id"], row["reason"]] for row in rows]))
    if found.outcomes:
        rows_of = [[row["message_id"], row["outcome"], row["reason"]] for row in found.outcomes]
        write(table(["ITEM", "OUTCOME", "REASON"], rows_of))
    for line in found.output:
        say(line)
    if found.problem:
        say(f"error: {found.problem}")
    elif not found.requests:
        write("no requests")


@contextlib.contextmanager
def _tracebacks() -> Iterator[None]:
    """Let plugins that are started meanwhile print their exceptions whole."""
    before = os.environ.get(TRACEBACKS_VARIABLE)
    os.environ[TRACEBACKS_VARIABLE] = "1"
    try:
        yield
    finally:
        os.environ.pop(TRACEBACKS_VARIABLE)
        if before is not None:
            os.environ[TRACEBACKS_VARIABLE] = before
