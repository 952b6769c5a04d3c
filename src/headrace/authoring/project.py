"""A plugin in a folder, loaded as it lies there: nothing has to be installed."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.plugins.commands import FILE_NAME
from headrace.plugins.discovery import normalised
from headrace_sdk import ENTRY_POINT_GROUP

_NO_VERSION = "0"


class ProjectError(ValueError):
    """The folder is none of a plugin; the text names the file and says what is missing."""


@dataclass(frozen=True, slots=True)
class Project:
    """A plugin's folder.

    Attributes:
        folder: The folder.
        name: Name of the plugin.
        version: Its version.
        entry_points: (name, "package.module") of each entry point; none for a plugin in another language.
    """

    folder: Path
    name: str
    version: str
    entry_points: tuple[tuple[str, str], ...]

    def path(self, scratch: Path) -> list[str]:
        """Folders from which a host finds the plugin and imports its code; empty for another language.

        Args:
            scratch: An empty folder, which gets the metadata that an installed distribution would have.
        """
        if not self.entry_points:
            return []
        metadata = scratch / f"{self.name.replace('-', '_')}-{self.version}.dist-info"
        metadata.mkdir(exist_ok=True)
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n", encoding="utf-8"
        )
        lines = [f"[{ENTRY_POINT_GROUP}]", *(f"{name} = {value}" for name, value in self.entry_points), ""]
        (metadata / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
        return [str(scratch), *(str(folder) for folder in (self.folder / "src", self.folder) if folder.is_dir())]

    def folders(self) -> list[str]:
        """Folders of plugins in other languages."""
        return [] if self.entry_points else [str(self.folder)]

    def forget_code(self) -> None:
        """Let this process import the plugin's code anew, for it may have changed."""
        packages = tuple(value.partition(":")[0].partition(".")[0] for _, value in self.entry_points)
        for name in list(sys.modules):
            if name.partition(".")[0] in packages:
                del sys.modules[name]


def read_project(folder: Path) -> Project:
    """The plugin in a folder: a Python project, or one in another language.

    Raises:
        ProjectError: There is none.
    """
    folder = folder.resolve()
    if (folder / FILE_NAME).is_file():
        return Project(folder, normalised(folder.name), _NO_VERSION, ())
    path = folder / "pyproject.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProjectError(f"{folder}: there is neither pyproject.toml nor {FILE_NAME}") from None
    except OSError as error:
        raise ProjectError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise ProjectError(f"{path}: {error}") from None
    described = _table(path, content, "project")
    points = _table(path, _table(path, described, "entry-points", default={}), ENTRY_POINT_GROUP, default={})
    name = described.get("name")
    if not isinstance(name, str) or not name:
        raise ProjectError(f"{path}: [project] has no name")
    if not points:
        raise ProjectError(f'{path}: there is no [project.entry-points."{ENTRY_POINT_GROUP}"]')
    version = described.get("version")
    entry_points = tuple(sorted((str(key), str(value)) for key, value in points.items()))
    return Project(folder, normalised(name), version if isinstance(version, str) else _NO_VERSION, entry_points)


def _table(path: Path, content: Mapping[str, Any], name: str, default: Any = None) -> Mapping[str, Any]:
    found = content.get(name, default)
    if not isinstance(found, Mapping):
        raise ProjectError(f"{path}: there is no [{name}]")
    return found
