"""Size and sample of a definition before it is saved, by the batch evaluator over archive and log."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database
from headrace_audience.answers.unknown import warnings
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.batch import queries
from headrace_audience.handlers import Audiences, as_json, check_known, parse
from headrace_audience.references import referenced


@dataclass(frozen=True)
class PreviewResult:
    """What a definition would give."""

    size: int
    sample: list[str]
    """Profile ids of some members."""
    at_us: int
    """The clock of the evaluation."""
    warnings: list[str]
    """What it names and nobody has, in sentences."""


class Preview:
    """Evaluates definitions that are not saved."""

    def __init__(self, db: Database, audiences: Audiences, reader: ArchiveReader) -> None:
        """Read members of named audiences from a database, and events through a reader."""
        self._db = db
        self._audiences = audiences
        self._reader = reader

    async def preview(self, workspace_id: str, source: str, sample_size: int) -> PreviewResult:
        """Evaluate a definition now.

        Raises:
            ApiError: INVALID_ARGUMENT with the place of the fault.
        """
        source = as_json(source, "definition")
        definition = parse(source, "definition")
        if definition.references:
            check_known(source, await self._audiences.definitions(workspace_id), definition, "definition")
        known = await referenced(self._db, workspace_id, definition)
        async with self._reader.open(workspace_id) as view:
            at_us = now_us()
            found = await view.run(lambda c: queries.preview(c, definition, at_us, audiences=known, sample=sample_size))
            unknown = await view.run(lambda c: warnings(c, definition))
        return PreviewResult(found.size, list(found.sample), at_us, unknown)
