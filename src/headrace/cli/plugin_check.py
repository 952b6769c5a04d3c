"""`headrace plugin check`: the conformance kit from the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit

from typer import Argument, Option

from headrace.cli.output import table, write, write_json
from headrace.cli.problems import FAILED, CommandFailed, UsageProblem

if TYPE_CHECKING:
    from headrace.conformance import Options

_CONFORMANCE = Path("tests") / "conformance"
_COMMAND_FILE = "headrace-plugin.toml"


def check(
    plugin: Annotated[str, Argument(metavar="NAME|PATH", help="Name of a connector, or folder of a plugin's project.")],
    level: Annotated[
        list[str] | None,
        Option("--level", help="Check this level alone: manifest, golden, behaviour, properties, hygiene or life."),
    ] = None,
    folder: Annotated[
        Path | None,
        Option("--folder", help="Folder with vendor.json and cases/, in place of the project's tests/conformance."),
    ] = None,
    fake_seed: Annotated[int, Option("--fake-seed", help="Another seed makes other test data.")] = 0,
    examples: Annotated[int, Option("--examples", min=1, help="Batches made by chance for each property.")] = 24,
    update_golden: Annotated[
        bool, Option("--update-golden", help="Write the golden cases anew in place of comparing them.")
    ] = False,
    report: Annotated[Path | None, Option("--report", help="Write the report as JSON into this file too.")] = None,
    as_json: Annotated[bool, Option("--json", help="The report as JSON in place of a table.")] = False,
) -> int:
    """Check a connector: what it says of itself, its requests, what it makes of a vendor's answers, how it lives.

    Exit status: 0 no check failed, 1 one did, 2 there is no such connector, folder or level.
    """
    try:
        from headrace import conformance
    except ImportError as error:
        raise CommandFailed(f"{error.name} is missing: pip install 'headrace[testing]'") from None

    logging.getLogger("headrace").setLevel(logging.ERROR)  # failures are in the report
    known = [one.value for one in conformance.Level]
    if unknown := sorted(set(level or ()) - set(known)):
        raise UsageProblem(f"there is no level {unknown[0]}; there are: {', '.join(known)}")
    name, options = _meant(plugin, conformance.Options(seed=fake_seed, examples=examples, update=update_golden))
    if folder is not None:
        if not folder.is_dir():
            raise UsageProblem(f"{folder} is no folder")
        options = dataclasses.replace(options, folder=folder)
    levels = [conformance.Level(one) for one in level or known]
    with contextlib.redirect_stdout(io.StringIO()):  # what a connector prints is no part of the report
        found = conformance.conformance(name, options, levels=levels)
    document = found.model_dump(mode="json")
    if report is not None:
        report.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if as_json:
        write_json(document)
    else:
        columns = ["CHECK", "RESULT", "WHAT MUST HOLD", "SEEN", "WHAT TO DO"]
        write(table(columns, [[one.replace("\n", " ") for one in row] for row in conformance.rows(found.checks)]))
        write(f"\n{found.summary()}")
    return 0 if found.conforms else FAILED


def _meant(plugin: str, options: Options) -> tuple[str, Options]:
    """The connector that is meant, and where its author's files are."""
    path = Path(plugin)
    if not path.is_dir():
        return plugin, dataclasses.replace(options, folder=_folder_of_installed(plugin))
    options = dataclasses.replace(options, folder=path / _CONFORMANCE)
    if (path / _COMMAND_FILE).exists():
        name = _read_toml(path / _COMMAND_FILE).get("name", "")
        return str(name), dataclasses.replace(options, folders=(str(path),))
    if not (path / "pyproject.toml").exists():
        raise UsageProblem(f"{path} has neither a pyproject.toml nor a {_COMMAND_FILE}")
    points = _read_toml(path / "pyproject.toml").get("project", {}).get("entry-points", {}).get("headrace.plugins", {})
    if len(points) != 1:
        raise UsageProblem(f"{path / 'pyproject.toml'} has {len(points)} entry points: give the connector's name")
    return str(next(iter(points))), options


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageProblem(f"{path} cannot be read: {error}") from None


def _folder_of_installed(name: str) -> Path | None:
    """The author's files of a plugin that is installed from a folder; None when it is installed from elsewhere."""
    from headrace.plugins.discovery import discover

    found, _ = discover([name])
    if len(found) != 1 or found[0].command:
        return None
    try:
        origin = json.loads(distribution(found[0].name).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    url = urlsplit(str(origin.get("url", "")))
    folder = Path(unquote(url.path)) / _CONFORMANCE
    return folder if url.scheme == "file" and folder.is_dir() else None
