"""The batch evaluator: audience definitions as SQL over the archive, run by DuckDB.

It reads one relation named `events`, a view that the archive provides on a DuckDB connection:

=============  =====================  ================================================================================
column         type                   meaning
=============  =====================  ================================================================================
profile        VARCHAR                the profile over all merges (the survivor), never empty
timestamp_us   BIGINT                 event time
message_id     VARCHAR                duplicates are harmless, also in several files
kind           VARCHAR                "track", "page", "screen", "identify", "group", "alias"
name           VARCHAR                name of a track event
properties     VARCHAR (JSON object)  or NULL or empty
traits         VARCHAR (JSON object)  traits of the *person* (headrace_audience.engine.traits.person_traits), or NULL
namespaces     VARCHAR[]              namespaces of the identifiers with which the event was resolved (decision)
consents       VARCHAR (JSON object)  whether each purpose that the event speaks of is granted, or NULL
touch          VARCHAR (JSON object)  how it reached the person (headrace_audience.engine.touches), or NULL
=============  =====================  ================================================================================

Audiences of groups read the relation `mentions` too, see `groups`; their ids stand where those of profiles stand.
The view holds one workspace only. Other columns are not read.

Public functions (all take an open DuckDB connection that knows `events`; none of them writes)::

    evaluate(connection, definition, now_us, audiences={...}) -> list[str]      # profile ids of the members, sorted
    preview(connection, definition, now_us, audiences={...}, sample=20)         # -> Preview: size, profiles, sample
    outlook(connection, definition, now_us, audiences={...}, profiles=None)     # -> list[Outlook]: since, leaves_at
    group_facts(connection, definition, group_id, now_us, audiences={...})      # -> facts by condition, of a group
    next_moment(connection, definition, now_us, audiences={...})                # -> moment or None, of one of groups
    condition_history(connection, key, now_us) -> pyarrow.Table                 # for Engine.fold_history(key, table)

`audiences` maps ids of referenced audiences to their Definition, or to the ids of their members (static audiences, or
whatever the store holds); one that is missing has no members. `now_us` of condition_history() must not be later than
the clock of the engine that folds it. The key PROFILES gives the ids of all profiles, for a partition that starts
without a snapshot: people of whom no condition knows anything are in "not" audiences too.
"""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import duckdb
import pyarrow as pa

from headrace_audience.batch.computed_sql import EXACT_NUMBER, EXACT_RATIO, register
from headrace_audience.batch.groups import GroupFacts, GroupStatement, LeafFacts, MemberFacts
from headrace_audience.batch.history_sql import history_sql
from headrace_audience.batch.statement import Audiences, Statement
from headrace_audience.batch.values import Parameters
from headrace_audience.engine.states import PROFILES
from headrace_audience.language.definition import Definition, Members, walk

__all__ = [
    "PROFILES",
    "Audiences",
    "Outlook",
    "Preview",
    "condition_history",
    "evaluate",
    "group_facts",
    "next_moment",
    "outlook",
    "preview",
]

Connection = duckdb.DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Preview:
    """What a definition would give."""

    size: int
    """Number of members."""
    profiles: int
    """Number of all people."""
    sample: list[str]
    """Profile ids of some members: the first by id."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How the membership of a profile stands in time, at the moment of evaluation."""

    profile: str
    member: bool
    since_us: int | None
    """From when it has been what it is; None: always."""
    changes_at_us: int | None
    """The next moment at which it changes if no further event comes; None: never."""


def evaluate(
    connection: Connection, definition: Definition, now_us: int, audiences: Audiences | None = None
) -> list[str]:
    """Who is in at a moment.

    Args:
        connection: Knows the relation `events`.
        definition: The audience; of a static one, too, the condition is evaluated.
        now_us: The moment, in microseconds.
        audiences: What references to other audiences mean; one that is missing has no members.

    Returns:
        Profile ids, sorted.

    Raises:
        DefinitionError: The audiences refer to each other in a circle.
        duckdb.Error: The relation cannot be read.
    """
    parameters = Parameters()
    members = _members_sql(definition, now_us, audiences or {}, parameters)
    rows = _run(connection, f"{members} SELECT profile FROM members ORDER BY profile", parameters).fetchall()
    return [str(profile) for (profile,) in rows]


