"""Refused messages: read again what was refused, repaired or after its source's mapping was corrected."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.api.common.v1.event_pb2 import Event
from headrace.storage.mongo.client import Document
from headrace_ingest.batches import read_batch
from headrace_ingest.events import check_event, from_json
from headrace_ingest.http_requests import Bodies
from headrace_ingest.intake import BATCH, EVENT, MESSAGE, RECORD, WEBHOOK, Delivery, arrival_of, map_record
from headrace_ingest.lenient import clean_text, read
from headrace_ingest.limits import Limits
from headrace_ingest.location import CountryOf
from headrace_ingest.mapping import Mapping, records_of
from headrace_ingest.messages import KINDS, read_message
from headrace_ingest.refusal import Code, Refused
from headrace_ingest.sources import Source
from headrace_ingest.webhook_bodies import read_body

_encode = msgspec.json.Encoder().encode


def read_again(
    document: Document, body: bytes, source: Source, limits: Limits, country_of: CountryOf | None = None
) -> list[Event]:
    """Make events of a refused message, as if it came when it first came.

    What has no message id of its own gets one that is derived from the record, so that repairing it twice, or again
    after a crash, has effect once.

    Args:
        document: The record, in its stored form.
        body: Its body, repaired or as it came.
        source: Its source, as it is now.
        limits: Sizes that are allowed.
        country_of: Finds the country of a message's IP address; None: no country is looked for.

    Raises:
        Refused: It still cannot be accepted.
    """
    form = document["form"]
    delivery = Delivery(source, document["t"], document["tp"], document["c"], country=document.get("co", ""))
    own_id = document["m"] or f"repaired-{document['_id']}"
    kind = form if form in KINDS else ""
    arrival = arrival_of(delivery, country_of, kind=kind, sent_at=document["sent"], message_id=own_id)
    if form in KINDS or form == MESSAGE:
        return [read_message(body, arrival, limits)]
    if form == EVENT:
        return [check_event(from_json(body), arrival, limits)]
    if form == BATCH:
        batch = read_batch(body, limits)
        return [
            read_message(
                message,
                arrival_of(
                    delivery,
                    country_of,
                    sent_at=batch.sent_at,
                    context=batch.context,
                    message_id=f"{own_id}-{place}",
                ),
                limits,
            )
            for place, message in enumerate(batch.messages)
        ]
    if source.mapping is None:
        raise Refused(Code.MAPPING_FAILED, "The source has no mapping.", "mapping")
    if form == RECORD:
        value = clean_text(read(body, limits.depth)[0], [])
        return _mapped([value], source.mapping, delivery, own_id, limits)
    assert form == WEBHOOK, f"a refused message of the unknown form {form}"
    values = read_body(body, document["c"], limits.depth, limits.batch_messages)
    records = [record for value in values for record in records_of(source.mapping, value)]
    return _mapped(records, source.mapping, delivery, own_id, limits)


def unpacked(document: Document, limits: Limits) -> bytes:
    """The body of a refused message as it came.

    Raises:
        Refused: Only its beginning was kept.
    """
    if document["n"] > len(document["b"]) or document["code"] == Code.BATCH_TOO_LARGE:
        raise Refused(Code.BATCH_TOO_LARGE, "Only the beginning of the message was kept: give a body.", "body")
    body = bytes(document["b"])
    if body.startswith(b"\x1f\x8b"):  # kept as it came, packed; no JSON begins so
        bodies = Bodies(limit=limits.batch_bytes, seconds=1, in_work_max=0)
        return bodies.unpack(body, b"gzip")
    return body


def _mapped(records: Sequence[object], mapping: Mapping, delivery: Delivery, base: str, limits: Limits) -> list[Event]:
    events = []
    for place, record in enumerate(records):
        message_id = base if len(records) == 1 else f"{base}-{place}"
        event = map_record(record, mapping, delivery, message_id, limits)
        if event is not None:
            events.append(event)
    return events
