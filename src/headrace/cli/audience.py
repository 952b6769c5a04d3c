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
from headrace.cli.problems import FAILED, CommandFailed, UsageProblem, say

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
    explain: Annotated[
        str | None,
        Option(
            "--explain",
            help="Say why this profile is in or out: its id, or an identifier as NAMESPACE:VALUE; or this group.",
        ),
    ] = None,
    audience: Annotated[
        list[str] | None,
        Option(
            "--audience",
            help="ID=FILE: what a reference to another audience means: a definition, as text or JSON, or a JSON array "
            "of ids.",
        ),
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
    from headrace_audience.answers.unknown import unknown_in
    from headrace_audience.distributed.spark import SparkMissing
    from headrace_audience.language.sense import passed_by_all
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
    source = _source(definition, read_text(definition))
    parsed = _definition(definition, source, computed)
    audiences = _audiences(audience or (), computed)
    _check_given(definition, parsed, audiences)
    evaluators = [e.value for e in engine or [Engine.INCREMENTAL]]
    try:
        facts: Sequence[Fact]
        facts = _facts(events, rules, at_us) if events else list(facts_of_people(_people(people or Path()), at_us))
        answer = evaluate(
            parsed,
            facts,
            at_us,
            engines=evaluators,
            audiences=audiences,
            explain_profile=explain,
            source=json.loads(source),
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
    for warning in [*unknown_in(facts, parsed), *passed_by_all(json.loads(source))]:
        say(f"warning: {warning}")
    if as_json:
        write_json(answer)
    else:
        _show(answer, parsed.of, evaluators)
    return FAILED if answer["mismatches"] else 0


@app.command("check")
def check(
    definitions: Annotated[list[Path], Argument(help="Files, each with a definition as text or JSON.")],
    as_json: Annotated[bool, Option("--json", help="JSON for machines in place of a table.")] = False,
) -> int:
    """Check definitions without a platform: whether each can be given, and what everybody passes.

    Exit status: 0 all can be given, 1 one cannot, 2 a file cannot be read. Which events and traits there are a preview
    knows, and which other audiences the platform.
    """
    found = [_checked(path, read_text(path)) for path in definitions]
    if as_json:
        write_json({"definitions": found})
    else:
        rows = [[one["file"], "error" if one["error"] else "fine", _outcome(one)] for one in found]
        write(table(["FILE", "RESULT", "SAID"], rows))
    return FAILED if any(one["error"] for one in found) else 0


def _checked(path: Path, source: str) -> dict[str, Any]:
    """What is said of a definition."""
    from headrace_audience.language.sense import parse_given, passed_by_all
    from headrace_audience.language.text.printing import to_text
    from headrace_audience.language.text.reading import from_text

    from headrace.domain.definitions import DefinitionError

    answer: dict[str, Any] = {"file": str(path), "error": "", "warnings": [], "text": ""}
    try:
        if source.lstrip().startswith("{"):
            parse_given(source)
            raw = json.loads(source)
        else:
            raw = from_text(source, parse_given)
    except DefinitionError as error:
        return answer | {"error": str(error)}
    return answer | {"warnings": passed_by_all(raw), "text": to_text(raw)}


def _outcome(checked: Mapping[str, Any]) -> str:
    """The error, the warnings, or the text form."""
    return checked["error"] or " ".join(checked["warnings"]) or checked["text"]


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


def _source(path: Path, text: str) -> str:
    """A definition as JSON, which is written as text or as JSON."""
    from headrace_audience.language.sense import parse_given
    from headrace_audience.language.text.reading import definition_json

    from headrace.domain.definitions import DefinitionError

    try:
        return definition_json(text, parse_given)
    except DefinitionError as error:
        raise UsageProblem(f"{path}: {error}") from None


def _definition(path: Path, source: str, computed: Mapping[str, ComputedDefinition]) -> Definition:
    from headrace_audience.language.computed import bind
    from headrace_audience.language.sense import parse_given

    from headrace.domain.definitions import DefinitionError

    try:
        parsed = parse_given(source)
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
        path = Path(file)
        content = read_text(path)
        if content.lstrip().startswith("["):
            meanings[id] = _ids(path, content)
        else:
            meanings[id] = _definition(path, _source(path, content), computed)
    return meanings


def _ids(path: Path, content: str) -> list[str]:
    try:
        ids = json.loads(content)
    except ValueError as error:
        raise UsageProblem(f"{path}: no JSON: {error}") from None
    if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
        raise UsageProblem(f"{path}: the members of an audience are a JSON array of ids, which are texts")
    return ids


def _check_given(path: Path, parsed: Definition, audiences: Mapping[str, Any]) -> None:
    """Refuse an audience that names another which nobody gave: nothing is known of its members."""
    named = {str(path): parsed.references}
    named |= {f"--audience {id}": meaning.references for id, meaning in audiences.items() if hasattr(meaning, "where")}
    for place, references in named.items():
        if missing := sorted(references - audiences.keys()):
            raise UsageProblem(f"{place}: names the audience {missing[0]!r}: give it by --audience {missing[0]}=FILE")


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


def _show(answer: dict[str, Any], of: str, engines: Sequence[str]) -> None:
    is_of_groups = of == "groups"
    rows = [_row(member) for member in answer["members"]]
    write(table(["GROUP", "PEOPLE"] if is_of_groups else ["PROFILE", "IDENTIFIERS", "SINCE", "LEAVES"], rows))
    one, several = ("group", "groups") if is_of_groups else ("member", "members")
    told = f"{len(rows)} {one if len(rows) == 1 else several} at {answer['at']}, by the {engines[0]} evaluator"
    write(f"\n{told}{_agreement(answer, engines[1:])}")
    if answer["mismatches"]:
        wrong = [[m.get("group") or m["profile"], m["engine"], *_said(m)] for m in answer["mismatches"]]
        write("\n" + table(["DIFFERS", "EVALUATOR", "SAYS", "LEAVES"], wrong))
    if "explanation" in answer:
        write("\n" + sheet(answer["explanation"]))


def _row(member: Mapping[str, Any]) -> list[str]:
    if "group" in member:
        return [member["group"], str(member["people"])]
    identifiers = ", ".join(f"{namespace}:{value}" for namespace, value in member["identifiers"])
    return [member["profile"], identifiers, member["since"] or "always", member["leaves_at"] or "never"]


def _agreement(answer: Mapping[str, Any], others: Sequence[str]) -> str:
    """Whether other evaluators say the same."""
    if not others:
        return ""
    differing = {mismatch["engine"] for mismatch in answer["mismatches"]}
    agreeing = [engine for engine in others if engine not in differing]
    told = []
    if agreeing:
        told.append(f"{' and '.join(agreeing)} {'agrees' if len(agreeing) == 1 else 'agree'}")
    told += [f"{engine} DIFFERS" for engine in others if engine in differing]
    return "; " + ", ".join(told)


def _said(mismatch: Mapping[str, Any]) -> list[str]:
    """What another evaluator says of a profile or group, and until when."""
    if not mismatch["member"]:
        return ["out", ""]
    return ["in", "" if "group" in mismatch else mismatch["leaves_at"] or "never"]
