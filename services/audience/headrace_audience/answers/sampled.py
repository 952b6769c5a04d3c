"""Asks about a sample of a workspace's people, as large as can be had in time; of everybody where there are few.

Audiences that go by their stored members are read for the people of the sample only: they may have many more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

import duckdb

from headrace.storage.mongo.client import Database
from headrace_audience.archive.reader import Events, View
from headrace_audience.archive.samples import EVERYBODY, SHARES
from headrace_audience.batch.queries import Audiences
from headrace_audience.definitions.references import meanings, stored_members, stored_members_among
from headrace_audience.language.definition import Definition

T = TypeVar("T")

ROWS_AT_FIRST = 100_000
"""The first sample has at most so many events: even dear definitions are evaluated over them in time."""
MOST_LOOKED_UP = 50_000
"""Of more people all members of an audience are read at once, which takes less time than to look each person up."""
_GROWTH = 0.5
"""A sample of n times the people is taken to need at least this part of n times as long."""


class NamedMembers:
    """What the audiences mean that a definition names; of those that go by stored members for people of a sample."""

    def __init__(self, db: Database, workspace_id: str, definition: Definition) -> None:
        """Read of the database what a definition names."""
        self._db = db
        self._workspace_id = workspace_id
        self._definition = definition
        self._meanings: tuple[dict[str, Definition], dict[str, bool]] | None = None

    async def of(self, view: View) -> Audiences:
        """For the people of a view."""
        if self._meanings is None:
            self._meanings = await meanings(self._db, self._workspace_id, self._definition)
        computed, stored = self._meanings
        filled = [audience_id for audience_id, is_filled in stored.items() if is_filled]
        people = await view.run(people_of) if filled else ()
        return computed | {a: await members_among(self._db, self._workspace_id, a, people) for a in filled}


async def members_among(db: Database, workspace_id: str, audience_id: str, people: Collection[str]) -> list[str]:
    """The stored members of an audience among people, and perhaps others who are none of them."""
    if len(people) > MOST_LOOKED_UP:
        return await stored_members(db, workspace_id, audience_id)
    return await stored_members_among(db, workspace_id, audience_id, people)


def people_of(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """All people of the relation `events`."""
    return [row[0] for row in connection.execute("SELECT DISTINCT profile FROM events").fetchall()]


async def in_time(
    events: Events, ask: Callable[[View], Awaitable[T]], deadline: float, rows_at_first: int = ROWS_AT_FIRST
) -> tuple[float, T]:
    """Ask about the largest sample of people that can be had in time.

    Args:
        events: The workspace.
        ask: What is asked of a view.
        deadline: No larger sample is begun, by `time.monotonic`, that would not be done by then; the first one is asked
            whatever the time.
        rows_at_first: The first sample has at most so many events.

    Returns:
        The share of people that were asked, and the answer for them.
    """
    fitting = [s for s in range(len(SHARES)) if events.rows * SHARES[s] <= rows_at_first]
    sample = max(fitting, default=0)
    began = time.monotonic()
    best = await ask(await events.view(sample))
    took = time.monotonic() - began
    while sample < EVERYBODY:
        grows = SHARES[sample + 1] / SHARES[sample]
        left = deadline - time.monotonic()
        if took * grows * _GROWTH > left:
            break
        began = time.monotonic()
        try:
            async with asyncio.timeout(left):
                best = await ask(await events.view(sample + 1))
        except TimeoutError:
            break
        took = time.monotonic() - began
        sample += 1
    return SHARES[sample], best
