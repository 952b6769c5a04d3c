"""Finds installed plugins by their entry points, without importing any of their code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path

from headrace.plugins.commands import read_command
from headrace.plugins.errors import PluginFailure
from headrace_sdk import API_VERSION, ENTRY_POINT_GROUP

_MAJOR = API_VERSION.split(".", maxsplit=1)[0]


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """A distribution that has an entry point for us, or a command in another language.

    Attributes:
        name: Name of the distribution or the command, normalised.
        version: Its version.
        entry_points: (name, "package.module") of each entry point, sorted; none for a command.
        command: The program and its arguments; empty for a distribution.
        folder: Where the command runs.
    """

    name: str
    version: str
    entry_points: tuple[tuple[str, str], ...]
    command: tuple[str, ...] = ()
    folder: Path | None = None


def discover(
    wanted: Iterable[str] | None = None, *, path: Sequence[str] | None = None, folders: Iterable[str] = ()
) -> tuple[list[InstalledPlugin], list[PluginFailure]]:
    """The installed plugins, sorted by name, and those that cannot be loaded whatever they do.

    Args:
        wanted: Names of distributions or of entry points; None takes all that are installed.
        path: Folders to look in for distributions; None takes sys.path.
        folders: Folders of plugins in other languages, each with a `headrace-plugin.toml`.

    Returns:
        The plugins to load, and a failure for each that is broken, of another API, or wanted and not installed.
    """
    chosen = None if wanted is None else {normalised(name) for name in wanted if name.strip()}
    plugins: dict[str, InstalledPlugin] = {}
    failures: list[PluginFailure] = []
    matched: set[str] = set()
    for name, distribution in _candidates(path).items():
        try:
            ours = [point for point in distribution.entry_points if _major_of(point)]
        except Exception:  # whatever a parser says to a file that anybody may have written
            if ENTRY_POINT_GROUP in _entry_points_of(distribution):
                failures.append(PluginFailure(name, "", "its entry_points.txt cannot be read"))
            continue
        names = {name} | {normalised(point.name) for point in ours}
        if not ours or (chosen is not None and not names & chosen):
            continue
        matched |= names
        version = distribution.version or ""
        others = sorted({_major_of(point) for point in ours} - {_MAJOR})
        if len(others) == len({_major_of(point) for point in ours}):
            failures.append(_of_another_api(name, version, others))
            continue
        plugins[name] = InstalledPlugin(
            name, version, tuple(sorted((point.name, point.value) for point in ours if _major_of(point) == _MAJOR))
        )
    for folder in map(Path, folders):
        try:
            described = read_command(folder)
        except ValueError as error:
            failures.append(PluginFailure(normalised(folder.resolve().name), "", str(error)))
            continue
        name = normalised(described.name)
        if chosen is not None and name not in chosen:
            continue
        matched.add(name)
        major = described.api.partition(".")[0]
        if major != _MAJOR:
            failures.append(_of_another_api(name, described.version, [major]))
        elif name in plugins:
            failures.append(PluginFailure(name, described.version, "there is another plugin of this name"))
        else:
            plugins[name] = InstalledPlugin(name, described.version, (), tuple(described.command), folder.resolve())
    for missing in sorted((chosen or set()) - matched):
        failures.append(PluginFailure(missing, "", "no plugin of this name is installed"))
    return [plugins[name] for name in sorted(plugins)], failures


def _candidates(path: Sequence[str] | None) -> dict[str, Distribution]:
    """Distributions that speak of our entry points, by name. The others are many, and their metadata slow to parse."""
    where = sys.path if path is None else list(path)
    found: dict[str, Distribution] = {}
    for distribution in distributions(path=where):
        if ENTRY_POINT_GROUP not in _entry_points_of(distribution):
            continue
        name = _name_of(distribution)
        if name and name not in found:
            # The first one of this name on the path is the one that would be imported.
            found[name] = next(iter(distributions(name=name, path=where)), distribution)
    return found


def _entry_points_of(distribution: Distribution) -> str:
    """The text of its entry points; empty when it cannot be read."""
    try:
        return distribution.read_text("entry_points.txt") or ""
    except (OSError, ValueError):
        return ""


def _of_another_api(name: str, version: str, majors: Sequence[str]) -> PluginFailure:
    spoken = " and ".join(majors)
    return PluginFailure(name, version, f"written for plugin API {spoken}, this platform has {API_VERSION}")


def _major_of(point: EntryPoint) -> str:
    """Major version of the plugin API that an entry point is for; empty when it is none of ours."""
    if point.group == ENTRY_POINT_GROUP:
        return "1"
    match = re.fullmatch(re.escape(ENTRY_POINT_GROUP) + r"\.v(\d+)", point.group)
    return match[1] if match else ""


def _name_of(distribution: Distribution) -> str:
    """Normalised name of a distribution; empty when its metadata cannot be read."""
    try:
        return normalised(distribution.metadata["Name"] or "")
    except (KeyError, TypeError, OSError, ValueError):
        return ""


def normalised(name: str) -> str:
    """A name as it is compared: in lower case, with dashes."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
