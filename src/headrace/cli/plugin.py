"""`headrace plugin ...`: the connector plugins that are installed here."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from headrace.authoring.new import NotMade, Takes, new_destination
from headrace.cli import plugin_check, plugin_dev
from headrace.cli.command import group
from headrace.cli.output import cell, table, write, write_json
from headrace.cli.plugins_host import with_plugins
from headrace.cli.problems import FAILED, UsageProblem

app = group("Connector plugins: those that are installed, and new ones.")


app.command("check")(plugin_check.check)


@app.callback()
def _plugin() -> None:
    """Connector plugins: those that are installed, and new ones."""


class Kind(StrEnum):
    """What a connector is."""

    DESTINATION = "destination"
    SOURCE = "source"


@app.command("new")
def new(
    name: Annotated[str, Argument(help="Name of the connector: lower-case letters, digits and dashes.")],
    folder: Annotated[
        Path | None, Option("--folder", help="Where to; default: headrace-destination-NAME in this folder.")
    ] = None,
    title: Annotated[str, Option("--title", help="Name for people; default: made of the name.")] = "",
    takes: Annotated[Takes, Option("--takes", help="What it takes.")] = Takes.EVENTS,
    kind: Annotated[
        Kind, Option("--kind", help="What it is. Sources come with the source SDK, which is not there yet.")
    ] = Kind.DESTINATION,
    as_json: Annotated[bool, Option("--json", help="JSON for machines.")] = False,
) -> None:
    """Write a new destination connector that installs, lints, types and passes its tests, ready to be changed.

    Needs `pip install 'headrace[author]'`.
    """
    if kind is Kind.SOURCE:
        raise UsageProblem("sources come with the source SDK, which is not there yet; destinations can be made")
    target = folder if folder is not None else Path(f"headrace-destination-{name}")
    try:
        files = new_destination(target, name, title=title, takes=takes)
    except NotMade as error:
        raise UsageProblem(str(error)) from None
    if as_json:
        write_json({"folder": str(target), "files": [str(file) for file in files]})
        return
    write("\n".join(f"{target / file}" for file in files))
    write(f"next: headrace plugin dev {target} --once")


@app.command("list")
def list_(as_json: Annotated[bool, Option("--json", help="JSON for machines in place of tables.")] = False) -> int:
    """List plugins and their connectors; exit status 1 when one cannot be loaded."""

    async def use(host: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        connectors = [
            {
                "connector": info.name,
                "title": info.title,
                "plugin": info.plugin,
                "version": info.version,
                "capabilities": sorted(info.capabilities),
            }
            for info in host.connectors().values()
        ]
        failures = [
            {"plugin": f.plugin, "version": f.version, "reason": f.reason, "output": list(f.output)}
            for f in host.failures()
        ]
        return sorted(connectors, key=lambda c: str(c["connector"])), failures

    connectors, failures = with_plugins(use)
    if as_json:
        write_json({"connectors": connectors, "failures": failures})
    else:
        columns = ("connector", "title", "plugin", "version", "capabilities")
        write(table([c.upper() for c in columns], [[cell(row[c]) for c in columns] for row in connectors]))
        if failures:
            rows = [[f["plugin"], f["version"], f["reason"]] for f in failures]
            write("\n" + table(["NOT LOADED", "VERSION", "WHY"], rows))
        for failure in failures:
            for line in failure["output"]:
                write(f"{failure['plugin']}: {line}")
    return FAILED if failures else 0


app.command("dev")(plugin_dev.dev)


@app.command("describe")
def describe(
    connector: Annotated[str, Argument(help="Name of the connector, or of the plugin that offers it alone.")],
    as_json: Annotated[bool, Option("--json", help="JSON for machines, with the JSON Schema of the settings.")] = False,
) -> None:
    """Write a connector's page from its manifest: settings, fields, events, limits, as Markdown."""
    from headrace.authoring.describe import document, page
    from headrace.plugins.render import resolve

    async def use(host: Any) -> Any:
        return host.connectors()[resolve(host, connector)]

    info = with_plugins(use, plugin=connector)
    if as_json:
        write_json(document(info))
    else:
        write(page(info).rstrip())
