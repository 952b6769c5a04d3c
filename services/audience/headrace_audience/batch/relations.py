"""What is read of the relation `events`, whatever the moment."""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

from collections.abc import Sequence

from headrace.domain.definitions import Predicate
from headrace_audience.batch.values import Parameters, json_path, passes_sql

PROPERTIES = "CASE WHEN json_valid(properties) THEN properties END"


def matching_sql(
    names: Sequence[str], where: Sequence[Predicate], parameters: Parameters, values: Sequence[str] = ()
) -> str:
    """The different events of these names that pass all predicates: profile, timestamp_us, message_id.

    Beside them `values`: further columns, as expressions over the relation.
    """
    named = f"kind = 'track' AND list_contains({parameters.bind(list(names))}, name)"
    if len(names) == 1:
        named = f"kind = 'track' AND name = {parameters.bind(names[0])}"
    columns = ", ".join(["profile, timestamp_us, message_id", *values])
    if not where:
        return f"SELECT DISTINCT {columns} FROM events WHERE {named}"
    tested = [
        f"json_extract({PROPERTIES}, {parameters.bind(json_path(p.path))}) AS tested{i}" for i, p in enumerate(where)
    ]
    tests = [passes_sql(p.test, f"tested{i}", parameters) for i, p in enumerate(where)]
    inner = f"SELECT *, {', '.join(tested)} FROM events WHERE {named}"
    return f"SELECT DISTINCT {columns} FROM ({inner}) WHERE {' AND '.join(tests)}"


def trait_writes_sql(name: str, parameters: Parameters) -> str:
    """All writes of a trait: profile, timestamp_us, message_id, value (JSON, which may be null)."""
    return writes_sql("events", "profile", "traits", name, parameters)


def consent_writes_sql(purpose: str, parameters: Parameters) -> str:
    """Everything that was said of a purpose: profile, timestamp_us, message_id, value (JSON true or false)."""
    return writes_sql("events", "profile", "consents", purpose, parameters)


def touch_writes_sql(name: str, parameters: Parameters) -> str:
    """What was said of a part of touches, such as the browser: profile, timestamp_us, message_id, value (JSON)."""
    return writes_sql("events", "profile", "touch", name, parameters)


def writes_sql(relation: str, whose: str, column: str, name: str, parameters: Parameters) -> str:
    """What a column of JSON objects says of a name: whose it is, timestamp_us, message_id, value."""
    path = parameters.bind(json_path([name]))
    value = f"json_extract(CASE WHEN json_valid({column}) THEN {column} END, {path}) AS value"
    return (
        f"SELECT {whose}, timestamp_us, message_id, value FROM (SELECT {whose}, timestamp_us, message_id, {value}"
        f" FROM {relation} WHERE {column} IS NOT NULL) WHERE value IS NOT NULL"
    )


def identifiers_sql(namespace: str, parameters: Parameters) -> str:
    """When an identifier of a namespace was first seen: profile, timestamp_us."""
    seen = f"list_contains(namespaces, {parameters.bind(namespace)})"
    return f"SELECT profile, min(events.timestamp_us) AS timestamp_us FROM events WHERE {seen} GROUP BY profile"
