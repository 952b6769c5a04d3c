"""How a plugin makes itself known: a pluggy hook in a module named by an entry point of group "headrace.plugins"."""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from headrace_sdk.manifest import Manifest

ENTRY_POINT_GROUP = "headrace.plugins"
"""Entry-point group of plugins of API 1. The entry point names the module that holds the hook."""

hookspec = pluggy.HookspecMarker("headrace")
hookimpl = pluggy.HookimplMarker("headrace")
"""Decorator of a plugin's `headrace_connectors()`, which returns its manifests. It is called once, in the plugin's own
process, and does no I/O."""


@hookspec
def headrace_connectors() -> Sequence[Manifest]:  # type: ignore[empty-body]
    """Return what this plugin offers.

    Called once at start, in the plugin's own process. Must do no I/O and import no vendor SDK: the manifest points at
    the connector's class by path.

    .. versionadded:: API 1.0
    """
