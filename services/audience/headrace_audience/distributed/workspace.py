"""All audiences of a workspace by the batch evaluator on Spark, beside what the live service has stored."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database, Document
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.definitions.references import Known, referenced, stored_members
from headrace_audience.definitions.stored import DEFINITION_FIELDS, definition_of
from headrace_audience.distributed.shards import Limits, Question
from headrace_audience.distributed.spark import SparkEvaluator
from headrace_audience.language.definition import Definition
from headrace_audience.store import ACTIVE, AUDIENCES, VISIBLE
from headrace_audience.threads import to_the_end

if TYPE_CHECKING:
    from pyspark import SparkContext

T = TypeVar("T")

LOOKS = 3
PAUSE_S = 2.0


class AudienceUnknown(ValueError):
    """There is no such audience, or Spark cannot evaluate it; the text says which."""


@dataclass
class Compared:
    """An audience by both.

    Attributes:
        audience_id: The audience.
        batch_size: Members by the batch evaluator, at the first look.
        live_size: Members that are stored, at the first look.
        only_live: Profiles that are stored as members, and are none by the batch evaluator, at each look.
        only_batch: Profiles of which it is the other way round.
    """

    audience_id: str
    batch_size: int
    live_size: int
    only_live: set[str]
    only_batch: set[str]

    @property
    def same(self) -> bool:
        """Whether nobody differs."""
        return not self.only_live and not self.only_batch


@dataclass(frozen=True)
class WorkspaceOnSpark:
    """Evaluates audiences of a workspace.

    Attributes:
        db: The platform's database.
        reader: Archive and log.
        root: Root of the archive; workers open it.
        context: Spark.
        shards: See SparkEvaluator.
        limits: See SparkEvaluator.
    """

    db: Database
    reader: ArchiveReader
    root: str
    context: SparkContext
    shards: int | None = None
    limits: Limits | None = None

    async def sizes(self, workspace_id: str, audience_ids: Collection[str], at_us: int) -> dict[str, int]:
        """How many are in audiences of people at a moment; without ids in all that are active.

        Raises:
            AudienceUnknown: One of the ids.
        """
        definitions = await self._definitions(workspace_id, audience_ids, VISIBLE if audience_ids else (ACTIVE,))
        known = await self._known(workspace_id, definitions)
        evaluator = await self._evaluator(workspace_id)
        asked = [Question(audience_id, definition, at_us) for audience_id, definition in definitions.items()]
        return await self._wait_for(asyncio.to_thread(evaluator.sizes, asked, known))

    async def compare(
        self, workspace_id: str, audience_ids: Collection[str], *, looks: int = LOOKS, pause_s: float = PAUSE_S
    ) -> list[Compared]:
        """Compare with the stored members now; without ids all active audiences that are not static.

        What differs is looked at again, because live events move between two looks: who differs each time counts.
        The members of all these audiences are in memory here.

        Raises:
            AudienceUnknown: One of the ids, or one that is not active, or static: there is nothing to compare.
        """
        found = await self._definitions(workspace_id, audience_ids, (ACTIVE,))
        definitions = {a: d for a, d in found.items() if d.kind != "static"}
        if static := sorted(set(audience_ids) - definitions.keys()):
            raise AudienceUnknown(f"a static audience is computed once, there is nothing to compare: {static[0]}")
        compared: dict[str, Compared] = {}
        for look in range(looks):
            open_ = {a: d for a, d in definitions.items() if not look or not compared[a].same}
            if not open_:
                break
            if look:
                await asyncio.sleep(pause_s)
            for one in await self._look(workspace_id, open_):
                first = compared.setdefault(one.audience_id, one)
                first.only_live &= one.only_live
                first.only_batch &= one.only_batch
        return list(compared.values())

    async def _look(self, workspace_id: str, definitions: Mapping[str, Definition]) -> list[Compared]:
        known = await self._known(workspace_id, definitions)
        evaluator = await self._evaluator(workspace_id)
        at_us = now_us()
        asked = [Question(audience_id, definition, at_us) for audience_id, definition in definitions.items()]
        found = await self._wait_for(asyncio.to_thread(evaluator.members, asked, known))
        compared = []
        for audience_id, members in found.items():
            batch, live = set(members), set(await stored_members(self.db, workspace_id, audience_id))
            compared.append(Compared(audience_id, len(batch), len(live), live - batch, batch - live))
        return compared

    async def _definitions(
        self, workspace_id: str, audience_ids: Collection[str], states: Sequence[str]
    ) -> dict[str, Definition]:
        query: Document = {"w": workspace_id, "state": {"$in": list(states)}}
        if audience_ids:
            query["a"] = {"$in": sorted(audience_ids)}
        documents = {d["a"]: d async for d in self.db[AUDIENCES].find(query, {"a": 1, **DEFINITION_FIELDS})}
        found = {audience_id: definition_of(documents[audience_id]) for audience_id in sorted(documents)}
        if missing := sorted(set(audience_ids) - found.keys()):
            raise AudienceUnknown(f"there is no audience {missing[0]!r} in a state that can be evaluated")
        of_groups = sorted(audience_id for audience_id, definition in found.items() if definition.of == "groups")
        if audience_ids and of_groups:
            raise AudienceUnknown(f"an audience of groups is about several people at once: {of_groups[0]}")
        return {audience_id: d for audience_id, d in found.items() if d.of != "groups"}

    async def _known(self, workspace_id: str, definitions: Mapping[str, Definition]) -> dict[str, Known]:
        known: dict[str, Known] = {}
        for definition in definitions.values():
            if not definition.references <= known.keys():
                known |= await referenced(self.db, workspace_id, definition)
        return known

    async def _evaluator(self, workspace_id: str) -> SparkEvaluator:
        content = await self.reader.content(workspace_id)
        return SparkEvaluator.of_content(
            self.context, self.root, content, shards=self.shards, limits=self.limits or Limits()
        )

    async def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for a job; when the caller is cancelled, the job is."""
        return await to_the_end(work, on_cancel=self.context.cancelAllJobs)
