"""IngestService: maps protobuf to the intake."""

# ruff: noqa: N802 - the methods are named by the proto
from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.rpc import status_pb2
from pymongo.errors import PyMongoError

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.ingest.v1 import ingest_service_pb2 as pb
from headrace.api.ingest.v1.ingest_service_pb2_grpc import IngestServiceServicer
from headrace.rpc import errors, names
from headrace.rpc.auth import authorize, authorize_name, current_caller
from headrace.rpc.scopes import EVENTS_WRITE
from headrace.telemetry.spans import current_traceparent, is_valid
from headrace_ingest.committer import NotWritten, QueueFull
from headrace_ingest.intake import Delivery, Intake, new_delivery
from headrace_ingest.refusal import Code, Refused
from headrace_ingest.sources import WEBHOOK, Source, SourceCache

MAX_IN_FLIGHT = 4
"""Batches of one stream that are in work at a time; the client's next ones wait in the transport."""


class IngestServicer(IngestServiceServicer):
    """Takes events over gRPC."""

    def __init__(self, intake: Intake, sources: SourceCache) -> None:
        """Serve from an intake."""
        self._intake = intake
        self._sources = sources

    async def IngestEvents(self, request: pb.IngestEventsRequest, context: Any) -> pb.IngestEventsResponse:
        """Accepts a batch of events, each on its own."""
        workspace_id, source_id = _whose(request.source)
        metadata = dict(context.invocation_metadata() or ())
        given = metadata.get("traceparent", "")
        traceparent = (current_traceparent() or given) if is_valid(given) else ""
        results = await self._ingest(workspace_id, source_id, request.events, traceparent)
        return pb.IngestEventsResponse(results=results)

    async def StreamEvents(
        self, request_iterator: AsyncIterator[pb.StreamEventsRequest], context: Any
    ) -> AsyncIterator[pb.StreamEventsResponse]:
        """Accepts batches on one stream and acknowledges each in order."""
        stream = _Stream(self, request_iterator)
        try:
            async for response in stream.responses():
                yield response
        finally:
            await stream.close()

    async def _ingest(
        self, workspace_id: str, source_id: str, events: Sequence[Event], traceparent: str = ""
    ) -> list[pb.EventResult]:
        limit = self._intake.limits.batch_messages
        if not 1 <= len(events) <= limit:
            raise errors.invalid_argument("events", f"must hold 1 to {limit} events")
        source = await self._source(workspace_id, source_id)
        delivery = new_delivery(source, traceparent=traceparent)
        message_ids = self._intake.read_events(delivery, events)
        try:
            await self._intake.commit(delivery)
        except QueueFull:
            raise errors.limit_exceeded("queue", "Too much is waiting: send this again later.", 1.0) from None
        except (NotWritten, PyMongoError):
            raise errors.unavailable(
                "The event log cannot be written at the moment: nothing was accepted, send this again later."
            ) from None
        return _results(message_ids, delivery)

    async def _source(self, workspace_id: str, source_id: str) -> Source:
        source = await self._sources.by_id(workspace_id, source_id)
        name = names.format(names.SOURCE, workspace_id, source_id)
        if source is None:
            raise errors.not_found(name)
        if source.disabled:
            raise errors.wrong_state("disabled", "The source is disabled.")
        if source.kind == WEBHOOK:
            raise errors.wrong_state("webhook", "A webhook source takes webhooks only.")
        return source


class _Stream:
    """One StreamEvents call: a few batches in work at a time, acknowledgements in order."""

    def __init__(self, servicer: IngestServicer, requests: AsyncIterator[pb.StreamEventsRequest]) -> None:
        self._servicer = servicer
        self._requests = requests
        self._work: deque[tuple[str, asyncio.Task[list[pb.EventResult]]]] = deque()
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._changed = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def responses(self) -> AsyncIterator[pb.StreamEventsResponse]:
        """Acknowledgements, each when its batch is durable and all before it are acknowledged."""
        while True:
            if not self._work:
                if self._reader.done():
                    self._reader.result()  # raises what ended the reading, if anything did
                    return
                self._changed.clear()
                await self._changed.wait()
                continue
            batch_id, task = self._work[0]
            results = await task
            self._work.popleft()
            self._slots.release()
            yield pb.StreamEventsResponse(batch_id=batch_id, results=results)

    async def close(self) -> None:
        """End what is still in work; batches that are not acknowledged are sent again by the client."""
        tasks: list[asyncio.Task[Any]] = [self._reader, *(task for _, task in self._work)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        whose: tuple[str, str] | None = None
        try:
            async for request in self._requests:
                if whose is None:
                    whose = _whose(request.source)
                if not request.batch_id:
                    raise errors.invalid_argument("batch_id", "must be given")
                await self._slots.acquire()
                work = self._servicer._ingest(*whose, request.events)
                self._work.append((request.batch_id, asyncio.create_task(work)))
                self._changed.set()
        finally:
            # After `done` is true: the event wakes the one who looks at it.
            asyncio.get_running_loop().call_soon(self._changed.set)


def _whose(name: str) -> tuple[str, str]:
    """Workspace and source of a call: of the write key, or of the name, for tokens with the scope."""
    caller = current_caller()
    if not name:
        if not caller.source_id or caller.workspace_id is None:
            raise errors.invalid_argument("source", "must be given, unless the credential is a write key")
        authorize(EVENTS_WRITE, caller.workspace_id)
        return caller.workspace_id, caller.source_id
    authorize_name(EVENTS_WRITE, name, "source")
    workspace_id, source_id = names.parse(names.SOURCE, name, "source")
    if caller.source_id and caller.source_id != source_id:
        raise errors.ApiError(
            grpc.StatusCode.PERMISSION_DENIED,
            errors.SCOPE_MISSING,
            "The write key is one of another source.",
            metadata={"scope": EVENTS_WRITE},
        )
    return workspace_id, source_id


def _results(message_ids: Sequence[str], delivery: Delivery) -> list[pb.EventResult]:
    results = [pb.EventResult(message_id=m, status=errors.OK) for m in message_ids]
    for item in delivery.items:
        results[item.place].status.CopyFrom(_status(item.refused))
    return results


def _status(refused: Refused) -> status_pb2.Status:
    if refused.code == Code.PERSON_ERASED:
        return errors.to_status(errors.person_erased(refused.reason))
    field = refused.field or "event"
    error = errors.ApiError(
        grpc.StatusCode.INVALID_ARGUMENT,
        errors.INVALID_ARGUMENT,
        refused.reason,
        metadata={"code": refused.code, "field": field},
        violations=[(field, refused.reason)],
    )
    return errors.to_status(error)
