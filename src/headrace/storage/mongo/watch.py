"""Whether MongoDB answers: what readiness follows."""

from __future__ import annotations

import asyncio

from pymongo.errors import PyMongoError

from headrace.storage.mongo.client import Client
from headrace.telemetry.logs import get_logger

log = get_logger(__name__)


class StoreWatch:
    """Asks MongoDB again and again; `reachable` says whether it answered when it was last asked."""

    def __init__(self, client: Client, every_s: float = 1.0) -> None:
        """Ask through a client.

        Args:
            client: Client of MongoDB.
            every_s: Pause between two questions, in seconds; an answer may take twice that.
        """
        self._client = client
        self._every_s = every_s
        self.reachable = False

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Ask once; never raises for the store."""
        try:
            async with asyncio.timeout(2 * self._every_s):
                await self._client.admin.command("ping")
        except (PyMongoError, TimeoutError) as error:
            if self.reachable:
                log.warning("MongoDB cannot be reached: not ready", failure=error)
            self.reachable = False
        else:
            self.reachable = True
