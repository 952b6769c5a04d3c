"""What archive files hold and where they lie.

A file is written once and never changed. Its name tells what is in it, its content is sorted so that a reader skips
most row groups by their statistics: by sample of people, then event name, then profile, then time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.api.identity.v1.profile_pb2 import Decision, ResolvedEvent
from headrace.storage.mongo.client import Document
from headrace_audience.archive.moved import StoredMerge
from headrace_audience.archive.samples import sample_of
from headrace_audience.engine.touches import TOUCH_RULES, touch_json
from headrace_audience.engine.traits import person_consents, person_traits

FORMAT = f"4 {TOUCH_RULES}"
"""The columns, whose changes are counted, and the rules by which touches are found in events. An archive of another
format is written again from the log, and until it is, the log is read in its place."""

EVENTS = "events"
MERGES = "merges"

_TEXT = pa.string()

EVENT_SCHEMA = pa.schema(
    [
        pa.field("name", _TEXT),
        pa.field("kind", _TEXT),
        pa.field("profile", _TEXT),
        pa.field("timestamp_us", pa.int64()),
        pa.field("message_id", _TEXT),
        pa.field("sequence", pa.int64()),
        pa.field("received_at_us", pa.int64()),
        pa.field("resolved_at_us", pa.int64()),
        pa.field("source_id", _TEXT),
        pa.field("group_id", _TEXT),
        pa.field("future", pa.bool_()),
        pa.field("namespaces", pa.list_(_TEXT)),
        pa.field("identifiers", pa.list_(pa.struct([("namespace", _TEXT), ("value", _TEXT)]))),
        pa.field("properties", _TEXT),
        pa.field("traits", _TEXT),
        pa.field("person_traits", _TEXT),
        pa.field("consents", _TEXT),
        pa.field("touch", _TEXT),
        pa.field("context", _TEXT),
        pa.field("sample", pa.int8()),
    ]
)
"""Columns of event files, described in docs/reference/archive.md."""

MERGE_SCHEMA = pa.schema(
    [
        pa.field("loser", _TEXT),
        pa.field("survivor", _TEXT),
        pa.field("sequence", pa.int64()),
        pa.field("message_id", _TEXT),
    ]
)
"""Columns of merge files, described in docs/reference/archive.md."""

TAIL_SCHEMA = pa.schema(
    [
        EVENT_SCHEMA.field(name)
        for name in (
            "profile",
            "timestamp_us",
            "message_id",
            "kind",
            "name",
            "properties",
            "person_traits",
            "namespaces",
            "consents",
            "touch",
            "sample",
            "group_id",
            "traits",
        )
    ]
)
"""What is read of events that are not in the archive yet."""

SORT_KEYS = {
    EVENTS: [(key, "ascending") for key in ("sample", "name", "profile", "timestamp_us", "message_id", "sequence")],
    MERGES: [("sequence", "ascending"), ("loser", "ascending")],
}
SCHEMAS = {EVENTS: EVENT_SCHEMA, MERGES: MERGE_SCHEMA}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS = {number: name.removeprefix("EVENT_KIND_").lower() for name, number in EventKind.items()}


def day_of(timestamp_us: int) -> str:
    """The UTC day of an event time, as "2026-01-31"; times that no calendar holds go to its first or last day."""
    try:
        return (_EPOCH + timedelta(microseconds=timestamp_us)).strftime("%Y-%m-%d")
    except OverflowError:
        return "0001-01-01" if timestamp_us < 0 else "9999-12-31"


def path_of(
    kind: str, workspace_id: str, day: str, first: int, last: int, token: int, level: int, revision: int = 0
) -> str:
    """Path of a file below the archive's root.

    Args:
        kind: EVENTS or MERGES.
        workspace_id: The workspace of all rows.
        day: UTC day of the event times; empty for merges.
        first: Lowest sequence that the file may hold.
        last: Sequence below which all rows lie.
        token: Fencing token of the writer, so that two writers never write the same path.
        level: How many times its rows were merged with others.
        revision: A number that no other file of these rows has, when it was made because events were assigned anew or
            erased; 0 otherwise.
    """
    folder = folder_of(kind, workspace_id) + (f"/day={day}" if day else "")
    revised = f"-{revision}" if revision else ""
    return f"{folder}/{first:016d}-{last:016d}-{token:06d}-{level}{revised}.parquet"


def folder_of(kind: str, workspace_id: str) -> str:
    """The folder of a workspace's files below the archive's root."""
    return f"{kind}/workspace={workspace_id}"


def event_table(events: Sequence[ResolvedEvent]) -> pa.Table:
    """Events as rows of an event file, in their order."""
    columns: dict[str, list[Any]] = {name: [] for name in EVENT_SCHEMA.names}
    for resolved in events:
        event, decision = resolved.event, resolved.decision
        row = {
            "name": event.name,
            "kind": _KINDS[event.kind],
            "profile": resolved.profile_id,
            "timestamp_us": event.timestamp_us,
            "message_id": event.message_id,
            "sequence": decision.sequence,
            "received_at_us": event.received_at_us,
            "resolved_at_us": resolved.resolved_at_us,
            "source_id": event.source_id,
            "group_id": event.group_id or None,
            "future": event.future,
            "namespaces": sorted({i.namespace for i in decision.identifiers}),
            "identifiers": [{"namespace": i.namespace, "value": i.value} for i in decision.identifiers],
            "properties": _text(event.properties),
            "traits": _text(event.traits),
            "person_traits": _text(person_traits(event)),
            "consents": _text(person_consents(event)),
            "touch": _text(touch_json(event)),
            "context": _text(event.context),
            "sample": sample_of(resolved.profile_id),
        }
        for name, value in row.items():
            columns[name].append(value)
    return pa.table(columns, schema=EVENT_SCHEMA)


def tail_table(documents: Sequence[Document]) -> tuple[pa.Table, list[StoredMerge]]:
    """Documents of the log as rows of TAIL_SCHEMA, and the merges that they caused.

    Only what is needed is unpacked: a view is opened for each preview, and the tail may hold many seconds of traffic.
    """
    columns: list[list[Any]] = [[] for _ in TAIL_SCHEMA.names]
    add = [column.append for column in columns]
    merges: list[StoredMerge] = []
    for document in documents:
        event = Event.FromString(document["e"])
        decision = Decision.FromString(document["d"])
        add[0](document["p"])
        add[1](document["t"])
        add[2](event.message_id)
        add[3](_KINDS[event.kind])
        add[4](document["n"])
        add[5](_text(event.properties))
        add[6](_text(person_traits(event)))
        add[7]([i.namespace for i in decision.identifiers])
        add[8](_text(person_consents(event)))
        add[9](_text(touch_json(event)))
        add[10](sample_of(document["p"]))
        add[11](event.group_id or None)
        add[12](_text(event.traits) if event.group_id else None)
        merges += [StoredMerge(decision.sequence, m.loser, m.survivor) for m in decision.merges]
    return pa.table(columns, schema=TAIL_SCHEMA), merges


def merge_table(events: Sequence[ResolvedEvent]) -> pa.Table:
    """The merges that events caused, as rows of a merge file."""
    rows = [
        {
            "loser": merge.loser,
            "survivor": merge.survivor,
            "sequence": resolved.decision.sequence,
            "message_id": resolved.event.message_id,
        }
        for resolved in events
        for merge in resolved.decision.merges
    ]
    return pa.Table.from_pylist(rows, schema=MERGE_SCHEMA)


def _text(data: bytes) -> str | None:
    return data.decode(errors="replace") if data else None
