"""What ingest does with what it receives, whichever way it came: read, keep what is refused, commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import now_us
from headrace.storage.mongo.client import Document
from headrace.telemetry import spans
from headrace_ingest import metrics
from headrace_ingest.batches import Batch, message_id_in
from headrace_ingest.committer import Committer, Work
from headrace_ingest.events import as_json, check_event
from headrace_ingest.limits import MAX_MESSAGE_ID, Limits
from headrace_ingest.location import CountryOf
from headrace_ingest.mapping import Mapping, apply_mapping, records_of
from headrace_ingest.messages import Arrival, Scalar, read_message
from headrace_ingest.refusal import Code, Refused, person_erased
from headrace_ingest.sources import WEBSITE, Source
from headrace_ingest.store import raw_message_document, rejected_document
from headrace_ingest.webhook_bodies import read_body

MESSAGE = "message"
"""Form of a refused message that says its kind itself."""
BATCH = "batch"
"""Form of a refused body that should have been a batch."""
EVENT = "event"
"""Form of a refused event from gRPC, as JSON of protobuf."""
RECORD = "record"
"""Form of a refused part of a webhook's body, before the mapping."""
WEBHOOK = "webhook"
"""Form of a refused body of a webhook."""

_encode = msgspec.json.Encoder().encode


class Item(NamedTuple):
    """A message that was not accepted: its place, its id as far as it has one, and why."""

    place: int
    message_id: str
    refused: Refused


@dataclass(slots=True)
class Delivery:
    """What one request brings, while it is read."""

    source: Source
    received_at_us: int
    traceparent: str = ""
    content_type: str = ""
    country: str = ""
    """Country of the request's own address, for messages that say no address; "" for none."""
    events: list[Event] = field(default_factory=list)
    raw: list[Document] = field(default_factory=list)
    rejected: list[Document] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)

    @property
    def codes(self) -> Iterable[str]:
        """Why messages were refused."""
        return (item.refused.code for item in self.items)


