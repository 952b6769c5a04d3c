"""MongoDB dead, hanging or with a full disk: 503, nothing acknowledged that is not durable, and all goes on after."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import time

import grpc
import pytest

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.api.ingest.v1 import ingest_service_pb2 as pb
from headrace.embedded.stores import EmbeddedStores
from headrace.rpc import errors
from headrace.storage.mongo.client import Database
from tests.support.ingest import Ingest, ingest_serving
from tests.support.settings import MakeSettings


async def _send(ingest: Ingest, key: str, message_id: str) -> int:
    body = json.dumps({"userId": "u", "event": "A", "messageId": message_id}).encode()
    headers = {"X-Write-Key": key}
    async with ingest.http.post(f"{ingest.url}/v1/track", data=body, headers=headers) as answer:
        if answer.status == 503:
            assert int(answer.headers["Retry-After"]) >= 1
            assert (await answer.json())["code"] == "unavailable"
        return answer.status


async def _until_taken(ingest: Ingest, key: str, message_id: str) -> None:
    deadline = time.monotonic() + 40
    while await _send(ingest, key, message_id) != 200:
        assert time.monotonic() < deadline, "it did not recover"
        await asyncio.sleep(0.2)


async def test_a_dead_mongod(make_settings: MakeSettings, db: Database, stores: EmbeddedStores) -> None:
    async with ingest_serving(make_settings, db, commit_timeout_seconds=1, source_cache_seconds=60) as ingest:
        source = await ingest.source()
        acknowledged = [f"before{n}" for n in range(5)]
        assert [await _send(ingest, source.write_key, m) for m in acknowledged] == [200] * 5
        stores.kill_mongod()
        try:
            statuses = await asyncio.gather(*(_send(ingest, source.write_key, f"down{n}") for n in range(5)))
            assert statuses == [503] * 5
            event = Event(kind=EventKind.EVENT_KIND_TRACK, name="A")
            event.identifiers.append(Identifier(namespace="user_id", value="u"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ingest.events.IngestEvents(pb.IngestEventsRequest(source=source.name, events=[event]))
            assert errors.reason_of(caught.value) == "STORE_UNAVAILABLE"
            status, answer = await ingest.post("/v1/track", {"userId": "u"}, source.write_key)
            assert (status, answer["code"]) == (503, "unavailable"), "what cannot be kept is not refused"
            status, _ = await ingest.post("/v1/track", {"userId": "u", "event": "A"}, "wk_" + "x" * 32)
            assert status == 503, "whether a key is known cannot be told now"
            async with ingest.http.get(f"{ingest.url}/healthz") as alive:
                assert alive.status == 200
        finally:
            stores.restart_mongod()
        await _until_taken(ingest, source.write_key, "after")
        logged = [e.message_id for e in await ingest.logged()]
        assert {*acknowledged, "after"} <= set(logged)
        assert not [m for m in logged if m.startswith("down")]


async def test_a_mongod_that_hangs(make_settings: MakeSettings, db: Database, stores: EmbeddedStores) -> None:
    async with ingest_serving(make_settings, db, commit_timeout_seconds=1, source_cache_seconds=60) as ingest:
        source = await ingest.source()
        assert await _send(ingest, source.write_key, "before") == 200
        assert stores.mongod is not None
        os.kill(stores.mongod.pid, signal.SIGSTOP)
        try:
            assert await _send(ingest, source.write_key, "unknown") == 503
            deadline = time.monotonic() + 20
            while True:
                async with ingest.http.get(f"{ingest.url}/readyz") as answer:
                    if answer.status == 503:
                        break
                assert time.monotonic() < deadline, "it still calls itself ready"
                await asyncio.sleep(0.1)
        finally:
            os.kill(stores.mongod.pid, signal.SIGCONT)
        # The outcome was unknown: sending it again is what a client does, and has effect once by its message id.
        await _until_taken(ingest, source.write_key, "unknown")
        assert {e.message_id for e in await ingest.logged()} == {"before", "unknown"}


async def test_a_full_disk(make_settings: MakeSettings, db: Database, stores: EmbeddedStores) -> None:
    """The kernel refuses mongod's writes beyond a size, as a full disk does."""
    async with ingest_serving(make_settings, db, commit_timeout_seconds=1, source_cache_seconds=60) as ingest:
        source = await ingest.source()
        assert await _send(ingest, source.write_key, "before") == 200
        assert stores.mongod is not None
        resource.prlimit(stores.mongod.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        try:
            for number in range(3):
                assert await _send(ingest, source.write_key, f"full{number}") == 503
        finally:
            stores.kill_mongod()
            stores.restart_mongod()
        await _until_taken(ingest, source.write_key, "after")
        assert {"before", "after"} <= {e.message_id for e in await ingest.logged()}
