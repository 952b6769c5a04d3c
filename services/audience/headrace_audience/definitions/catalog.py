"""What is to be computed: the stored audiences, followed by every replica."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from headrace.domain.definitions import DefinitionError
from headrace.domain.times import MINUTE_US
from headrace.storage.mongo.client import Database, Document
from headrace.telemetry import logs
from headrace_audience.definitions.stored import definition_of, keeps_members
from headrace_audience.definitions.unreadable import kind_of_members
from headrace_audience.language.definition import All, Definition
from headrace_audience.store import (
    ACTIVE,
    ARCHIVED,
    AUDIENCES,
    COMPUTED,
    DELETED,
    DRAFT,
    FILLING,
    LEAVING,
    PAUSED,
    SEPARATOR,
)

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
    """What the changes of its filling or emptying say: "fill", "refresh", "definition" or "archived"."""
    at_us: int
    """The moment for which its members are computed, when they are computed for one."""
    base: int
    """Version after which memberships start."""
    done: frozenset[int]
    """Partitions that are filled (or emptied, when it is being removed or archived) for this generation."""
    open: bool = False
    """Whether this generation's work is not yet done in all partitions."""
    next_us: int = 0
    """When one that is refreshed at intervals is refreshed next; 0: never."""
    version_of: str = ""
    """Of the pending version of an audience: the audience. Nothing is stored of its members."""
    reread: bool = False
    """Whether the members that are known are to be forgotten: those that are stored are what it begins from."""
    held: bool = False
    """Whether it is a pending version that waits for somebody to confirm it."""

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
        return self.state in COMPUTED and not self.definition.is_batch

    @property
    def is_constant(self) -> bool:
        """Whether its members stay as they are but for merges and deletions, until they are computed anew."""
        return self.state == PAUSED or (self.state in COMPUTED and self.definition.is_batch)

    @property
    def is_stored(self) -> bool:
        """Whether its members are kept in the store, and are not about to leave."""
        return not self.is_leaving and not self.version_of

    @property
    def awaits_batch(self) -> bool:
        """Whether it is a batch audience whose members are being computed."""
        return self.is_filling and self.definition.is_batch

    @property
    def is_read_by_definition(self) -> bool:
        """Whether who names it goes by its definition; else by its stored members."""
        return self.state in COMPUTED and self.definition.is_continuous

    @property
    def is_kept_up(self) -> bool:
        """Whether it is computed anew soon after what it reads has changed: a continuous one of groups."""
        return self.is_read_by_definition and self.definition.is_batch and not self.version_of


class Catalog:
    """All audiences that are neither drafts nor gone nor put away, and pending versions, by workspace and id."""

    def __init__(self, db: Database) -> None:
        """Follow a database's audiences; empty before the first refresh."""
        self._audiences = db[AUDIENCES]
        self._known: dict[str, list[Audience]] = {}
        self._newest = 0

    async def refresh(self, *, everything: bool = False) -> None:
        """Read what has changed, or everything.

        A refresh that reads everything sees all changes that were made before it, whatever the clocks say.
        """
        if everything:
            self._newest = 0
        query: Document = {"a": {"$exists": True}, "updated": {"$gte": self._newest - SKEW_US}}
        found: dict[str, list[Audience]] = {}
        newest = self._newest
        async for document in self._audiences.find(query):
            found[document["_id"]] = list(_audiences(document))
            newest = max(newest, document["updated"])
        if everything:
            self._known = {}
        self._known.update(found)
        self._known = {key: audiences for key, audiences in self._known.items() if audiences}
        self._newest = newest

    def by_workspace(self) -> Mapping[str, Mapping[str, Audience]]:
        """Workspace to audience id to audience."""
        grouped: dict[str, dict[str, Audience]] = defaultdict(dict)
        for audience in itertools.chain.from_iterable(self._known.values()):
            grouped[audience.workspace_id][audience.audience_id] = audience
        return grouped


def _audiences(document: Document) -> Iterator[Audience]:
    """The audience of a document, and its pending version as one that is filled beside it."""
    if document["state"] in (DRAFT, DELETED) or (document["state"] == ARCHIVED and not document["open"]):
        return
    definition = _definition(document, document["a"])
    version = document.get("pending") if document["state"] in COMPUTED else None
    pending = _definition(version, document["a"]) if version else None
    # Members of one that cannot be read stay, and those of one that is activated with another meaning until its version
    # takes their place.
    is_kept = keeps_members(document) or (definition is None and document["state"] in COMPUTED)
    if version and pending:
        yield Audience(
            workspace_id=document["w"],
            audience_id=f"{document['a']}{SEPARATOR}pending",
            state=FILLING,
            definition=pending,
            generation=version["gen"],
            cause="definition",
            at_us=version["at"],
            base=0,
            done=frozenset(map(int, version["parts"])),
            open=True,
            version_of=document["a"],
            held=version["held"],
        )
    yield Audience(
        workspace_id=document["w"],
        audience_id=document["a"],
        state=PAUSED if is_kept else document["state"],
        definition=definition or Definition("dynamic", All(()), kind_of_members(document)),
        generation=document["gen"],
        cause=document["cause"],
        at_us=document["at"],
        base=document.get("base", 0),
        done=frozenset(document.get("done", ())),
        open=document.get("open", False),
        next_us=document.get("next", 0),
        reread=document.get("reread") == document["gen"],
    )


def _definition(document: Document, audience_id: str) -> Definition | None:
    try:
        return definition_of(document)
    except DefinitionError as error:
        log.warning("a stored definition cannot be read", audience=audience_id, place=error.path)
        return None
