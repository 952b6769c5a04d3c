"""What a worker of a cluster does: reads a piece of the archive into shards of people, answers questions for a shard.

Nothing here knows which engine runs it. Between the two steps the engine brings the blocks of a shard together; it
never looks into them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from headrace.domain.ids import partition_of
from headrace_audience.archive import layout
from headrace_audience.archive.files import Files
from headrace_audience.archive.view import create_events
from headrace_audience.batch.statement import Audiences
from headrace_audience.batch.values import Parameters
from headrace_audience.distributed.scan import scan_sql
from headrace_audience.language.definition import Definition

T = TypeVar("T")

BLOCK_ROWS = 131_072
"""Rows that are divided at a time: a shard's part of them is one block."""

Block = tuple[int, bytes]
"""The number of a shard, and rows of `events` of its people as an Arrow stream."""


@dataclass(frozen=True)
class Source:
    """Where the events are.

    Attributes:
        root: Root of the archive, as `Files` takes it.
        moved: Profiles of which the files say nothing that is to be believed.
        merged: All merges, see archive.view.
    """

    root: str
    moved: Collection[str]
    merged: pa.Table


@dataclass(frozen=True)
class Piece:
    """What one worker reads at a time.

    Attributes:
        paths: Files below the root.
        tail: Events of the log, by layout.TAIL_SCHEMA, as an Arrow stream; empty for none.
    """

    paths: tuple[str, ...] = ()
    tail: bytes = b""


@dataclass(frozen=True)
class Question:
    """An audience at a moment."""

    key: str
    definition: Definition
    at_us: int


@dataclass(frozen=True)
class Limits:
    """What one worker may use.

    Attributes:
        memory_mb: Memory of DuckDB in MiB; beyond it, it writes temporary files.
        folder: Where it writes them; empty for DuckDB's own choice.
    """

    memory_mb: int = 1_024
    folder: str = ""

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A connection for one thread: the engine decides how many workers there are."""
        config: dict[str, Any] = {
            "threads": 1,
            "memory_limit": f"{self.memory_mb}MiB",
            "autoload_known_extensions": False,
        }
        if self.folder:
            config["temp_directory"] = self.folder
        return duckdb.connect(config=config)


def blocks_of(
    piece: Piece, source: Source, definitions: Collection[Definition], shards: int, limits: Limits
) -> Iterator[Block]:
    """What the definitions need of a piece, by shard.

    Raises:
        duckdb.Error: A file cannot be read.
    """
    tail = _table_of([piece.tail]) if piece.tail else layout.TAIL_SCHEMA.empty_table()
    parameters = Parameters()
    with limits.connect() as connection:
        create_events(connection, Files(source.root), piece.paths, tail, source.moved, source.merged)
        statement = scan_sql(definitions, parameters)
        rows = connection.sql(statement, params=parameters.of(statement))
        found: pa.RecordBatchReader = rows.to_arrow_reader(BLOCK_ROWS)
        for batch in found:
            yield from _divided(batch, shards)


def _divided(batch: pa.RecordBatch, shards: int) -> Iterator[Block]:
    profiles = batch.column("profile").dictionary_encode()
    of_value = np.array([partition_of(p, shards) for p in profiles.dictionary.to_pylist()], np.int64)
    of_row = of_value[profiles.indices.to_numpy()]
    order = np.argsort(of_row, kind="stable")
    ends = np.searchsorted(of_row[order], np.arange(1, shards + 1))
    ordered = batch.take(pa.array(order))
    start = 0
    for shard, end in enumerate(ends.tolist()):
        if end > start:
            yield shard, stream_of(ordered.slice(start, end - start))
        start = end


def stream_of(rows: pa.RecordBatch | pa.Table) -> bytes:
    """Rows as an Arrow stream."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write(rows)
    return bytes(sink.getvalue())


def _table_of(streams: Iterable[bytes]) -> pa.Table:
    return pa.concat_tables(pa.ipc.open_stream(stream).read_all() for stream in streams)


def answers_of(
    blocks: Iterable[bytes],
    questions: Sequence[Question],
    audiences: Audiences,
    ask: Callable[[duckdb.DuckDBPyConnection, Definition, int, Audiences], T],
    limits: Limits,
) -> Iterator[tuple[str, T]]:
    """What a function answers to each question for the people of one shard.

    Args:
        blocks: All blocks of the shard.
        questions: What is asked.
        audiences: As queries.evaluate() takes them; of members only those of the shard are told on.
        ask: Called with a connection that knows `events`, a definition, its moment, and the audiences.
        limits: What may be used.

    Yields:
        (key of the question, answer).
    """
    streams = iter(blocks)
    first = next(streams, None)
    if first is None:
        return
    with limits.connect() as connection:
        opened = pa.ipc.open_stream(first)
        schema = opened.schema

        def batches() -> Iterator[pa.RecordBatch]:
            yield from opened
            for stream in streams:
                yield from pa.ipc.open_stream(stream)

        connection.register("blocks", pa.RecordBatchReader.from_batches(schema, batches()))
        connection.execute("CREATE TABLE events AS SELECT * FROM blocks")
        connection.unregister("blocks")
        here = _of_shard(connection, audiences)
        for question in questions:
            yield question.key, ask(connection, question.definition, question.at_us, here)


def _of_shard(connection: duckdb.DuckDBPyConnection, audiences: Audiences) -> Mapping[str, Definition | list[str]]:
    if all(isinstance(meaning, Definition) for meaning in audiences.values()):
        return {key: meaning for key, meaning in audiences.items() if isinstance(meaning, Definition)}
    people = {str(p) for (p,) in connection.execute("SELECT DISTINCT profile FROM events").fetchall()}
    return {
        key: meaning if isinstance(meaning, Definition) else sorted(people.intersection(meaning))
        for key, meaning in audiences.items()
    }
