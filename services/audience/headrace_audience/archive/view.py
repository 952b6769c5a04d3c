"""The relation `events`: files of the archive and rows of the log as one, each with the profile it belongs to now."""

# ruff: noqa: S608  # constants and quoted paths only

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from headrace_audience.archive import layout
from headrace_audience.archive.files import Files

_COLUMNS = (
    "profile, timestamp_us, message_id, kind, name, properties, person_traits AS traits, namespaces, consents, touch"
)


def merged_table(pairs: Iterable[tuple[str, str]]) -> pa.Table:
    """Every (loser, survivor) as create_events() takes them."""
    losers, survivors = zip(*pairs, strict=True) if (pairs := list(pairs)) else ((), ())
    return pa.table({"loser": pa.array(losers, pa.string()), "survivor": pa.array(survivors, pa.string())})


def create_events(
    connection: duckdb.DuckDBPyConnection,
    files: Files,
    paths: Sequence[str],
    tail: pa.Table,
    moved: Collection[str],
    merged: pa.Table,
) -> None:
    """Make the view `events`, as headrace_audience.batch.queries describes it.

    Args:
        connection: Gets the view.
        files: Where the files are.
        paths: Files of events, below the archive's root.
        tail: Events of the log, by layout.TAIL_SCHEMA.
        moved: Profiles of which the files say nothing that is to be believed.
        merged: All merges, as merged_table() makes them.
    """
    connection.register("log_tail", tail)
    sources = [f"SELECT {_COLUMNS} FROM log_tail"]
    believed = ""
    if moved:
        connection.register("moved", pa.table({"profile": pa.array(sorted(moved), pa.string())}))
        believed = " WHERE profile NOT IN (SELECT profile FROM moved)"
    full = [files.full_path(path) for path in paths]
    if full and files.is_local:
        listed = ", ".join("'" + p.replace("'", "''") + "'" for p in full)
        read = f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
        sources.append(f"SELECT {_COLUMNS} FROM {read}{believed}")
    elif full:
        dataset = ds.dataset(full, schema=layout.EVENT_SCHEMA, format="parquet", filesystem=files.filesystem)
        connection.register("archived", dataset)
        sources.append(f"SELECT {_COLUMNS} FROM archived{believed}")
    everything = " UNION ALL ".join(sources)
    if merged.num_rows:
        connection.register("merged", merged)
        connection.execute(
            "CREATE VIEW events AS SELECT e.* REPLACE (coalesce(m.survivor, e.profile) AS profile)"
            f" FROM ({everything}) e LEFT JOIN merged m ON m.loser = e.profile WHERE e.profile <> ''"
        )
    else:
        connection.execute(f"CREATE VIEW events AS SELECT * FROM ({everything}) WHERE profile <> ''")
