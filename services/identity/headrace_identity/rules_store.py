"""Identity rules of workspaces: stored with a version, read inside each transaction.

A micro-batch is resolved by the rules of its snapshot, and each decision records their version, so a rebuild can
tell under which rules an event was resolved. Changed rules apply to events that are resolved after the change.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from bson.binary import Binary

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database, Session
from headrace_identity import gates
from headrace_identity.documents import SEPARATOR
from headrace_identity.resolving.rules import DEFAULT_RULES, Rules, parse, parse_text
from headrace_identity.store import IDENTITY_REBUILDS, IDENTITY_RULES, IDENTITY_RULES_HISTORY

_CACHED_WORKSPACES = 10_000
_CACHED_VERSIONS = 1_000


class RulesChanged(Exception):
    """Somebody else changed the rules since they were read."""


class RebuildRunning(Exception):
    """A rebuild is under way, for which the rules must stay as they are; `rebuild_id` is which."""

    def __init__(self, rebuild_id: str) -> None:
        super().__init__(rebuild_id)
        self.rebuild_id = rebuild_id


class RulesInForce(NamedTuple):
    """The rules of a workspace.

    Attributes:
        version: Counts the changes; 0 for the default rules of a workspace that has set none.
        rules: The rules.
        updated_us: When they were last changed, in microseconds; 0 for the default rules.
    """

    version: int
    rules: Rules
    updated_us: int


class RulesStore:
    """Reads rules; parsed ones are kept for as long as their version is the stored one."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._cache: dict[str, tuple[int, Rules]] = {}
        self._versions: dict[tuple[str, int], Rules] = {}

    async def read(self, workspace_id: str, session: Session | None = None) -> tuple[int, Rules]:
        """Version and rules of a workspace; version 0 stands for the default rules of a workspace that has set none."""
        cached = self._cache.get(workspace_id)
        stored = await self._db[IDENTITY_RULES].find_one({"_id": workspace_id}, {"v": 1}, session=session)
        version = stored["v"] if stored else 0
        if version == 0:
            return 0, DEFAULT_RULES
        if cached is not None and cached[0] == version:
            return cached
        full = await self._db[IDENTITY_RULES].find_one({"_id": workspace_id, "v": version}, session=session)
        if full is None:
            return await self.read(workspace_id, session)  # changed between the two reads; a snapshot never is
        if len(self._cache) >= _CACHED_WORKSPACES:
            self._cache.clear()
        found = self._cache[workspace_id] = (version, parse_text(full["r"]))
        return found

    def last_read(self, workspace_id: str) -> Rules:
        """The rules of a workspace when `read` last read them, which may have changed since."""
        cached = self._cache.get(workspace_id)
        return cached[1] if cached is not None else DEFAULT_RULES

    async def of_version(self, workspace_id: str, version: int) -> Rules:
        """The rules that a version stands for; it is in force or was.

        Raises:
            LookupError: There has never been such a version.
        """
        if version == 0:
            return DEFAULT_RULES
        known = self._versions.get((workspace_id, version))
        if known is None:
            key = f"{workspace_id}{SEPARATOR}{version}"
            stored = await self._db[IDENTITY_RULES_HISTORY].find_one({"_id": key, "w": workspace_id})
            if stored is None:
                raise LookupError(f"there is no version {version} of the identity rules of {workspace_id}")
            if len(self._versions) >= _CACHED_VERSIONS:
                self._versions.clear()
            known = self._versions[workspace_id, version] = parse_text(stored["r"])
        return known

    async def in_force(self, workspace_id: str, session: Session | None = None) -> RulesInForce:
        """The rules of a workspace with when they were changed."""
        stored = await self._db[IDENTITY_RULES].find_one({"_id": workspace_id}, session=session)
        if stored is None:
            return RulesInForce(0, DEFAULT_RULES, 0)
        return RulesInForce(stored["v"], parse_text(stored["r"]), stored["t"])

    async def write(self, workspace_id: str, rules: object, expected_version: int | None = None) -> int:
        """Store rules; they apply to what is resolved from now on.

        Args:
            workspace_id: The workspace.
            rules: The JSON form, decoded.
            expected_version: The version that the caller read; None overwrites whatever is stored.

        Returns:
            Their version: a new one, unless they are the ones in force.

        Raises:
            RulesError: The rules cannot be used; it names the field.
            RulesChanged: expected_version is not the stored one.
            RebuildRunning: A rebuild is under way.
            ApiError: CONCURRENT_CHANGE.
        """
        parsed = parse(rules)

        async def put(session: Session) -> int:
            return await self.put_in_force(session, workspace_id, parsed, expected_version)

        return await gates.change(self._db, workspace_id, put)

    async def put_in_force(
        self, session: Session, workspace_id: str, rules: Rules, expected_version: int | None = None
    ) -> int:
        """Store rules, in a transaction that has closed the gates; see `write`."""
        running = await self._db[IDENTITY_REBUILDS].find_one({"rw": workspace_id}, {"_id": 1}, session=session)
        if running is not None:
            raise RebuildRunning(running["_id"].partition(SEPARATOR)[2])
        version, current, _ = await self.in_force(workspace_id, session)
        if expected_version is not None and expected_version != version:
            raise RulesChanged
        if rules == current:
            return version
        version += 1
        document = {"v": version, "r": Binary(json.dumps(rules.as_json()).encode()), "t": now_us()}
        await self._db[IDENTITY_RULES].replace_one({"_id": workspace_id}, document, upsert=True, session=session)
        history = {"_id": f"{workspace_id}{SEPARATOR}{version}", "w": workspace_id, **document}
        await self._db[IDENTITY_RULES_HISTORY].insert_one(history, session=session)
        return version