def preview(
    connection: Connection,
    definition: Definition,
    now_us: int,
    audiences: Audiences | None = None,
    *,
    sample: int = 20,
) -> Preview:
    """Size and some members of a definition, as evaluate() would give them."""
    parameters = Parameters()
    members = _members_sql(definition, now_us, audiences or {}, parameters)
    some = f"SELECT profile FROM members ORDER BY profile LIMIT {parameters.bind(sample)}"
    rows = _run(
        connection,
        f"{members} SELECT (SELECT count(*) FROM members), (SELECT count(*) FROM everybody),"
        f" (SELECT list(profile ORDER BY profile) FROM ({some}))",
        parameters,
    ).fetchall()
    size, profiles, some_members = rows[0]
    return Preview(int(size), int(profiles), list(some_members or []))


def outlook(
    connection: Connection,
    definition: Definition,
    now_us: int,
    audiences: Audiences | None = None,
    *,
    profiles: Collection[str] | None = None,
) -> list[Outlook]:
    """Since when the members have been members, and when each leaves if no further event comes.

    Asks at every moment at which anything can change, so it is for some hundred thousand events, not for millions.

    Args:
        connection: Knows the relation `events`.
        definition: The audience.
        now_us: The moment, in microseconds.
        audiences: As in evaluate(); an audience that is given by its members does not change.
        profiles: These people, members or not; None: the members.

    Returns:
        One per profile, sorted by id.
    """
    audiences = audiences or {}
    wanted = evaluate(connection, definition, now_us, audiences) if profiles is None else sorted(set(profiles))
    if not wanted:
        return []
    parameters = Parameters()
    statement = Statement(definition, audiences, None, parameters)
    ids = f"SELECT unnest({parameters.bind(wanted)}) AS profile"
    now = parameters.bind(now_us)
    edges = " UNION ALL ".join([*statement.edges(), f"SELECT profile, {now} AS at_us FROM wanted"])
    moments = statement.moments.with_starts(
        "SELECT * FROM inside UNION SELECT profile, min(at_us) - 1 FROM inside GROUP BY profile"
    )
    tables, sources = statement.tables(), statement.sources()
    statement.moments.make_functions(connection)
    base = "SELECT DISTINCT profile, at_us FROM moments"
    rows = _run(
        connection,
        f"WITH wanted AS ({ids}), {''.join(f'{table}, ' for table in sources)}"
        f"edges(profile, at_us) AS ({edges}),"
        f" inside AS (SELECT DISTINCT e.profile, e.at_us FROM edges e JOIN wanted USING (profile)"
        f" WHERE e.at_us IS NOT NULL),"
        f" moments AS ({moments}),"
        f" {''.join(f'{table}, ' for table in tables)} base AS ({base})"
        f" SELECT base.profile, base.at_us, {statement.condition} AS truth FROM {statement.joins()} ORDER BY ALL",
        parameters,
    ).fetchall()
    return [_outlook(profile, list(group), now_us) for profile, group in groupby(rows, key=lambda row: str(row[0]))]


def next_moment(
    connection: Connection, definition: Definition, now_us: int, audiences: Audiences | None = None
) -> int | None:
    """The next moment at which time alone may change the members of an audience of groups.

    Until then they are what evaluate() gives, if no event comes; at that moment they need not change.

    Args:
        connection: Knows the relations `events` and `mentions`.
        definition: An audience of groups.
        now_us: The moment after which to look, in microseconds.
        audiences: As in evaluate(); an audience that is given by its members does not change.

    Returns:
        The moment in microseconds; None: never.
    """
    parameters = Parameters()
    edges, moments = GroupStatement(definition, audiences or {}, now_us, parameters).edges_sql()
    moments.make_functions(connection)
    rows = _run(connection, f"{edges} SELECT min(at_us) FROM edges WHERE at_us > {int(now_us)}", parameters).fetchall()
    return rows[0][0] if rows[0][0] is None else int(rows[0][0])


