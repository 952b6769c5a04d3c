"""Audiences follow the definitions of the computed traits that they name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import grpc

from headrace.domain.definitions import DefinitionError
from headrace.rpc.errors import ApiError
from headrace.storage.mongo.client import Database, Document
from headrace.telemetry import logs
from headrace_audience.calls.handlers import Audiences
from headrace_audience.definitions.computed_traits import ComputedTraits
from headrace_audience.store import AUDIENCES, COMPUTED

log = logs.get_logger(__name__)


class ComputedFollower:
    """Lets audiences have a new version when a computed trait that they name computes something else, or is gone.

    Every replica looks; a change that one of them made to a document is not made again. Static audiences stay as they
    were computed, and whatever is not computed is read anew when it is activated.
    """

    def __init__(self, db: Database, traits: ComputedTraits, audiences: Audiences, every_s: float) -> None:
        """Look every so many seconds."""
        self._audiences_of = db[AUDIENCES]
        self._traits = traits
        self._audiences = audiences
        self._every_s = every_s
        self._away = False

    async def run(self) -> None:
        """Look until cancelled. While identity is away what was known last holds."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
                self._away = False
            except ApiError as error:
                if not self._away:
                    log.warning("computed traits cannot be read", reason=error.reason)
                self._away = True

    async def look(self) -> None:
        """Bring all audiences up to date once. Raises ApiError UNAVAILABLE when identity cannot be reached."""
        named = {"$or": [{"traits.0": {"$exists": True}}, {"pending.traits.0": {"$exists": True}}]}
        of_workspace: dict[str, list[Document]] = {}
        async for document in self._audiences_of.find({**named, "state": {"$in": list(COMPUTED)}}):
            of_workspace.setdefault(document["w"], []).append(document)
        for workspace_id, documents in of_workspace.items():
            try:
                known = await self._traits.all(workspace_id)
            except grpc.aio.AioRpcError as error:
                # What is wrong with one workspace is nothing to the others.
                log.warning("computed traits cannot be read", workspace=workspace_id, code=error.code().name)
                continue
            for document in documents:
                await self._follow(document, known)

    async def _follow(self, document: Document, known: Mapping[str, str]) -> None:
        try:
            await self._audiences.follow(document, known)
        except DefinitionError as error:
            # It was checked when it was saved: an older program reads what a newer one wrote.
            log.warning("a stored definition cannot be read", audience=document["a"], place=error.path)
