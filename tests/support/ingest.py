"""Helpers of the ingest tests: the whole service on real stores, its sources, and what it wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc
from headrace_ingest.bootstrap import open_service
from headrace_ingest.settings import Settings
from headrace_ingest.store import REJECTED_MESSAGES, SOURCE_MESSAGES

from headrace.api.common.v1.event_pb2 import Event, EventBatch
from headrace.api.ingest.v1 import source_service_pb2 as pb
from headrace.api.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from headrace.api.ingest.v1.source_service_pb2_grpc import SourceServiceStub
from headrace.rpc.channel import with_token
from headrace.service import Running
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document
from headrace.storage.streams import names
from headrace.storage.streams.client import Redis
from tests.support.settings import MakeSettings

WORKSPACE = "shop"
PARENT = f"workspaces/{WORKSPACE}"


@dataclass
class Ingest:
    """A running ingest service."""

    running: Running
    settings: Settings
    channel: grpc.aio.Channel
    http: aiohttp.ClientSession
    db: Database

    @property
    def url(self) -> str:
        return self.running.http_address

    @property
    def sources(self) -> Any:
        return SourceServiceStub(self.channel)

    @property
    def events(self) -> Any:
        return IngestServiceStub(self.channel)

    async def source(self, source_id: str = "web", kind: str = "http", **fields: Any) -> pb.Source:
        """Make a source."""
        source = pb.Source(display_name=source_id, kind=kind, **fields)
        request = pb.CreateSourceRequest(parent=PARENT, source_id=source_id, source=source)
        made: pb.Source = (await self.sources.CreateSource(request)).source
        return made

    async def post(
        self, path: str, body: Any, key: str = "", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Post a body (bytes as they are, anything else as JSON); returns status and answer."""
        sent = {**({"X-Write-Key": key} if key else {}), **(headers or {})}
        how: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.http.post(f"{self.url}{path}", headers=sent, **how) as answer:
            return answer.status, await answer.json()

    async def logged(self) -> list[Event]:
        """All events in the log, in order of segments."""
        return await logged_events(self.db)

    async def count(self) -> int:
        """Number of events in the log."""
        return sum([d["n"] async for d in self.db[log.SEGMENTS].find({}, {"n": 1})])

    async def rejected(self) -> list[Document]:
        """All refused messages, oldest first."""
        return [d async for d in self.db[REJECTED_MESSAGES].find().sort("_id", 1)]

    async def raw(self) -> list[Document]:
        """All raw messages, oldest first."""
        return [d async for d in self.db[SOURCE_MESSAGES].find().sort("_id", 1)]


@asynccontextmanager
async def ingest_serving(make_settings: MakeSettings, db: Database, **overrides: Any) -> AsyncIterator[Ingest]:
    """The service inside the block; sources are seen as they are at once."""
    settings = make_settings(Settings, **{"source_cache_seconds": 0, "sweep_seconds": 0.05, **overrides})
    async with open_service(settings) as running:
        token = settings.service_token.get_secret_value()
        async with with_token(running.grpc_address, token) as channel, aiohttp.ClientSession() as http:
            yield Ingest(running, settings, channel, http, db)


async def logged_events(db: Database) -> list[Event]:
    """All events in the log."""
    ids = [d["_id"] async for d in db[log.SEGMENTS].find({}, {"_id": 1}).sort("_id", 1)]
    return [event for _, batch in await log.read_segments(db, ids) for event in batch.events]


async def on_streams(redis: Redis, partitions: int = 8) -> list[EventBatch]:
    """All segments on the events streams."""
    found: list[EventBatch] = []
    for partition in range(partitions):
        entries: Any = await redis.xrange(names.events(partition))
        found += [EventBatch.FromString(fields[b"b"]) for _, fields in entries]
    return found
