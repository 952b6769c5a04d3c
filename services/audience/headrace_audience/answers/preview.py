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
from headrace.storage.mongo.client import Database
from headrace.telemetry import logs
from headrace_audience.answers.estimate import Estimate, estimate
from headrace_audience.answers.unknown import warnings
from headrace_audience.archive.reader import ArchiveReader, Events
from headrace_audience.archive.samples import EVERYBODY, SHARES
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

log = logs.get_logger(__name__)

ANSWER_S = 1.4
"""No larger sample is begun that would take longer than this in all, and one that does is given up then."""
NAMES_S = 0.4
"""So long is looked for names that few events have, when not everybody is counted."""
SAVED_S = 1.0
"""Who saves a definition waits so long at most to be told what it names and nobody has."""
NOT_LOOKED = "It was not found out in time whether there is all that the definition names: a preview tells it."
ROWS_AT_FIRST = 100_000
"""The first sample has at most so many events: even dear definitions are evaluated over them in time."""
_GROWTH = 0.5
"""A sample of n times the people is taken to need at least this part of n times as long."""


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
            exact: Evaluate for everybody, however long that takes; of groups it always is.

        Raises:
            ApiError: INVALID_ARGUMENT with the place of the fault.
        """
        deadline = time.monotonic() + self._answer_s
        given = await read(source, "definition")
        source = given.source
        with given.placing():
            definition = await self._bound(workspace_id, given)
            if definition.references:
                check_known(source, await self._audiences.definitions(workspace_id), definition, "definition")
        known = await referenced(self._db, workspace_id, definition)
        async with self._reader.look(workspace_id) as events:
            at_us = now_us()
            query = partial(queries.preview, definition=definition, now_us=at_us, audiences=known, sample=sample_size)
            if exact or definition.of == "groups":  # a sample of people does not have all members of a group
                share, found = 1.0, await _evaluated(events, EVERYBODY, query)
            else:
                share, found = await self._in_time(events, query, deadline)
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

    async def compare(self, workspace_id: str, audience_id: str, source: str) -> tuple[Change, int]:
        """What a definition would do to the members of an audience now, and the clock of the evaluation.

        Raises:
            ApiError: INVALID_ARGUMENT with the place of the fault.
        """
        given = await read(source)
        with given.placing():
            definition = await self._bound(workspace_id, given)
        known = await referenced(self._db, workspace_id, definition)
        async with self._reader.open(workspace_id) as view:
            at_us = now_us()
            evaluate = partial(queries.evaluate, definition=definition, now_us=at_us, audiences=known)
            after = set(await view.run(evaluate))
        before = set(await stored_members(self._db, workspace_id, audience_id))
        return Change(len(after - before), len(before - after), len(before & after)), at_us

    async def _bound(self, workspace_id: str, given: Given) -> Definition:
        """A definition with the computed traits that it names."""
        definition = parse(given.source, given.field)
        computed = await self._computed_traits.named(workspace_id, given.source, definition, given.field)
        return bind(definition, parsed_computed(computed))

    async def _in_time(
        self, events: Events, query: partial[queries.Preview], deadline: float
    ) -> tuple[float, queries.Preview]:
        """The share of people, and what was found of them: the largest sample that can be had in time."""
        fitting = [s for s in range(len(SHARES)) if events.rows * SHARES[s] <= self._rows_at_first]
        sample = max(fitting, default=0)
        began = time.monotonic()
        best = await _evaluated(events, sample, query)
        took = time.monotonic() - began
        while sample < EVERYBODY:
            grows = SHARES[sample + 1] / SHARES[sample]
            left = deadline - time.monotonic()
            if took * grows * _GROWTH > left:
                break
            began = time.monotonic()
            try:
                async with asyncio.timeout(left):
                    best = await _evaluated(events, sample + 1, query)
            except TimeoutError:
                break
            took = time.monotonic() - began
            sample += 1
        return SHARES[sample], best


async def _evaluated(events: Events, sample: int, query: partial[queries.Preview]) -> queries.Preview:
    return await (await events.view(sample)).run(query)
