"""Entry point of the command line: finds the command, loads its module alone, and gives exit statuses.

Exit statuses: 0 done, 1 failed, 2 the command line was wrong, 130 interrupted. Failures are one
sentence on standard error that says what to do.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from headrace.cli.problems import INTERRUPTED, report

PROGRAM = "headrace"


@dataclass(frozen=True)
class Entry:
    """A command of the first level.

    Args:
        module: Module that brings it, imported when it is called.
        attribute: Name in that module of a function (a command) or a `typer.Typer` (a group of commands).
        help: One sentence.
    """

    module: str
    attribute: str
    help: str


COMMANDS: dict[str, Entry] = {
    "demo": Entry("headrace.cli.demo", "demo", "Starts everything and plays a demo shop."),
    "up": Entry("headrace.cli.up", "up", "Starts all services and stores on this machine."),
    "serve": Entry("headrace.cli.serve", "serve", "Runs one service, configured by the environment alone."),
    "send": Entry("headrace.cli.send", "send", "Sends events from an NDJSON file."),
    "apply": Entry("headrace.cli.apply", "apply", "Makes the platform as YAML files say."),
    "diff": Entry("headrace.cli.apply", "diff", "Shows what apply would change; exit status 1 if anything."),
    "export": Entry("headrace.cli.apply", "export", "Writes the configuration as YAML that apply takes."),
    "sources": Entry("headrace.cli.sources", "app", "Sources and what they received."),
    "audiences": Entry("headrace.cli.audiences", "app", "Audiences and their members."),
    "destinations": Entry("headrace.cli.destinations", "app", "Destinations and connectors."),
    "syncs": Entry("headrace.cli.syncs", "app", "Syncs, their runs, deliveries and ledger."),
    "profiles": Entry("headrace.cli.profiles", "app", "People: find one, read what is known, now and before."),
    "identity": Entry("headrace.cli.identity", "app", "Why people are who they are; rules, corrections."),
    "groups": Entry("headrace.cli.groups", "app", "Groups of people: companies, accounts, households."),
    "computed-traits": Entry("headrace.cli.computed_traits", "app", "Values that follow from people's events."),
    "events": Entry("headrace.cli.events", "app", "Follow an event through all services."),
    "workspaces": Entry("headrace.cli.workspaces", "app", "Workspaces."),
    "tokens": Entry("headrace.cli.tokens", "app", "API tokens of the workspace."),
    "audience": Entry("headrace.cli.audience", "app", "Offline: who is in an audience, and why."),
    "destination": Entry("headrace.cli.destination", "app", "Offline: the exact requests a destination gets."),
    "plugin": Entry("headrace.cli.plugin", "app", "Connector plugins that are installed."),
    "admin": Entry("headrace.cli.admin", "app", "For operators: indexes, workspaces, checks."),
}


class LazyGroup(TyperGroup):
    """Loads a command's module when that command is called, so that `headrace --help` loads none."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, or a stand-in with its sentence while help is written."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if self._listing:
            return TyperCommand(cmd_name, help=entry.help)
        return load(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name; a misspelt one gets suggestions."""
        if args and args[0] not in COMMANDS:
            stand_ins: dict[str, Any] = {name: TyperCommand(name) for name in COMMANDS}
            self.commands = stand_ins  # suggestions are made from their names
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help without loading any command."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


def load(name: str) -> Any:
    """The click command of an entry of COMMANDS, loaded."""
    entry = COMMANDS[name]
    target = getattr(importlib.import_module(entry.module), entry.attribute)
    if isinstance(target, typer.Typer):
        app = target
    else:
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command(name=name)(target)
    command = typer.main.get_command(app)
    command.name = name
    return command


app = typer.Typer(
    cls=LazyGroup,
    name=PROGRAM,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
    help="Headrace, the open customer data platform.",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main(arguments: Sequence[str]) -> int:
    """Run a command line.

    Args:
        arguments: Without the program's name.

    Returns:
        The exit status.
    """
    try:
        result = typer.main.get_command(app).main(args=list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        return report(error)
    return result if isinstance(result, int) else 0


def run() -> None:
    """Run the command line of this process and end it."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
