"""`headrace audience ...`: offline, who is in an audience at a moment, by any of the evaluators."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from headrace.cli.command import group
from headrace.cli.files import read_json, read_lines, read_text
from headrace.cli.output import sheet, table, write, write_json
from headrace.cli.problems import FAILED, CommandFailed, UsageProblem

if TYPE_CHECKING:
    from headrace_audience.language.definition import Definition
    from headrace_audience.offline.facts import Fact

    from headrace.domain.computed_traits.definition import Definition as ComputedDefinition

app = group("Offline: who is in an audience, and why.")


class Engine(StrEnum):
    """An evaluator."""

    INCREMENTAL = "incremental"
    BATCH = "batch"
    REFERENCE = "reference"
    SPARK = "spark"


@app.callback()
def _audience() -> None:
    """Offline: who is in an audience, and why."""


@app.command("eval")
def eval_(
    definition: Annotated[Path, Option("--definition", help="The definition, as text or JSON.")],
    events: Annotated[
        Path | None,
        Option(
            "--events",
            help="NDJSON: messages of the Segment HTTP API; people are found by the identity rules, "
            'unless each line names its "profile". - is standard input.',
        ),
    ] = None,
    people: Annotated[
        Path | None, Option("--people", help='JSON: {"name": [events]}, or {"name": {"traits": {}, "events": []}}.')
    ] = None,
    at: Annotated[str, Option("--at", help="The moment, in ISO 8601; default: now.")] = "",
    engine: Annotated[list[Engine] | None, Option("--engine", help="Evaluator; repeat it to compare several.")] = None,
    explain: Annotated[str | None, Option("--explain", help="Say why this profile is in or out.")] = None,
    audience: Annotated[
        list[str] | None,
        Option("--audience", help="ID=FILE: what a reference to another audience means, a definition or ids."),
    ] = None,
    computed_traits: Annotated[
        Path | None,
        Option("--computed-traits", help='JSON: {"id": definition}, of the computed traits that definitions name.'),
    ] = None,
    rules: Annotated[Path | None, Option("--rules", help="Identity rules as JSON, for --events.")] = None,
    spark_master: Annotated[str, Option("--spark-master", help="Where Spark runs, for --engine spark.")] = "local[*]",
    as_json: Annotated[bool, Option("--json", help="JSON for machines in place of tables.")] = False,
) -> int:
    """Show who is in, since when and until when; exit status 1 when evaluators differ."""
    from headrace_audience.distributed.spark import SparkMissing
    from headrace_audience.offline.evaluate import evaluate
    from headrace_audience.offline.facts import FactError, facts_of_people

    from headrace.domain.definitions import DefinitionError
    from headrace.domain.times import LAST_MOMENT_US, format_time_us, now_us, parse_time_us

    if (events is None) == (people is None):
        raise UsageProblem("give either --events or --people")
    try:
        at_us = parse_time_us(at) if at else now_us()
    except (ValueError, OverflowError):
        raise UsageProblem(f"--at {at}: write a time such as 2026-01-31T12:00:00Z") from None
    if at_us > LAST_MOMENT_US:
        raise UsageProblem(f"--at {at}: must be {format_time_us(LAST_MOMENT_US)} or before")
    computed = _computed_traits(computed_traits)
    parsed = _definition(definition, computed)
    try:
        facts: Sequence[Fact]
        facts = _facts(events, rules, at_us) if events else list(facts_of_people(_people(people or Path()), at_us))
        answer = evaluate(
            parsed,
            facts,
            at_us,
            engines=[e.value for e in engine or [Engine.INCREMENTAL]],
            audiences=_audiences(audience or (), computed),
            explain_profile=explain,
            spark_master=spark_master,
        )
    except SparkMissing as error:
        raise CommandFailed(str(error)) from None
    except FactError as error:
        raise UsageProblem(f"{people or events}: {error}") from None
    except DefinitionError as error:
        raise UsageProblem(f"{definition}: {error}") from None
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    if as_json:
        write_json(answer)
    else:
        _show(answer)
    return FAILED if answer["mismatches"] else 0


@app.command("convert")
def convert(
    definition: Annotated[Path, Argument(help="The definition; - is standard input.")],
) -> None:
    """Print a definition in the other form: text for JSON, JSON for text."""
    from headrace_audience.language.sense import parse_given
    from headrace_audience.language.text.printing import to_text
    from headrace_audience.language.text.reading import from_text

    from headrace.domain.definitions import DefinitionError

    source = read_text(definition)
    try:
        if not source.lstrip().startswith("{"):
            write_json(from_text(source, parse_given))
            return
        parse_given(source)
    except DefinitionError as error:
        raise UsageProblem(f"{definition}: {error}") from None
    write(to_text(json.loads(source)))


def _computed_traits(path: Path | None) -> dict[str, ComputedDefinition]:
    from headrace.domain.computed_traits.definition import parse_definition
    from headrace.domain.definitions import DefinitionError

    found = read_json(path) if path is not None else {}
    if not isinstance(found, dict):
        raise UsageProblem(f"{path}: computed traits are a JSON object, an id: definition")
    parsed = {}
    for id, raw in found.items():
        try:
            parsed[id] = parse_definition(raw if isinstance(raw, dict) else json.dumps(raw))
        except DefinitionError as error:
            raise UsageProblem(f"{path}: {id}: {error}") from None
    return parsed


def _definition(path: Path, computed: Mapping[str, ComputedDefinition]) -> Definition:
    from headrace_audience.language.computed import bind
    from headrace_audience.language.sense import parse_given
    from headrace_audience.language.text.reading import definition_json

    from headrace.domain.definitions import DefinitionError

    try:
        parsed = parse_given(definition_json(read_text(path), parse_given))
    except DefinitionError as error:
        raise UsageProblem(f"{path}: {error}") from None
    missing = sorted(parsed.computed_traits - computed.keys())
    if missing:
        raise UsageProblem(f"{path}: give the definition of the computed trait {missing[0]!r} by --computed-traits")
    return bind(parsed, computed)


def _people(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise UsageProblem(f"{path}: people are a JSON object, a name: events")
    inner = found.get("people")
    return inner if isinstance(inner, dict) else found


def _audiences(given: Sequence[str], computed: Mapping[str, ComputedDefinition]) -> dict[str, Any]:
    meanings: dict[str, Any] = {}
    for text in given:
        id, equals, file = text.partition("=")
        if not equals or not id or not file:
            raise UsageProblem(f"--audience {text}: write ID=FILE")
        meaning = read_json(Path(file))
        if isinstance(meaning, list) and all(isinstance(member, str) for member in meaning):
            meanings[id] = meaning
        else:
            meanings[id] = _definition(Path(file), computed)
    return meanings


def _facts(path: Path, rules: Path | None, at_us: int) -> list[Fact]:
    """Facts of a file: of the profiles that its lines name, else of those that the identity rules find.

    Events without a time before the first that has one happen at the moment that is asked about.
    """
    from headrace_audience.offline.facts import facts_of_lines, facts_of_resolved

    lines = read_lines(path)
    if any(_names_profile(line) for line in lines):
        if rules is not None:
            raise UsageProblem("--rules is for events whose people are to be found; these name their profile")
        return list(facts_of_lines(lines))
    return list(facts_of_resolved(_resolved(path, lines, rules, at_us)))


def _names_profile(line: str) -> bool:
    try:
        value = json.loads(line or "null")
    except ValueError:
        return False
    return isinstance(value, dict) and isinstance(value.get("profile"), str)


def _resolved(path: Path, lines: Sequence[str], rules: Path | None, at_us: int) -> list[Any]:
    """The events with the profiles that they belong to after all."""
    from headrace_identity.resolving.offline import LineError, read_events
    from headrace_identity.resolving.replay import replay
    from headrace_identity.resolving.rules import DEFAULT_RULES, RulesError, parse_text

    from headrace.api.identity.v1.profile_pb2 import ResolvedEvent

    try:
        parsed = DEFAULT_RULES if rules is None else parse_text(read_text(rules))
        events = read_events(lines)
    except RulesError as error:
        raise UsageProblem(f"{rules}: {error}") from None
    except LineError as error:
        raise UsageProblem(f"{path}: {error}") from None
    for event in events:
        event.timestamp_us = event.timestamp_us or at_us
    result = replay(events, parsed)
    first = {event.message_id: event for event in reversed(events)}
    return [
        ResolvedEvent(event=first[message_id], profile_id=result.root_of(message_id), decision=resolution.decision)
        for message_id, resolution in result.resolutions.items()
    ]


def _show(answer: dict[str, Any]) -> None:
    if any("group" in found for found in (*answer["members"], *answer["mismatches"])):
        write(table(["GROUP", "PEOPLE"], [[m["group"], str(m["people"])] for m in answer["members"]]))
        write(f"\n{len(answer['members'])} groups at {answer['at']}, by the {answer['engine']} evaluator")
        wrong = [[m["group"], m["engine"], "in" if m["member"] else "out"] for m in answer["mismatches"]]
        if wrong:
            write("\n" + table(["DIFFERS", "EVALUATOR", "SAYS"], wrong))
        return
    rows = [
        [
            m["profile"],
            ", ".join(f"{namespace}:{value}" for namespace, value in m["identifiers"]),
            m["since"] or "always",
            m["leaves_at"] or "never",
        ]
        for m in answer["members"]
    ]
    write(table(["PROFILE", "IDENTIFIERS", "SINCE", "LEAVES"], rows))
    write(f"\n{len(rows)} members at {answer['at']}, by the {answer['engine']} evaluator")
    if answer["mismatches"]:
        wrong = [[m["profile"], m["engine"], "in" if m["member"] else "out"] for m in answer["mismatches"]]
        write("\n" + table(["DIFFERS", "EVALUATOR", "SAYS"], wrong))
    if "explanation" in answer:
        write("\n" + sheet(answer["explanation"]))
