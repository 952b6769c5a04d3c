"""Delivering: events that wait at a paused destination, from its release to the last answer, beside bare requests."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
from google.protobuf.field_mask_pb2 import FieldMask

from headrace.api.sync.v1 import destination_service_pb2 as sync_api
from headrace.api.sync.v1 import sync_service_pb2
from headrace.api.sync.v1.destination_service_pb2 import Destination, DestinationState
from headrace.api.sync.v1.destination_service_pb2_grpc import DestinationServiceStub
from headrace.api.sync.v1.sync_service_pb2_grpc import SyncServiceStub
from headrace.rpc.channel import with_token
from tests.benchmarks.line import BATCH, Receiver, Sender
from tests.benchmarks.results import Result
from tests.support.up import Up, platform_up

EVENTS = 6_000
SENDERS = 16


async def run() -> list[Result]:
    """All figures of this file."""
    receiver = Receiver()
    runner = await receiver.start()
    try:
        bare = await _bare(receiver.port)
        with tempfile.TemporaryDirectory() as folder:
            environment = {"HEADRACE_ALLOW_PRIVATE_DESTINATIONS": "true"}
            with platform_up(Path(folder), environment) as up:
                rates = {size: await _released(up, receiver.port, size) for size in (1, 100)}
    finally:
        await runner.cleanup()
    return [
        Result(
            name=f"forwarding to a webhook, {size} a request",
            value=rate,
            unit="events/s",
            baseline="bare aiohttp POST" if size == 1 else "",
            baseline_value=bare if size == 1 else 0.0,
        )
        for size, rate in rates.items()
    ]


async def _bare(port: int) -> float:
    """Requests a second of a bare client with as many senders as the connector may have."""
    body = json.dumps({"event": "Purchased", "properties": {"value": 1}, "padding": "x" * 900}).encode()
    done = 0
    async with aiohttp.ClientSession() as http:

        async def sender() -> None:
            nonlocal done
            for _ in range(EVENTS // SENDERS):
                async with http.post(f"http://127.0.0.1:{port}/hook", data=body) as answer:
                    assert answer.status == 200
                done += 1

        started = time.perf_counter()
        await asyncio.gather(*(sender() for _ in range(SENDERS)))
        return done / (time.perf_counter() - started)


async def _released(up: Up, port: int, size: int) -> float:
    name = f"hook-{size}"
    documents: list[dict[str, Any]] = [
        {
            "kind": "Destination",
            "id": name,
            "display_name": name,
            "connector": "webhook",
            "paused": True,
            "settings": {"url": f"http://127.0.0.1:{port}/hook", "batch_size": size},
        },
        {"kind": "Sync", "id": name, "display_name": name, "type": "forwarding", "destination": name},
    ]
    configuration = up.folder / f"{name}.yaml"
    configuration.write_text("\n---\n".join(map(json.dumps, documents)))
    applied = await asyncio.to_thread(up.headrace, "apply", "-f", str(configuration))
    assert applied.returncode == 0, applied.stderr
    parent = f"workspaces/{up.ready['workspace']}"
    async with with_token(up.ready["grpc"]["sync"], up.ready["api_token"]) as channel:
        syncs, destinations = SyncServiceStub(channel), DestinationServiceStub(channel)

        async def ledger() -> sync_service_pb2.GetLedgerResponse:
            return await syncs.GetLedger(sync_service_pb2.GetLedgerRequest(name=f"{parent}/syncs/{name}"))

        sender = Sender(up.ready["ingest_http"], up.ready["write_key"], serial=f"{name}-{os.getpid()}")
        await sender.send_number(EVENTS // BATCH)
        while (await ledger()).waiting < EVENTS:
            await asyncio.sleep(0.2)
        release = sync_api.UpdateDestinationRequest(
            destination=Destination(
                name=f"{parent}/destinations/{name}", state=DestinationState.DESTINATION_STATE_ACTIVE
            ),
            update_mask=FieldMask(paths=["state"]),
        )
        started = time.perf_counter()
        await destinations.UpdateDestination(release)
        while (await ledger()).delivered < EVENTS:
            await asyncio.sleep(0.1)
        return EVENTS / (time.perf_counter() - started)
