"""Compares the live members of an audience with the batch evaluator, and has repaired what differs.

The live state moves while it is compared: an event may be in the log and not yet folded, a window may pass between the
two looks. So profiles that differ are looked at again, some moments later, and only those that differ each time are
suspected; and of these only those count that still differ when the owners of their partitions have folded all that the
comparison saw (see `repairs`).
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass

from headrace.domain.times import now_us
from headrace.rpc.errors import wrong_state
from headrace.storage.mongo.client import Database, Document
from headrace.telemetry import metrics
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.batch import queries
from headrace_audience.calls.handlers import Audiences
from headrace_audience.checks.repairs import Repairs
from headrace_audience.checks.verify_batch import BatchVerifier
from headrace_audience.definitions.references import referenced, stored_members
from headrace_audience.definitions.unreadable import understood
from headrace_audience.language.definition import Definition
from headrace_audience.store import ACTIVE

ROUNDS = 3
PAUSE_S = 0.5

_mismatches = metrics.counter(
    "headrace_audience_mismatches",
    "Memberships that differed from the batch evaluator, whoever compared them.",
    without_labels=True,
)


@dataclass(frozen=True)
class Comparison:
    """The outcome."""

    live_size: int
    batch_size: int
    mismatched: list[str]
    """Profile ids on which the two differ, sorted; when they were repaired: on which they differed."""
    at_us: int
    """The clock of the first comparison."""
    corrected: int = 0
    """Memberships of these profiles, in whichever audience, that were corrected."""
    unanswered: int = 0
    """So many of the profiles may be behind only, or are still to be repaired: their owner has not answered in time."""


@dataclass
class _Difference:
    """Who is in by one and not by the other."""

    at_us: int
    batch_size: int
    only_live: set[str]
    only_batch: set[str]

    @property
    def profiles(self) -> set[str]:
        """All of them."""
        return self.only_live | self.only_batch

    def keep(self, other: _Difference) -> None:
        """Keep who differs in the same way in another comparison too."""
        self.only_live &= other.only_live
        self.only_batch &= other.only_batch


class Verifier:
    """Checks audiences."""

    def __init__(
        self,
        db: Database,
        audiences: Audiences,
        reader: ArchiveReader,
        repairs: Repairs,
        batch: BatchVerifier,
        *,
        rounds: int = ROUNDS,
        pause_s: float = PAUSE_S,
    ) -> None:
        """Check against a reader's events.

        Args:
            db: Database.
            audiences: The audiences.
            reader: Archive and log.
            repairs: Asks the owners of partitions.
            batch: Checks audiences whose members are computed for a moment.
            rounds: How often a difference must be seen before the owners are asked; at least twice.
            pause_s: Time between two looks, in seconds.
        """
        self._db = db
        self._audiences = audiences
        self._reader = reader
        self._repairs = repairs
        self._batch = batch
        self._rounds = rounds
        self._pause_s = pause_s

    async def verify(self, workspace_id: str, audience_id: str, *, repair: bool = False) -> Comparison:
        """Compare at one instant; with `repair` what differs is made right.

        Raises:
            ApiError: NOT_FOUND, or WRONG_STATE for one that is not active or cannot be read; one that gets another
                definition or state while it is compared; or a batch audience that is being computed, or goes by stored
                members of others.
        """
        document = await self._audiences.get(workspace_id, audience_id)
        definition = understood(document)
        if document["state"] != ACTIVE:
            raise wrong_state(document["state"], "Only an active audience can be verified.")
        if definition.is_batch:
            return await self._verify_batch(document, definition, repair=repair)
        found = await self._compare(workspace_id, audience_id, definition)
        at_us, last_us = found.at_us, found.at_us
        for _ in range(self._rounds - 1):
            if not found.profiles:
                break
            await asyncio.sleep(self._pause_s)
            again = await self._compare(workspace_id, audience_id, definition)
            found.keep(again)
            last_us = again.at_us
        corrected = unanswered = 0
        if found.profiles:
            await self._check_unchanged(document)
            suspected = sorted(found.profiles)
            outcome = await self._repairs.ask(workspace_id, audience_id, suspected, last_us, repair=repair)
            corrected, unanswered = outcome.corrected, len(outcome.unanswered)
            if repair:
                confirmed = outcome.wrong | outcome.unanswered
                found.only_live &= confirmed
                found.only_batch &= confirmed
            else:
                found.keep(await self._compare(workspace_id, audience_id, definition))
                await self._check_unchanged(document)
            _mismatches.add(len(found.profiles - outcome.unanswered))
        return Comparison(
            live_size=found.batch_size + len(found.only_live) - len(found.only_batch),
            batch_size=found.batch_size,
            mismatched=sorted(found.profiles),
            at_us=at_us,
            corrected=corrected,
            unanswered=unanswered,
        )

    async def _verify_batch(self, document: Document, definition: Definition, *, repair: bool) -> Comparison:
        """Compare one whose members are computed for a moment, as of that moment."""
        found = await self._batch.compare(document, definition)
        await self._check_unchanged(document)
        mismatched = found.members
        corrected: int | None = 0
        if mismatched:
            _mismatches.add(len(mismatched))
        if mismatched and repair:
            corrected = await self._batch.repair(document)
        return Comparison(
            live_size=found.batch_size + len(found.only_stored) - len(found.only_batch),
            batch_size=found.batch_size,
            mismatched=mismatched,
            at_us=found.at_us,
            corrected=corrected or 0,
            unanswered=len(mismatched) if corrected is None else 0,
        )

    async def _check_unchanged(self, document: Document) -> None:
        """Refuse to call it a mismatch that the members follow another definition than the one that was compared."""
        present = await self._audiences.get(document["w"], document["a"])
        if present["gen"] != document["gen"]:
            raise wrong_state(present["state"], "The audience was changed while it was compared: verify it again.")

    async def _compare(self, workspace_id: str, audience_id: str, definition: Definition) -> _Difference:
        known = await referenced(self._db, workspace_id, definition)
        async with self._reader.open(workspace_id) as view:
            at_us = now_us()
            evaluate = functools.partial(queries.evaluate, definition=definition, now_us=at_us, audiences=known)
            batch = set(await view.run(evaluate))
        live = set(await stored_members(self._db, workspace_id, audience_id))
        return _Difference(at_us, len(batch), live - batch, batch - live)
