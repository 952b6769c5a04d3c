"""`headrace destination ...`: offline, the exact requests that a destination would get."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from headrace.cli.command import group
from headrace.cli.files import read_json, read_lines, read_text
from headrace.cli.moments import moment_us
from headrace.cli.output import table, write, write_json
from headrace.cli.plugins_host import with_plugins
from headrace.cli.problems import FAILED, UsageProblem

app = group("Offline: the exact requests that a destination would get, and values as they would be sent.")

Plugin = Annotated[str, Option("--plugin", help="Name of the connector, or of the plugin that offers it alone.")]


@app.command("render")
def render(
    plugin: Plugin,
    settings: Annotated[Path, Option("--settings", help="Settings of the destination as JSON.")],
    mapping: Annotated[
        Path | None, Option("--mapping", help="Field: expression, as JSON; default: the connector's.")
    ] = None,
    events: Annotated[Path | None, Option("--events", help="NDJSON with events; - is standard input.")] = None,
    members: Annotated[
        Path | None, Option("--members", help="NDJSON with members of an audience; - is standard input.")
    ] = None,
    at: Annotated[
        str | None, Option("--at", help="The clock, ISO 8601; default: as of the moments at which the events came.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="JSON for machines.")] = False,
) -> None:
    """Show the exact HTTP requests for events or members, secrets masked. Nothing is sent."""
    from headrace.domain.times import now_us
    from headrace.plugins.render import Rendering
    from headrace.plugins.render import render as rendered

    if (events is None) == (members is None):
        raise UsageProblem("give either --events or --members")
    given = read_json(settings)
    if not isinstance(given, dict):
        raise UsageProblem(f"{settings}: settings are a JSON object")
    mapped = read_text(mapping) if mapping is not None else None
    lines = read_lines(events or members or Path())
    at_us = moment_us(at, "--at") if at is not None else None

    async def use(host: Any) -> Rendering:
        return await rendered(
            host,
            connector=plugin,
            settings=given,
            now_us=now_us() if at_us is None else at_us,
            mapping=mapped,
            events=lines if events is not None else None,
            members=lines if members is not None else None,
            as_they_came=at_us is None,
        )

    try:
        result = with_plugins(use, plugin=plugin).document()
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    if as_json:
        write_json(result)
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    import json

    for request in result["requests"]:
        write(f"{request['method']} {request['url']}")
        for name, value in request["headers"].items():
            write(f"{name}: {value}")
        body = request["body"]
        write("")
        write(body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False))
        write(f"# for {', '.join(request['message_ids'])}")
        write("")
    for heading, key in (("SKIPPED", "skipped"), ("WARNING", "warnings")):
        if result[key]:
            write(table([heading, "REASON"], [[r["message_id"], r["reason"]] for r in result[key]]))
    if not result["requests"]:
        write("no requests")


@app.command("test")
def test(
    script: Annotated[
        Path | None, Argument(help="JavaScript of a custom destination; then --plugin is javascript.")
    ] = None,
    samples: Annotated[
        Path | None,
        Option("--samples", help='JSON list of {"name", "event", "requests" or "skipped"}; - is standard input.'),
    ] = None,
    plugin: Annotated[str, Option("--plugin", help="Name of the connector, when there is no script.")] = "",
    settings: Annotated[
        Path | None, Option("--settings", help="Settings of the destination as JSON, without the script.")
    ] = None,
    mapping: Annotated[
        Path | None, Option("--mapping", help="Field: expression, as JSON; default: the connector's.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="JSON for machines.")] = False,
) -> int:
    """Try a destination with samples: the requests of each event against the expected ones. Nothing is sent."""
    from headrace.domain.times import now_us
    from headrace.plugins.samples import SampleError, Tried, read_samples, try_samples

    if samples is None:
        raise UsageProblem("give --samples")
    if (script is None) == (not plugin):
        raise UsageProblem("give either a script or --plugin")
    given = read_json(settings) if settings is not None else {}
    if not isinstance(given, dict):
        raise UsageProblem(f"{settings}: settings are a JSON object")
    if script is not None:
        given = {**given, "script": read_text(script)}
    mapped = read_text(mapping) if mapping is not None else None
    connector = plugin or "javascript"
    try:
        found = read_samples(read_text(samples))
    except SampleError as error:
        raise UsageProblem(f"{samples}: {error}") from None

    async def use(host: Any) -> list[Tried]:
        return await try_samples(host, found, connector=connector, settings=given, now_us=now_us(), mapping=mapped)

    try:
        tried = with_plugins(use, plugin=connector)
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    failed = sum(bool(one.differences) for one in tried)
    if as_json:
        write_json({"samples": [one.document() for one in tried], "passed": len(tried) - failed, "failed": failed})
    else:
        _show_samples([one.document() for one in tried], failed)
    return FAILED if failed else 0


def _show_samples(tried: list[dict[str, Any]], failed: int) -> None:
    rows = []
    for one in tried:
        sent = [f"{request['method']} {request['url']}" for request in one["requests"]]
        left_out = [skipped["reason"] for skipped in one["skipped"]]
        lines = [*one["differences"], *sent, *([] if one["differences"] else left_out)] or ["no requests"]
        rows.append([one["name"], "passed" if one["passed"] else "FAILED", lines[0]])
        rows += [["", "", line] for line in lines[1:]]
    write(table(["SAMPLE", "RESULT", "WHAT CAME"], rows))
    write(f"{len(tried) - failed} passed, {failed} failed")


@app.command("normalise")
def normalise(
    value: Annotated[str | None, Argument(help="The value.")] = None,
    plugin: Annotated[str, Option("--plugin", help="Name of the connector, or of the plugin.")] = "",
    field: Annotated[str, Option("--field", help='Field of the connector, such as "email".')] = "",
    file: Annotated[
        Path | None, Option("--file", help='NDJSON, {"plugin", "field", "value"} a line; one answer a line comes back.')
    ] = None,
    as_json: Annotated[bool, Option("--json", help="JSON for machines.")] = False,
) -> int:
    """Show a value as the vendor compares it, and what would be sent (a hash, for most)."""
    from headrace.plugins.render import normalise as one
    from headrace.plugins.render import normalise_lines

    if file is not None:
        if value is not None or plugin or field:
            raise UsageProblem("--file brings plugin, field and value: give it alone")
        return _normalise_file(read_lines(file), normalise_lines)
    if value is None or not plugin or not field:
        raise UsageProblem("give --plugin, --field and a value, or --file")

    async def use(host: Any) -> dict[str, str | None]:
        return await one(host, plugin, field, value)

    answer = with_plugins(use, plugin=plugin)
    if as_json:
        write_json(answer)
    elif answer["rejected"] is not None:
        write(f"rejected: {answer['rejected']}")
    else:
        write(f"normalised  {answer['normalised']}\nsent        {answer['sent']}")
    return FAILED if answer["rejected"] is not None else 0


def _normalise_file(lines: list[str], normalise_lines: Any) -> int:
    import json

    async def use(host: Any) -> list[dict[str, str | None]]:
        answers: list[dict[str, str | None]] = await normalise_lines(host, lines)
        return answers

    for answer in with_plugins(use):
        write(json.dumps(answer, ensure_ascii=False))
    return 0
