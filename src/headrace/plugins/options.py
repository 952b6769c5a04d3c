"""Which plugins are loaded, and how: what the HEADRACE_PLUGIN* variables say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """What is loaded, and how.

    Attributes:
        plugins: Names of distributions, entry points or commands; None loads all that are installed.
        folders: Folders of plugins in other languages.
        in_process: Run Python plugins in the host's own process.
    """

    plugins: tuple[str, ...] | None = None
    folders: tuple[str, ...] = ()
    in_process: bool = False

    @classmethod
    def of_texts(cls, plugins: str | None, folders: str, *, in_process: bool) -> Options:
        """Options from texts in which commas separate names and folders.

        Args:
            plugins: HEADRACE_PLUGINS; None when it is not set.
            folders: HEADRACE_PLUGIN_FOLDERS.
            in_process: HEADRACE_PLUGINS_IN_PROCESS.
        """
        return cls(None if plugins is None else _parts(plugins), _parts(folders), in_process)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Options:
        """Options from environment variables, for commands that have no settings.

        Raises:
            ValueError: HEADRACE_PLUGINS_IN_PROCESS is neither true nor false.
        """
        in_process = environment.get("HEADRACE_PLUGINS_IN_PROCESS", "false").lower()
        if in_process not in _FLAGS:
            raise ValueError("HEADRACE_PLUGINS_IN_PROCESS must be true or false")
        return cls.of_texts(
            environment.get("HEADRACE_PLUGINS"),
            environment.get("HEADRACE_PLUGIN_FOLDERS", ""),
            in_process=_FLAGS[in_process],
        )


_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
