"""The batch evaluator on Apache Spark: workers read the archive, Spark brings people together, DuckDB answers.

Every condition is about one person, so people are divided into shards, and each shard is asked the statements of
`batch` by DuckDB inside of a worker: there is one description of what conditions mean (ADR 12). Workers need this
package and its libraries, and must reach the archive.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb
import pyarrow as pa

from headrace_audience.archive import layout
from headrace_audience.archive.reader import Content
from headrace_audience.archive.survivors import Survivors
from headrace_audience.batch import queries
from headrace_audience.batch.queries import Outlook
from headrace_audience.batch.statement import Audiences
from headrace_audience.distributed import shards
from headrace_audience.distributed.shards import Block, Limits, Piece, Question, Source
from headrace_audience.language.definition import Definition

if TYPE_CHECKING:
    from pyspark import SparkContext

T = TypeVar("T")

TAIL_ROWS = 200_000
"""Rows of the log that one worker takes."""
FILES_A_PIECE = 4
"""A worker takes at most so many files at a time."""


class SparkMissing(Exception):
    """Spark cannot be started here; the text says what to install."""


@contextmanager
def spark_context(master: str, *, config: Mapping[str, str] | None = None) -> Iterator[SparkContext]:
    """Start Spark, or take the context of this process, and stop it again if it was started here.

    Args:
        master: URL of the master, such as `local[4]`, `spark://host:7077`, `yarn`, `k8s://https://host:6443`.
        config: Further properties of Spark, by name.

    Raises:
        SparkMissing: pyspark or Java is not installed.
    """
    try:
        from pyspark import SparkConf, SparkContext
    except ImportError as error:
        raise SparkMissing("PySpark is not installed: install headrace[spark]") from error
    if not java():
        raise SparkMissing("Spark needs Java 17 or newer: install it, and set JAVA_HOME or put `java` into PATH")
    running = SparkContext._active_spark_context  # the public way starts one
    if running is not None:
        yield running
        return
    if master.startswith("local"):
        # Workers on this machine run the same Python; on a cluster it is the cluster's.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    properties = {
        "spark.app.name": "headrace",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        **(config or {}),
    }
    context = SparkContext(conf=SparkConf().setMaster(master).setAll(list(properties.items())))
    try:
        yield context
    finally:
        context.stop()


def java() -> str | None:
    """Where Java is; None: nowhere."""
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").exists():
        return str(Path(home) / "bin" / "java")
    return shutil.which("java")


@dataclass(frozen=True)
class SparkEvaluator:
    """Answers for all people of one workspace.

    Audiences of groups are refused with a ValueError: they are about several people at once.

    Attributes:
        context: Spark.
        source: Where the events are.
        pieces: What is to be read.
        shards: Into how many shards people are divided; one worker asks one at a time, and holds its rows.
        limits: What one worker may use beside the rows that Spark holds.
    """

    context: SparkContext
    source: Source
    pieces: tuple[Piece, ...]
    shards: int
    limits: Limits = field(default_factory=Limits)

    @staticmethod
    def of_content(
        context: SparkContext, root: str, content: Content, *, shards: int | None = None, limits: Limits | None = None
    ) -> SparkEvaluator:
        """Ask what ArchiveReader.content() gave.

        Args:
            context: Spark.
            root: Root of the archive; workers open it.
            content: What is known of the workspace.
            shards: See SparkEvaluator; default: two for each worker.
            limits: See SparkEvaluator.
        """
        count = max(1, min(FILES_A_PIECE, len(content.paths) // (2 * context.defaultParallelism)))
        files = [Piece(paths=content.paths[i : i + count]) for i in range(0, len(content.paths), count)]
        source = Source(root, sorted(content.moved), content.merged())
        return SparkEvaluator(
            context,
            source,
            (*files, *_tails(content.tail)),
            shards or 2 * context.defaultParallelism,
            limits or Limits(),
        )

    @staticmethod
    def of_events(context: SparkContext, events: pa.Table, *, shards: int | None = None) -> SparkEvaluator:
        """Ask about a relation `events`, as headrace_audience.batch.queries describes it, that lies in memory."""
        named = {"person_traits" if name == "traits" else name: events[name] for name in events.column_names}
        columns = [
            named[field.name].cast(field.type) if field.name in named else pa.nulls(events.num_rows, field.type)
            for field in layout.TAIL_SCHEMA
        ]
        content = Content((), pa.table(columns, schema=layout.TAIL_SCHEMA), Survivors(), ())
        return SparkEvaluator.of_content(context, tempfile.gettempdir(), content, shards=shards)

    def members(self, questions: Sequence[Question], audiences: Audiences | None = None) -> dict[str, list[str]]:
        """Who is in, by the key of the question: what queries.evaluate() gives."""
        found: dict[str, list[str]] = {question.key: [] for question in questions}
        for key, members in self._ask(queries.evaluate, questions, audiences):
            found[key] += members
        return {key: sorted(members) for key, members in found.items()}

    def sizes(self, questions: Sequence[Question], audiences: Audiences | None = None) -> dict[str, int]:
        """How many are in, by the key of the question."""
        found = {question.key: 0 for question in questions}
        for key, size in self._ask(_size, questions, audiences):
            found[key] += size
        return found

    def outlook(self, questions: Sequence[Question], audiences: Audiences | None = None) -> dict[str, list[Outlook]]:
        """The members with since when and until when, by the key of the question: what queries.outlook() gives."""
        found: dict[str, list[Outlook]] = {question.key: [] for question in questions}
        for key, members in self._ask(queries.outlook, questions, audiences):
            found[key] += members
        return {key: sorted(members, key=lambda m: m.profile) for key, members in found.items()}

    def _ask(self, ask: Any, questions: Sequence[Question], audiences: Audiences | None) -> Iterator[tuple[str, Any]]:
        audiences = audiences or {}
        named = [meaning for meaning in audiences.values() if isinstance(meaning, Definition)]
        definitions = [*(question.definition for question in questions), *named]
        if any(definition.of == "groups" for definition in definitions):
            raise ValueError("an audience of groups is about several people at once: they are in different shards")
        if not questions or not self.pieces:
            return
        # Merges and members may be many: each worker gets them once, not with each of its tasks.
        shared = self.context.broadcast((self.source, definitions, list(questions), dict(audiences)))
        count, limits = self.shards, self.limits

        def read(piece: Piece) -> Iterator[Block]:
            source, definitions, _, _ = shared.value
            return shards.blocks_of(piece, source, definitions, count, limits)

        def answer(blocks: Iterable[Block]) -> Iterator[tuple[str, Any]]:
            _, _, questions, audiences = shared.value
            return shards.answers_of((rows for _, rows in blocks), questions, audiences, ask, limits)

        try:
            pieces = self.context.parallelize(self.pieces, len(self.pieces))
            yield from pieces.flatMap(read).partitionBy(count, _itself).mapPartitions(answer).collect()
        finally:
            shared.destroy()


def _itself(shard: int) -> int:
    """The partition of a shard."""
    return shard


def _size(
    connection: duckdb.DuckDBPyConnection, definition: Definition, now_us: int, audiences: Audiences | None = None
) -> int:
    return queries.preview(connection, definition, now_us, audiences, sample=0).size


def _tails(tail: pa.Table) -> Iterator[Piece]:
    for start in range(0, tail.num_rows, TAIL_ROWS):
        yield Piece(tail=shards.stream_of(tail.slice(start, TAIL_ROWS)))
