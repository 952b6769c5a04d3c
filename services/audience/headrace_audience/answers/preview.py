"""Size and sample of a definition before it is saved, by the batch evaluator over archive and log.

A small workspace is evaluated whole. In a large one a sample of people is, and then larger ones as long as they are
likely to be done in time: what a definition costs is only known when it has run.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa

from headrace.domain.times import now_us
from headrace.rpc.errors import limit_exceeded
from headrace.storage.mongo.client import Database
from headrace.telemetry import logs
from headrace_audience.answers.estimate import Estimate, estimate
from headrace_audience.answers.sampled import ROWS_AT_FIRST, NamedMembers, in_time, members_among, people_of
from headrace_audience.answers.unknown import warnings
from headrace_audience.archive.reader import ArchiveReader, Events, View
from headrace_audience.archive.samples import EVERYBODY
from headrace_audience.batch import queries
from headrace_audience.calls.given import Given, check_known, parse, read
from headrace_audience.calls.handlers import Audiences
from headrace_audience.calls.transitions import wanted
from headrace_audience.definitions.computed_traits import ComputedTraits
from headrace_audience.definitions.references import referenced, stored_members
from headrace_audience.definitions.stored import definition_of, parsed_computed
from headrace_audience.filling.versions import Change
from headrace_audience.language.computed import bind
from headrace_audience.language.definition import Definition
from headrace_audience.language.sense import passed_by_all
from headrace_audience.store import member_count

log = logs.get_logger(__name__)

ANSWER_S = 1.4
"""No larger sample is begun that would take longer than this in all, and one that does is given up then."""
NAMES_S = 0.4
"""So long is looked for names that few events have, when not everybody is counted."""
SAVED_S = 1.0
"""Who saves a definition waits so long at most to be told what it names and nobody has."""
DIFFERENCE_S = 5.0
"""So long an edit may take to tell whom it moves; a version of which that was not told waits to be confirmed."""
NOT_LOOKED = "It was not found out in time whether there is all that the definition names: a preview tells it."
GROUPS_S = 20.0
"""So long the groups of a definition are counted, when not whatever time that takes is wanted."""


@dataclass(frozen=True)
class PreviewResult:
    """What a definition would give."""

    size: Estimate
    sampled_people: int
    """How many people it was evaluated for; 0 when for everybody."""
    sample: list[str]
    """Profile ids of some members."""
    at_us: int
    """The clock of the evaluation."""
    warnings: list[str]
    """What it names and nobody has, and comparisons that everybody passes, in sentences."""


@dataclass(frozen=True)
class Difference:
    """What a definition would do to the members of an audience."""

    enter: Estimate
    leave: Estimate
    stay: Estimate
    sampled_people: int
    """How many people were compared; 0 when everybody was."""
    at_us: int
    """The clock of the evaluation."""

    @property
    def change(self) -> Change:
        """The sizes without their intervals."""
        return Change(self.enter.size, self.leave.size, self.stay.size)


class Preview:
    """Evaluates definitions that are not saved."""

    def __init__(
        self,
        db: Database,
        audiences: Audiences,
        computed_traits: ComputedTraits,
        reader: ArchiveReader,
        *,
        answer_s: float = ANSWER_S,
        rows_at_first: int = ROWS_AT_FIRST,
    ) -> None:
        """Read members of named audiences from a database, computed traits, and events through a reader."""
        self._db = db
        self._audiences = audiences
        self._computed_traits = computed_traits
        self._reader = reader
        self._answer_s = answer_s
        self._rows_at_first = rows_at_first

    async def preview(self, workspace_id: str, source: str, sample_size: int, *, exact: bool = False) -> PreviewResult:
        """Evaluate a definition now.

        Args:
            workspace_id: The workspace.
            source: The definition, as text or JSON.
            sample_size: So many members are told.
            exact: Evaluate for everybody, however long that takes; of groups all are counted, but only so long.

        Raises:
            ApiError: INVALID_ARGUMENT with the place of the fault, or LIMIT_EXCEEDED when groups take too long.
        """
        deadline = time.monotonic() + self._answer_s
        given = await read(source, "definition")
        source = given.source
        with given.placing():
            definition = await self._bound(workspace_id, given)
            if definition.references:
                check_known(source, await self._audiences.definitions(workspace_id), definition, "definition")
        async with self._reader.look(workspace_id) as events:
            at_us = now_us()
            query = partial(queries.preview, definition=definition, now_us=at_us, sample=sample_size)
            named = NamedMembers(self._db, workspace_id, definition)

            async def ask(view: View) -> queries.Preview:
                return await view.run(partial(query, audiences=await named.of(view)))

            if exact:
                share, found = 1.0, await ask(await events.view(EVERYBODY))
            elif definition.of == "groups":  # a sample of people does not have all members of a group
                share, found = 1.0, await self._groups_in_time(workspace_id, events, query, definition)
            else:
                share, found = await in_time(events, ask, deadline, self._rows_at_first)
            unknown = await events.written.run(
                partial(warnings, definition=definition, within_s=None if exact else NAMES_S)
            )
        sampled = found.profiles if share < 1 else 0
        unknown += passed_by_all(json.loads(source))
        return PreviewResult(estimate(found.size, share), sampled, list(found.sample), at_us, unknown)

    async def unknown(self, document: Mapping[str, Any]) -> list[str]:
        """What the definition that an audience just got names and nobody has, and comparisons that everybody passes.

        Saving does not wait long for it and does not fail for it: what is not known soon is said to be so. While a
        workspace has no events nothing is said of names.

        Args:
            document: The audience as it is, or would be, stored.

        Returns:
            Sentences.
        """
        target = wanted(document)
        definition = definition_of(target)
        found: list[str] = []
        try:
            async with asyncio.timeout(SAVED_S), self._reader.look(document["w"]) as events:
                if events.rows:
                    look = partial(warnings, definition=definition, within_s=NAMES_S)
                    found = await events.written.run(look)
        except TimeoutError:
            found = [NOT_LOOKED]
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            log.warning("names of a definition could not be looked for", error=type(error).__name__)
            found = [NOT_LOOKED]
        return found + passed_by_all(json.loads(target["def"]))

    async def compare(self, workspace_id: str, audience_id: str, source: str, *, exact: bool) -> Difference:
        """What a definition would do to the members of an audience now.

        Args:
            workspace_id: The workspace.
            audience_id: The audience.
            source: The definition, as text or JSON.
            exact: Compare everybody, however long that takes; else in a large workspace a sample of people is. Of
                groups all are.

        Raises:
            ApiError: INVALID_ARGUMENT with the place of the fault.
        """
        deadline = time.monotonic() + self._answer_s
        given = await read(source)
        with given.placing():
            definition = await self._bound(workspace_id, given)
        if exact or definition.of == "groups":
            return await self._compared(workspace_id, audience_id, definition)
        async with self._reader.look(workspace_id) as events:
            at_us = now_us()
            named = NamedMembers(self._db, workspace_id, definition)
            evaluate = partial(queries.evaluate, definition=definition, now_us=at_us)

            async def ask(view: View) -> tuple[int, int, int, int]:
                people = set(await view.run(people_of))
                after = set(await view.run(partial(evaluate, audiences=await named.of(view))))
                before = set(await members_among(self._db, workspace_id, audience_id, people)) & people
                return len(after - before), len(before - after), len(before & after), len(people)

            share, (enter, leave, stay, people) = await in_time(events, ask, deadline, self._rows_at_first)
            if share == 1:  # members whose events are gone leave too
                people, leave = 0, max(await member_count(self._db, workspace_id, audience_id) - stay, 0)
        return _difference((enter, leave, stay), share, people, at_us)

    async def compare_soon(self, workspace_id: str, audience_id: str, source: str) -> Difference | None:
        """The same, by a sample of a large workspace; None when it cannot be found, or takes longer than seconds."""
        try:
            async with asyncio.timeout(DIFFERENCE_S):
                return await self.compare(workspace_id, audience_id, source, exact=False)
        except TimeoutError:
            return None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            log.warning("a new definition could not be compared", error=type(error).__name__)
            return None

    async def _compared(self, workspace_id: str, audience_id: str, definition: Definition) -> Difference:
        """What a definition would do to the members of an audience, by everybody."""
        known = await referenced(self._db, workspace_id, definition)
        async with self._reader.open(workspace_id) as view:
            at_us = now_us()
            evaluate = partial(queries.evaluate, definition=definition, now_us=at_us, audiences=known)
            after = set(await view.run(evaluate))
        before = set(await stored_members(self._db, workspace_id, audience_id))
        counts = (len(after - before), len(before - after), len(before & after))
        return _difference(counts, 1.0, 0, at_us)

    async def _bound(self, workspace_id: str, given: Given) -> Definition:
        """A definition with the computed traits that it names."""
        definition = parse(given.source, given.field)
        computed = await self._computed_traits.named(workspace_id, given.source, definition, given.field)
        return bind(definition, parsed_computed(computed))

    async def _groups_in_time(
        self, workspace_id: str, events: Events, query: partial[queries.Preview], definition: Definition
    ) -> queries.Preview:
        """All groups. Raises ApiError LIMIT_EXCEEDED when counting them takes too long."""
        try:
            async with asyncio.timeout(GROUPS_S):
                known = await referenced(self._db, workspace_id, definition)
                return await (await events.view(EVERYBODY)).run(partial(query, audiences=known))
        except TimeoutError:
            message = f"Groups are counted exactly, and these were not within {GROUPS_S:g} s: ask for an exact preview."
            raise limit_exceeded("preview_seconds", message) from None


def _difference(counts: tuple[int, int, int], share: float, sampled_people: int, at_us: int) -> Difference:
    """A difference from those found to enter, to leave and to stay in a share of all people."""
    enter, leave, stay = (estimate(found, share) for found in counts)
    return Difference(enter, leave, stay, sampled_people, at_us)
