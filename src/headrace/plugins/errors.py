"""What can go wrong with a plugin, as its callers see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class PluginErrorKind(StrEnum):
    """Who has to do something about it."""

    DEFECT = "defect"
    """The plugin broke its contract; the same call would fail again."""
    TIMEOUT = "timeout"
    """The plugin did not answer in time and was ended."""
    CRASHED = "crashed"
    """The plugin's process ended, or waits until it may start again."""
    CONFIG = "config"
    """The settings cannot work."""
    LOAD = "load"
    """There is no such connector, or its plugin could not be loaded."""


class PluginError(Exception):
    """A call to a plugin failed. The text holds no secret and no personal datum.

    Attributes:
        kind: Who has to do something about it.
        plugin: Name of the distribution, empty when there is none.
        reason: One sentence.
        retry_after_s: Seconds until the plugin's process may start again; 0 when calls are taken at once.
        untried: True when the call never reached the plugin, so that nothing in it can be at fault.
    """

    def __init__(
        self, kind: PluginErrorKind, plugin: str, reason: str, *, retry_after_s: float = 0.0, untried: bool = False
    ) -> None:
        super().__init__(f"{plugin}: {reason}" if plugin else reason)
        self.kind = kind
        self.plugin = plugin
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.untried = untried


class PluginConfigError(PluginError):
    """The settings of a destination cannot work.

    Attributes:
        field: The setting at fault as a dotted path, empty when it is no single one.
        problems: All that is wrong, as (field, reason) pairs. `reason` has their reasons one after the other.
    """

    def __init__(self, plugin: str, field: str, reason: str, others: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(PluginErrorKind.CONFIG, plugin, "; ".join([reason, *(other for _, other in others)]))
        self.field = field
        self.problems = ((field, reason), *others)


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A plugin that is installed but cannot be used.

    Attributes:
        plugin: Name of the distribution.
        version: Its version, empty when unknown.
        reason: One sentence.
        output: The last lines that it printed while it was loaded.
    """

    plugin: str
    version: str
    reason: str
    output: tuple[str, ...] = ()
