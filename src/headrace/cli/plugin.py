"""`headrace plugin ...`: the connector plugins that are installed here."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Option

from headrace.cli.command import group
from headrace.cli.output import cell, table, write, write_json
from headrace.cli.plugins_host import with_plugins
from headrace.cli.problems import FAILED

app = group("Connector plugins that are installed.")


@app.callback()
def _plugin() -> None:
    """Connector plugins that are installed."""


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
