"""`headrace identity ...`: offline, what identity rules make of events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from headrace.cli.command import group
from headrace.cli.files import ndjson_lines, read_text
from headrace.cli.output import cell, table, write, write_json
from headrace.cli.problems import UsageProblem

app = group("Offline: what identity rules make of events.")


@app.callback()
def _identity() -> None:
    """Offline: what identity rules make of events."""


@app.command("replay")
def replay(
    events: Annotated[Path, Argument(help="NDJSON: one message of the Segment HTTP API a line; - is standard input.")],
    rules: Annotated[Path | None, Option("--rules", help="Identity rules as JSON; default: the default rules.")] = None,
    as_json: Annotated[bool, Option("--json", help="JSON for machines in place of tables.")] = False,
) -> None:
    """Resolve events in memory, by the code of the service: which people there are, and why."""
    from headrace_identity.offline import LineError, replay_lines
    from headrace_identity.rules import RulesError

    rules_text = read_text(rules) if rules is not None else None
    try:
        result = replay_lines(rules_text, _lines(events))
    except LineError as error:
        raise UsageProblem(f"{events}: {error}") from None
    except RulesError as error:
        raise UsageProblem(f"{rules}: {error}") from None
    if as_json:
        write_json(result)
    else:
        _show(result)


def _lines(path: Path) -> list[bytes]:
    """The file's lines at their places, blank ones as empty, so that errors name the right line."""
    lines: list[bytes] = []
    for number, text in ndjson_lines(path):
        lines += [b""] * (number - len(lines) - 1)
        lines.append(text)
    return lines


def _show(result: dict[str, Any]) -> None:
    people = [
        [p["id"], ", ".join(f"{n}:{v}" for n, v in p["identifiers"]), cell(p["traits"]), str(len(p["message_ids"]))]
        for p in result["profiles"]
    ]
    write(table(["PROFILE", "IDENTIFIERS", "TRAITS", "MESSAGES"], people))
    write("")
    decisions = [[d["message_id"], d["action"], d["profile"], d["rule"], _set_aside(d)] for d in result["decisions"]]
    write(table(["MESSAGE", "ACTION", "PROFILE", "RULE", "SET ASIDE"], decisions))


def _set_aside(decision: dict[str, Any]) -> str:
    return ", ".join(f"{':'.join(s['identifier'])} ({s['rule']})" for s in decision.get("set_aside", ()))