class Intake:
    """Reads what comes and makes it durable."""

    def __init__(
        self,
        committer: Committer,
        *,
        limits: Limits,
        raw_message_days: float,
        rejected_body_bytes: int,
        is_erased: Callable[[Event], bool] = lambda _: False,
        speaks_of_erased: Callable[[str, bytes], bool] = lambda _, __: False,
        country_of: CountryOf | None = None,
    ) -> None:
        """Commit to a log.

        Args:
            committer: Group commit.
            limits: What one message and one batch may be.
            raw_message_days: How long raw and refused messages are kept, in days.
            rejected_body_bytes: How much of a refused body is kept, in bytes.
            is_erased: Whether an event's person was deleted or suppressed.
            speaks_of_erased: Whether a body in a workspace speaks of such a person, so that it is not kept.
            country_of: Finds the country of an IP address; None: no country is looked for.
        """
        self.country_of = country_of
        self._speaks_of_erased = speaks_of_erased
        self._is_erased = is_erased
        self._committer = committer
        self.limits = limits
        self._keep = timedelta(days=raw_message_days)
        self._rejected_body_bytes = rejected_body_bytes

    def read_one(self, delivery: Delivery, kind: str, body: bytes) -> None:
        """Read one message whose kind is in the path."""
        self._read(delivery, 0, body, arrival_of(delivery, self.country_of, kind=kind), kind)

    def read_batch(self, delivery: Delivery, batch: Batch) -> None:
        """Read the messages of a batch, each on its own."""
        arrival = arrival_of(delivery, self.country_of, sent_at=batch.sent_at, context=batch.context)
        for index, message in enumerate(batch.messages):
            self._read(delivery, index, message, arrival, MESSAGE)

    def read_events(self, delivery: Delivery, events: Sequence[Event]) -> list[str]:
        """Check events from gRPC, each on its own; returns the message id of each, the given or the made one."""
        arrival = arrival_of(delivery, self.country_of)
        message_ids = []
        for index, given in enumerate(events):
            try:
                event = check_event(given, arrival, self.limits)
            except Refused as refused:
                message_id = given.message_id[:MAX_MESSAGE_ID]
                self.refuse(delivery, refused, as_json(given), form=EVENT, index=index, message_id=message_id)
                message_ids.append(message_id)
            else:
                self._take(delivery, index, event)
                message_ids.append(event.message_id)
        return message_ids

    def read_webhook(self, delivery: Delivery, body: bytes, repeat_id: str) -> None:
        """Store a webhook's body and map it to events.

        Args:
            delivery: Collects what comes of it.
            body: As it came, unpacked.
            repeat_id: The sender's own id of this delivery, "" for none.

        Raises:
            Refused: The body is none of the forms that are taken.
        """
        source = delivery.source
        values = read_body(body, delivery.content_type, self.limits.depth, self.limits.batch_messages)
        raw_id = new_time_ordered_id()
        base = own_message_id(source.id, repeat_id) if repeat_id else raw_id
        if source.mapping is not None:
            records = [record for value in values for record in records_of(source.mapping, value)]
            if len(records) > self.limits.batch_messages:
                raise Refused(Code.BATCH_TOO_LONG, f"A body has at most {self.limits.batch_messages} messages.")
            for index, record in enumerate(records):
                message_id = base if len(records) == 1 else f"{base}-{index}"
                self._read_record(delivery, source.mapping, index, record, message_id)
        erased = any(code == Code.PERSON_ERASED for code in delivery.codes)
        if erased or self._speaks_of_erased(source.workspace_id, body):
            return  # the body speaks of somebody who is to be forgotten; the events of the others are taken
        delivery.raw.append(
            raw_message_document(
                id=raw_id,
                workspace_id=source.workspace_id,
                source_id=source.id,
                received_at_us=delivery.received_at_us,
                body=body,
                content_type=delivery.content_type[:200],
                message_ids=[event.message_id for event in delivery.events],
                expires=self._expires(),
            )
        )

    def refuse(
        self,
        delivery: Delivery,
        refused: Refused,
        body: bytes,
        *,
        form: str,
        index: int = 0,
        message_id: str = "",
        sent_at: Scalar = None,
    ) -> None:
        """Keep a message that is refused, with the reason, unless it speaks of somebody who is to be forgotten."""
        delivery.items.append(Item(index, message_id, refused))
        if self._speaks_of_erased(delivery.source.workspace_id, body):
            return
        delivery.rejected.append(
            rejected_document(
                workspace_id=delivery.source.workspace_id,
                source_id=delivery.source.id,
                received_at_us=delivery.received_at_us,
                code=refused.code,
                reason=refused.reason,
                field=refused.field,
                message_id=message_id,
                body=body,
                max_body=self._rejected_body_bytes,
                form=form,
                sent_at=sent_at,
                content_type=delivery.content_type[:200],
                traceparent=delivery.traceparent,
                country=delivery.country,
                expires=self._expires(),
            )
        )

    async def commit(self, delivery: Delivery) -> None:
        """Make everything of a delivery durable.

        Raises:
            QueueFull: Too much waits: nothing was written.
            NotWritten: The store did not say that all is written: nothing may be acknowledged.
        """
        if not delivery.traceparent and spans.tracing():
            # Each event has a trace of its own; what brought them is linked.
            traced = spans.event_spans("ingest.accept", [event.traceparent for event in delivery.events])
            for event, traceparent in zip(delivery.events, traced, strict=True):
                event.traceparent = traceparent
        await self._committer.commit(Work(delivery.events, delivery.raw, delivery.rejected))
        for code in delivery.codes:
            metrics.tally.rejected(code)

    def _read(self, delivery: Delivery, index: int, body: bytes, arrival: Arrival, form: str) -> None:
        try:
            event = read_message(body, arrival, self.limits)
        except Refused as refused:
            message_id = message_id_in(body)
            sent_at = arrival.sent_at
            self.refuse(delivery, refused, body, form=form, index=index, message_id=message_id, sent_at=sent_at)
        else:
            self._take(delivery, index, event)

    def _take(self, delivery: Delivery, index: int, event: Event) -> None:
        """Take an event, unless its person was deleted or suppressed: then nothing of it is kept."""
        if self._is_erased(event):
            delivery.items.append(Item(index, event.message_id, person_erased()))
        else:
            delivery.events.append(event)

    def _read_record(self, delivery: Delivery, mapping: Mapping, index: int, record: object, message_id: str) -> None:
        try:
            event = map_record(record, mapping, delivery, message_id, self.limits)
        except Refused as refused:
            self.refuse(delivery, refused, _encode(record), form=RECORD, index=index, message_id=message_id)
        else:
            if event is not None:
                self._take(delivery, index, event)

    def _expires(self) -> datetime:
        return datetime.now(UTC) + self._keep


def arrival_of(
    delivery: Delivery,
    country_of: CountryOf | None,
    *,
    kind: str = "",
    sent_at: Scalar = None,
    context: dict[str, Any] | None = None,
    message_id: str = "",
) -> Arrival:
    """How the messages of a delivery came."""
    source = delivery.source
    return Arrival(
        source.workspace_id,
        source.id,
        delivery.received_at_us,
        kind=kind,
        sent_at=sent_at,
        context=context,
        traceparent=delivery.traceparent,
        message_id=message_id,
        country_of=country_of,
        country=delivery.country,
        online=source.kind == WEBSITE,
    )


def map_record(record: object, mapping: Mapping, delivery: Delivery, message_id: str, limits: Limits) -> Event | None:
    """The event that a part of a webhook's body becomes; None when the mapping says that it becomes none.

    Raises:
        Refused: The mapping does not fit, or what it gives is no event.
    """
    message = apply_mapping(mapping, record)
    if message is None:
        return None
    own = message.pop("messageId", None)
    own_id = message_id if own in (None, "") else own_message_id(delivery.source.id, str(own))
    # A webhook is sent by a server, and what it becomes has no address.
    return read_message(_encode(message), arrival_of(delivery, None, message_id=own_id), limits)


def own_message_id(source_id: str, given: str) -> str:
    """A message id from an id that is unique only in its source."""
    plain = f"{source_id}:{given}"
    if len(plain) <= MAX_MESSAGE_ID and plain.isprintable():
        return plain
    return f"{source_id[:60]}:{blake2b(given.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"


def new_delivery(source: Source, traceparent: str = "", content_type: str = "") -> Delivery:
    """A delivery that arrives now."""
    return Delivery(source, now_us(), traceparent, content_type)
