"""Accepting events: ingest alone, at its HTTP port and over gRPC, beside a bare echo of the same bytes."""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.api.ingest.v1 import ingest_service_pb2 as ingest_api
from headrace.api.ingest.v1 import source_service_pb2 as source_api
from headrace.api.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from headrace.api.ingest.v1.source_service_pb2_grpc import SourceServiceStub
from headrace.rpc.channel import connect, with_token
from tests.benchmarks.alone import services_alone
from tests.benchmarks.bare import asgi_echo, grpc_echo, mongo_inserts_per_second
from tests.benchmarks.http_load import LoadResult, load, post
from tests.benchmarks.results import Result

SECONDS = 6.0
BATCH = 100
CONNECTIONS = 64
PROPERTIES = {
    "product_id": "P-100", "product_name": "Trail shoe, waterproof, ankle high", "category": "Shoes / Outdoor / Trail",
    "value": 89.0, "currency": "EUR", "quantity": 1, "coupon": "SPRING-2026", "variant": "42 / anthracite / regular",
}  # fmt: skip
CONTEXT = {
    "ip": "203.0.113.9", "locale": "de-DE", "userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0",
    "page": {"url": "https://shop.example/p/trail-shoe", "title": "Trail shoe", "referrer": "https://shop.example/"},
    "campaign": {"source": "newsletter", "medium": "email", "name": "spring"},
}  # fmt: skip


def message(number: int) -> dict[str, object]:
    """A message of about 950 bytes, as a shop sends it."""
    return {
        "type": "track",
        "messageId": f"bench-{number:012d}-{'x' * 16}",
        "anonymousId": f"browser-{number % 20_000:08d}",
        "event": "Product viewed",
        "timestamp": "2026-11-01T12:00:00.000Z",
        "properties": PROPERTIES,
        "context": CONTEXT,
    }


def event(number: int) -> Event:
    """The same as a protobuf message."""
    return Event(
        message_id=f"bench-{number:012d}-{'x' * 16}",
        kind=EventKind.EVENT_KIND_TRACK,
        name="Product viewed",
        identifiers=[Identifier(namespace="anonymous_id", value=f"browser-{number % 20_000:08d}")],
        properties=json.dumps(PROPERTIES).encode(),
        context=json.dumps(CONTEXT).encode(),
        original_timestamp_us=1_793_534_400_000_000,
    )


async def run() -> list[Result]:
    """All figures of this file."""
    with tempfile.TemporaryDirectory() as folder, services_alone(Path(folder), ["ingest"]) as alone:
        async with connect(alone.grpc["ingest"], alone.settings) as channel:
            request = source_api.CreateSourceRequest(
                parent="workspaces/bench",
                source_id="bench",
                source=source_api.Source(display_name="Benchmark", kind="http"),
            )
            key = (await SourceServiceStub(channel).CreateSource(request)).source.write_key
        numbers = itertools.count()
        single = _requests("/v1/track", key, numbers, 1)
        batch = _requests("/v1/batch", key, numbers, BATCH)
        memory = alone.resident_mib("ingest")
        with asgi_echo() as echo:
            bare_single = await _greatest(echo, single)
            bare_batch = await _greatest(echo, batch)
        found_single = await _greatest(alone.http_port, single)
        # At half of the greatest load: each connection pauses as long as it is answered.
        pause_s = CONNECTIONS / found_single.per_second
        half = await load(alone.http_port, single, connections=CONNECTIONS, seconds=SECONDS, pause_s=pause_s)
        found_batch = await _greatest(alone.http_port, batch)
        with grpc_echo() as port:
            bare_grpc = await _grpc_load(f"127.0.0.1:{port}", key, numbers)
        found_grpc = await _grpc_load(alone.grpc["ingest"], key, numbers)
        bare_mongo = mongo_inserts_per_second(alone.stores.mongo_url, 600, seconds=3)
        return [
            Result(name="accept, HTTP, single messages", value=found_single.per_second, unit="events/s",
                   baseline="bare ASGI echo", baseline_value=bare_single.per_second, target=0.40,
                   note=_latency(found_single)),
            Result(name="accept, HTTP, single, at half load: p99", value=half.percentile_ms(0.99), unit="ms", target=25,
                   lower_is_better=True, note=f"{half.per_second:,.0f} events/s, {_latency(half)}"),
            Result(name="accept, HTTP, batches of 100", value=found_batch.per_second * BATCH, unit="events/s",
                   baseline="bare ASGI echo", baseline_value=bare_batch.per_second * BATCH, target=0.25,
                   note=_latency(found_batch)),
            Result(name="accept, gRPC, batches of 100", value=found_grpc.per_second * BATCH, unit="events/s",
                   baseline="bare gRPC echo", baseline_value=bare_grpc.per_second * BATCH, target=0.30,
                   note=_latency(found_grpc)),
            Result(name="accept, HTTP, batches of 100", value=found_batch.per_second * BATCH, unit="events/s",
                   baseline="bare MongoDB insert", baseline_value=bare_mongo),
            Result(name="memory of ingest at start", value=memory, unit="MiB", target=250, lower_is_better=True),
        ]  # fmt: skip


def _requests(path: str, key: str, numbers: itertools.count[int], size: int) -> Callable[[], bytes]:
    """Gives requests whose message ids are new each time: only the ids are replaced in a prepared body."""
    messages = [message(n) for n in range(size)]
    body = json.dumps({"batch": messages} if size > 1 else messages[0]).encode()
    pieces = body.split(b"bench-")
    headers = {"X-Write-Key": key}

    def next_request() -> bytes:
        filled = pieces[0] + b"".join(b"bench-%012d" % next(numbers) + piece[12:] for piece in pieces[1:])
        return post(path, "127.0.0.1", filled, headers)

    return next_request


async def _greatest(port: int, next_request: Callable[[], bytes]) -> LoadResult:
    await load(port, next_request, connections=CONNECTIONS, seconds=1)
    found = await load(port, next_request, connections=CONNECTIONS, seconds=SECONDS)
    assert found.statuses.keys() <= {200, 429, 503}, found.statuses
    return found


def _latency(found: LoadResult) -> str:
    refused = found.requests - found.statuses.get(200, 0)
    text = f"p50 {found.percentile_ms(0.5):.1f} ms, p99 {found.percentile_ms(0.99):.1f} ms"
    return f"{text}, {refused} asked to wait" if refused else text


async def _grpc_load(address: str, key: str, numbers: itertools.count[int]) -> LoadResult:
    """Unary calls of 100 events from 16 callers."""
    prepared = [event(n) for n in range(BATCH)]
    result = LoadResult()
    async with with_token(address, key) as channel:
        stub = IngestServiceStub(channel)
        end = time.perf_counter() + SECONDS

        async def caller() -> None:
            while time.perf_counter() < end:
                for one in prepared:
                    one.message_id = f"bench-{next(numbers):012d}-{'x' * 16}"
                called = time.perf_counter()
                try:
                    answer = await stub.IngestEvents(ingest_api.IngestEventsRequest(events=prepared))
                except grpc.aio.AioRpcError as error:
                    if error.code() not in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}:
                        raise
                    await asyncio.sleep(0.1)
                    continue
                assert all(result.status.code == 0 for result in answer.results)
                result.requests += 1
                result.statuses[200] = result.requests
                result.latencies_s.append(time.perf_counter() - called)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(16)))
        result.seconds = time.perf_counter() - started
        return result