def group_facts(
    connection: Connection,
    definition: Definition,
    group_id: str,
    now_us: int,
    audiences: Audiences | None = None,
) -> GroupFacts | None:
    """What holds of one group at a moment, for each condition of an audience of groups.

    Args:
        connection: Knows the relations `events` and `mentions`.
        definition: The audience.
        group_id: The group.
        now_us: The moment, in microseconds.
        audiences: As in evaluate().

    Returns:
        The facts by condition, of those that combine no others; None when no event names the group.
    """
    parameters = Parameters()
    leaves = list(dict.fromkeys(walk(definition.where)))
    statement = GroupStatement(definition, audiences or {}, now_us, parameters)
    rows = _run(connection, statement.facts_sql(group_id, leaves), parameters).fetchall()
    if not rows:
        return None
    columns = zip(*rows[0], strict=True)
    found: GroupFacts = {}
    for leaf, (holds, number, holding, some, others, value, writer) in zip(leaves, columns, strict=True):
        members = MemberFacts(number, holding, some or [], others or []) if isinstance(leaf, Members) else None
        set_by = tuple(writer.values()) if isinstance(writer, dict) else writer
        found[leaf] = LeafFacts(holds, members, None if value is None else json.loads(value), set_by)
    return found


def _outlook(profile: str, rows: list[tuple[str, int, bool]], now_us: int) -> Outlook:
    truth = next(truth for _, at, truth in rows if at == now_us)
    since = None
    before: bool | None = None
    for _, at, is_member in rows:
        if at <= now_us and before is not None and before != is_member:
            since = at
        before = is_member
    changes = next((at for _, at, is_member in rows if at > now_us and is_member != truth), None)
    return Outlook(profile, bool(truth), since, changes)


def condition_history(connection: Connection, key: str, now_us: int) -> pa.Table:
    """What the past says of one state, for Engine.fold_history().

    Args:
        connection: Knows the relation `events`.
        key: A key that Engine.set_audience() or Engine.import_partition() returned, or PROFILES.
        now_us: No later than the clock of the engine, in microseconds: what lies after it is all given.

    Returns:
        A table with the columns profile, timestamp_us and message_id, for a trait also value (JSON text): of an event
        state the newest different events that it keeps, of a trait the newest write (of a first touch the first), of an
        identifier the first time.

    Raises:
        ValueError: The key is none.
        duckdb.Error: The relation cannot be read.
    """
    parameters = Parameters()
    statement = history_sql(key, now_us, parameters)
    return connection.sql(statement, params=parameters.of(statement)).to_arrow_table()


def _members_sql(definition: Definition, now_us: int, audiences: Audiences, parameters: Parameters) -> str:
    if definition.of == "groups":
        return GroupStatement(definition, audiences, now_us, parameters).members_sql()
    statement = Statement(definition, audiences, now_us, parameters)
    everybody = "base AS MATERIALIZED (SELECT DISTINCT profile FROM events)"
    tables = ", ".join(
        [everybody, "everybody AS (SELECT profile FROM base)", *statement.sources(), *statement.tables()]
    )
    members = f"SELECT base.profile FROM {statement.joins()} WHERE {statement.condition}"
    return f"WITH {tables}, members AS MATERIALIZED ({members})"


def _run(connection: Connection, statement: str, parameters: Parameters) -> Any:
    if EXACT_NUMBER in statement or EXACT_RATIO in statement:
        register(connection)
    return connection.execute(statement, parameters.of(statement))
