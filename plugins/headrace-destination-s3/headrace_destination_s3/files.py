"""The files: rows as NDJSON or Parquet, compressed, under a key that the same rows have every time. Pure."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from headrace_destination_s3.settings import S3Settings
from headrace_sdk import EventItem, iso_time

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST_PART = 80
_TEXTS = ("message_id", "type", "name", "source_id", "profile_id", "group_id", "previous_id")
_TIMES = ("timestamp", "received_at")
_OBJECTS = ("identifiers", "traits", "properties", "context", "profile")


def folder(settings: S3Settings, event: EventItem) -> str:
    """The beginning of an event's key: prefix and partition."""
    time = iso_time(event.timestamp_us)
    places = {
        "event": _part(event.name or event.kind),
        "type": _part(event.kind),
        "source": _part(event.source_id),
        "date": time[:10],
        "hour": time[11:13],
    }
    return settings.prefix + settings.partition.format_map(places)


def name(settings: S3Settings, events: Sequence[EventItem]) -> str:
    """The rest of the key of a file: a digest of the ids of its events, and what kind of file it is."""
    ids = hashlib.blake2b(digest_size=16)
    for event in events:
        ids.update(event.message_id.encode("utf-8", "replace") + b"\n")
    if settings.format == "parquet":
        return f"{ids.hexdigest()}.parquet"
    return ids.hexdigest() + ".ndjson" + {"none": "", "gzip": ".gz", "zstd": ".zst"}[settings.compression]


def row(event: EventItem) -> dict[str, Any]:
    """An event as an object: as everywhere in Headrace, with the person as `profile`."""
    return {**event.document(), "profile": event.profile.document() if event.profile is not None else None}


def ndjson(settings: S3Settings, rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows as JSON, one a line."""
    lines = (json.dumps(one, ensure_ascii=False, separators=(",", ":")) + "\n" for one in rows)
    data = "".join(lines).encode("utf-8", "replace")
    if settings.compression == "gzip":
        return gzip.compress(data, 6, mtime=0)  # a file does not say when it was made: the same rows, the same bytes
    if settings.compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=3).compress(data)
    return data


def parquet(settings: S3Settings, rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows as a Parquet file: texts, times in microseconds UTC, and objects as JSON text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {}
    for column in _TEXTS:
        columns[column] = pa.array([_text(one, column) for one in rows], pa.string())
    for column in _TIMES:
        times = [datetime.fromisoformat(one[column]) for one in rows]
        columns[column] = pa.array(times, pa.timestamp("us", "UTC"))
    for column in _OBJECTS:
        columns[column] = pa.array([_json(one[column]) for one in rows], pa.string())
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns), sink, compression="NONE" if settings.compression == "none" else settings.compression
    )
    return bytes(sink.getvalue().to_pybytes())


def _text(one: dict[str, Any], column: str) -> str | None:
    value = (one["profile"] or {}).get("id") if column == "profile_id" else one[column]
    return str(value).encode("utf-8", "replace").decode() if value else None


def _json(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace").decode()


def _part(text: str) -> str:
    """A text as part of a key: nothing in it has a meaning in keys or URLs."""
    return _UNSAFE.sub("_", text)[:_LONGEST_PART].strip(".") or "_"
