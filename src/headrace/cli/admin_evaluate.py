"""`headrace admin evaluate`: audiences over the whole archive, on Spark."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from headrace.cli.moments import moment_us
from headrace.cli.mongo import MongoDatabase, MongoSettings, MongoUrl, with_database
from headrace.cli.output import Output
from headrace.cli.problems import FAILED, CommandFailed, UsageProblem

if TYPE_CHECKING:
    from headrace.storage.mongo.client import Database


def evaluate(
    workspace_id: Annotated[str, Argument(metavar="WORKSPACE", help="Workspace id.")],
    audience_ids: Annotated[
        list[str] | None, Argument(metavar="[AUDIENCE]...", help="Audience ids; default: all active ones.")
    ] = None,
    spark_master: Annotated[
        str, Option("--spark-master", help="Where Spark runs, such as spark://host:7077 or yarn.")
    ] = "local[*]",
    spark_conf: Annotated[
        list[str] | None, Option("--spark-conf", help="NAME=VALUE: a property of Spark; may be repeated.")
    ] = None,
    shards: Annotated[
        int | None, Option("--shards", min=1, help="Parts into which people are divided; default: two per worker.")
    ] = None,
    memory_mb: Annotated[int, Option("--memory-mb", min=64, help="Memory of DuckDB in one worker, in MiB.")] = 1024,
    archive: Annotated[
        str | None,
        Option("--archive", help="Folder or URL of the archive, as workers see it; default: HEADRACE_ARCHIVE_DIR."),
    ] = None,
    at: Annotated[str, Option("--at", help="The moment, in ISO 8601; default: now. Not with --compare.")] = "",
    compare: Annotated[bool, Option("--compare", help="Compare with the members that are stored.")] = False,
    mongo_url: MongoUrl = None,
    mongo_database: MongoDatabase = None,
    as_json: Annotated[bool, Option("--json", help="JSON for machines in place of tables.")] = False,
) -> int:
    """Evaluate audiences over archive and log on Spark: sizes, or a comparison; exit status 1 when any differ."""
    from headrace_audience.distributed.shards import Limits
    from headrace_audience.distributed.spark import SparkMissing, spark_context
    from headrace_audience.distributed.workspace import AudienceUnknown, WorkspaceOnSpark
    from headrace_audience.settings import Settings

    from headrace.domain.times import now_us

    if at and compare:
        raise UsageProblem("--compare is about now: leave --at out")
    at_us = moment_us(at, "--at") if at else now_us()
    root = archive or os.environ.get("HEADRACE_ARCHIVE_DIR") or Settings.model_fields["archive_dir"].default
    ids = [audience_id.rpartition("/")[2] for audience_id in audience_ids or ()]

    async def ask(db: Database) -> list[dict[str, Any]]:
        with spark_context(spark_master, config=_properties(spark_conf or ())) as context:
            on_spark = WorkspaceOnSpark(
                db, _reader(db, root), root, context, shards=shards, limits=Limits(memory_mb=memory_mb)
            )
            if not compare:
                sizes = await on_spark.sizes(workspace_id, ids, at_us)
                return [{"audience": audience_id, "size": size} for audience_id, size in sizes.items()]
            return [
                {
                    "audience": one.audience_id,
                    "live": one.live_size,
                    "batch": one.batch_size,
                    "same": one.same,
                    "mismatched": sorted(one.only_live | one.only_batch),
                }
                for one in await on_spark.compare(workspace_id, ids)
            ]

    try:
        rows = with_database(MongoSettings(mongo_url, mongo_database), ask)
    except SparkMissing as error:
        raise CommandFailed(str(error)) from None
    except AudienceUnknown as error:
        raise UsageProblem(str(error)) from None
    columns = ("audience", "live", "batch", "same", "mismatched") if compare else ("audience", "size")
    Output(as_json=as_json).rows(rows, columns)
    return 0 if all(row.get("same", True) for row in rows) else FAILED


def _properties(given: list[str] | tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageProblem(f"--spark-conf {text}: write NAME=VALUE")
        found[name] = value
    return found


def _reader(db: Database, root: str) -> Any:
    """Archive and log, as the audience service reads them."""
    from headrace_audience.archive.files import Files
    from headrace_audience.archive.reader import ArchiveReader
    from headrace_audience.archive.registry import Registry
    from headrace_audience.settings import Settings

    from headrace.domain.times import SECOND_US

    margin = float(
        os.environ.get("HEADRACE_ARCHIVE_MARGIN_SECONDS") or Settings.model_fields["archive_margin_seconds"].default
    )
    return ArchiveReader(db, Registry(db.client, db), Files(root), margin_us=int(margin * SECOND_US))
