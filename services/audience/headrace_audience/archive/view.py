"""The relations `events` and `mentions`: files of the archive and rows of the log as one, with the profiles of now."""

# ruff: noqa: S608  # constants and quoted paths only

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from headrace_audience.archive import layout
from headrace_audience.archive.files import Files
from headrace_audience.archive.samples import EVERYBODY, sample_of

COLUMNS = (
    "profile, timestamp_us, message_id, kind, name, properties, person_traits AS traits, namespaces, consents, touch,"
    " sample"
)


_MENTION_COLUMNS = "group_id, profile, timestamp_us, message_id, CASE WHEN kind = 'group' THEN traits END AS traits"


def merged_table(pairs: Iterable[tuple[str, str]]) -> pa.Table:
    """Every (loser, survivor) as create_events() takes them."""
    losers, survivors = zip(*pairs, strict=True) if (pairs := list(pairs)) else ((), ())
    return pa.table(
        {
            "loser": pa.array(losers, pa.string()),
            "survivor": pa.array(survivors, pa.string()),
            "sample": pa.array(map(sample_of, survivors), pa.int8()),
        }
    )


def mentions_sql(source: str) -> str:
    """What events of a relation say of groups."""
    return f"SELECT {_MENTION_COLUMNS} FROM {source} WHERE group_id IS NOT NULL"


def archived_sql(connection: duckdb.DuckDBPyConnection, files: Files, paths: Sequence[str]) -> str:
    """The files of events as what can stand after FROM; empty when there are none."""
    full = [files.full_path(path) for path in paths]
    if not full:
        return ""
    if files.is_local:
        listed = ", ".join("'" + p.replace("'", "''") + "'" for p in full)
        return f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
    dataset = ds.dataset(full, schema=layout.EVENT_SCHEMA, format="parquet", filesystem=files.filesystem)
    connection.register("archived", dataset)
    return "archived"


def create_events(
    connection: duckdb.DuckDBPyConnection,
    files: Files,
    paths: Sequence[str],
    tail: pa.Table,
    moved: Collection[str],
    merged: pa.Table,
    *,
    sample: int = EVERYBODY,
    in_memory: bool = False,
) -> None:
    """Make the views `events` and `mentions`, as headrace_audience.batch.queries and .groups describe them.

    They take the place of earlier ones. What is said of groups is not read for a sample of people.

    Args:
        connection: Gets the view.
        files: Where the files are.
        paths: Files of events, below the archive's root.
        tail: Events of the log, by layout.TAIL_SCHEMA.
        moved: Profiles of which the files say nothing that is to be believed.
        merged: All merges, as merged_table() makes them.
        sample: Only the people of a sample, see `samples`. What their parts that are not in it themselves did must be
            in `tail`.
        in_memory: Read the files once: quicker for a small sample, of which statements read several times.
    """
    connection.register("log_tail", tail)
    inside = "true" if sample == EVERYBODY else f"sample <= {sample}"
    sources = [f"SELECT {COLUMNS} FROM log_tail"]
    mentions = [mentions_sql("log_tail")]
    believed = ""
    if moved:
        connection.register("moved", pa.table({"profile": pa.array(sorted(moved), pa.string())}))
        believed = " AND profile NOT IN (SELECT profile FROM moved)"
    if archived := archived_sql(connection, files, paths):
        sources.append(f"SELECT {COLUMNS} FROM {archived} WHERE {inside}{believed}")
        mentions.append(f"{mentions_sql(archived)}{believed}")
    everything = " UNION ALL ".join(sources)
    if merged.num_rows:
        connection.register("merged", merged)
        now = "coalesce(m.survivor, e.profile) AS profile, coalesce(m.sample, e.sample) AS sample"
        everything = f"SELECT e.* REPLACE ({now}) FROM ({everything}) e LEFT JOIN merged m ON m.loser = e.profile"
    of_people = f"SELECT * EXCLUDE (sample) FROM ({everything}) WHERE profile <> '' AND {inside}"
    if in_memory:
        connection.execute(f"CREATE OR REPLACE TABLE sampled AS {of_people}")
        of_people = "SELECT * FROM sampled"
    connection.execute(f"CREATE OR REPLACE VIEW events AS {of_people}")
    if sample == EVERYBODY:
        of_groups = " UNION ALL ".join(mentions)
        if merged.num_rows:
            now = "coalesce(m.survivor, e.profile) AS profile"
            of_groups = f"SELECT e.* REPLACE ({now}) FROM ({of_groups}) e LEFT JOIN merged m ON m.loser = e.profile"
        connection.execute(f"CREATE OR REPLACE VIEW mentions AS {of_groups}")
