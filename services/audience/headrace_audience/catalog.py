"""What is to be computed: the stored audiences, followed by every replica."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.domain.definitions import DefinitionError
from headrace.domain.times import MINUTE_US
from headrace.storage.mongo.client import Database, Document
from headrace.telemetry import logs
from headrace_audience.language.definition import Definition
from headrace_audience.language.parser import parse_definition
from headrace_audience.store import ACTIVE, ARCHIVED, AUDIENCES, COMPUTED, DELETED, DRAFT, FILLING, LEAVING, PAUSED

log = logs.get_logger(__name__)

SKEW_US = MINUTE_US
"""How far the clocks of replicas may be apart without a change being overlooked until the next full reading."""


@dataclass(frozen=True)
class Audience:
    """An audience that is computed, kept or being removed."""

    workspace_id: str
    audience_id: str
    state: str
    definition: Definition
    generation: int
    """Grows with each start of computing: what was filled for an older one does not count."""
    cause: str
    """What the changes of its filling say: "fill", "refresh" or "definition"."""
    at_us: int
    """The moment for which its members are computed, when they are computed for one."""
    base: int
    """Version after which memberships start."""
    done: frozenset[int]
    """Partitions that are filled (or emptied, when it is being removed or archived) for this generation."""
    open: bool = False
    """Whether this generation's work is not yet done in all partitions."""
    next_us: int = 0
    """When it is refreshed next; 0: never."""

    @property
    def is_filling(self) -> bool:
        """Whether its members are being computed for this generation, from history."""
        return self.state == FILLING or (self.state == ACTIVE and self.open)

    @property
    def is_leaving(self) -> bool:
        """Whether all its members leave."""
        return self.state in LEAVING

    @property
    def is_live(self) -> bool:
        """Whether its members follow from every event and from time."""
        return self.state in COMPUTED and not self.definition.is_constant

    @property
    def is_constant(self) -> bool:
        """Whether its members stay as they are but for merges and deletions, until they are computed anew."""
        return self.state == PAUSED or (self.state in COMPUTED and self.definition.is_constant)

    @property
    def is_computed_at_once(self) -> bool:
        """Whether its members are being computed for one moment, by the batch evaluator."""
        return self.is_filling and self.definition.is_constant


class Catalog:
    """All audiences that are neither drafts nor gone nor put away, by workspace and id."""

    def __init__(self, db: Database) -> None:
        """Follow a database's audiences; empty before the first refresh."""
        self._audiences = db[AUDIENCES]
        self._known: dict[str, Audience] = {}
        self._newest = 0

    async def refresh(self, *, everything: bool = False) -> None:
        """Read what has changed, or everything.

        A refresh that reads everything sees all changes that were made before it, whatever the clocks say.
        """
        if everything:
            self._newest = 0
        query: Document = {"a": {"$exists": True}, "updated": {"$gte": self._newest - SKEW_US}}
        found: dict[str, Audience | None] = {}
        newest = self._newest
        async for document in self._audiences.find(query):
            found[document["_id"]] = _audience(document)
            newest = max(newest, document["updated"])
        if everything:
            self._known = {}
        for key, audience in found.items():
            if audience is None:
                self._known.pop(key, None)
            else:
                self._known[key] = audience
        self._newest = newest

    def by_workspace(self) -> Mapping[str, Mapping[str, Audience]]:
        """Workspace to audience id to audience."""
        grouped: dict[str, dict[str, Audience]] = defaultdict(dict)
        for audience in self._known.values():
            grouped[audience.workspace_id][audience.audience_id] = audience
        return grouped


def _audience(document: Document) -> Audience | None:
    if document["state"] in (DRAFT, DELETED) or (document["state"] == ARCHIVED and not document["open"]):
        return None
    try:
        definition = parse_definition(document["def"])
    except DefinitionError as error:
        # It was checked when it was saved: an older program reads what a newer one wrote.
        log.warning("a stored definition cannot be read", audience=document["a"], place=error.path)
        return None
    return Audience(
        workspace_id=document["w"],
        audience_id=document["a"],
        state=document["state"],
        definition=definition,
        generation=document["gen"],
        cause=document["cause"],
        at_us=document["at"],
        base=document.get("base", 0),
        done=frozenset(document.get("done", ())),
        open=document.get("open", False),
        next_us=document.get("next", 0),
    )
