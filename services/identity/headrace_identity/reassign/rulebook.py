"""By which rules each event is resolved anew."""

from __future__ import annotations

from collections.abc import Callable, Collection

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace_identity.resolving.rules import Rules
from headrace_identity.rules_store import RulesStore
from headrace_identity.workspaces import Workspace

RulesOf = Callable[[ResolvedEvent], tuple[int, Rules]]
"""Version and rules by which an event is resolved anew."""


class Rulebook:
    """Rules by version: those by which each event was resolved, or by which the last rebuild resolved it."""

    def __init__(self, store: RulesStore, workspace: Workspace, override: RulesOf | None = None) -> None:
        """Read from a store.

        Args:
            store: Rules by version.
            workspace: The workspace.
            override: Decides instead, when it is given.
        """
        self._store = store
        self._workspace = workspace
        self._override = override
        self._rules: dict[int, Rules] = {}

    async def learn(self, versions: Collection[int]) -> None:
        """Read what `of` needs for events that were resolved by rules of these versions.

        Raises:
            LookupError: There has never been such a version.
        """
        if self._override is not None:
            return
        wanted = {*versions, self._workspace.rebuilt_version} - self._rules.keys() - {-1}
        for version in wanted:
            self._rules[version] = await self._store.of_version(self._workspace.id, version)

    def of(self, resolved: ResolvedEvent) -> tuple[int, Rules]:
        """Version and rules by which an event is resolved anew."""
        if self._override is not None:
            return self._override(resolved)
        version = resolved.decision.rules_version
        if resolved.decision.sequence <= self._workspace.rebuilt_sequence:
            # A later one may stand there: a rebuild that was cancelled had resolved it already.
            version = max(version, self._workspace.rebuilt_version)
        return version, self._rules[version]
