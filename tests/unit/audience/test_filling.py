"""Histories as they are brought into columns: events that repeat, and many at once."""

from __future__ import annotations

import duckdb
import numpy as np
from headrace_audience.batch import queries
from headrace_audience.engine.columns import NarrowColumn, hash_of, hashes_of
from headrace_audience.engine.conditions import EventState, key_of
from headrace_audience.engine.list_columns import Event, ListColumn
from headrace_audience.language.spans import Fixed
from hypothesis import example, given
from hypothesis import strategies as st

NOW = 1_000
EVENTS = st.tuples(st.integers(1, 10).map(lambda tenth: tenth * NOW // 10), st.sampled_from("abc"))


def test_the_newest_events_are_given_though_some_repeat() -> None:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE events AS SELECT * FROM (VALUES ('p', 30, 'c'), ('p', 30, 'c'), ('p', 30, 'c'),"
            " ('p', 20, 'b'), ('p', 10, 'a'), ('q', 30, 'c'), ('q', 20, 'b'), ('q', 10, 'a'),"
            " ('q', 5, 'z'), ('later', 2000, 'd')) e(profile, timestamp_us, message_id),"
            " (SELECT 'track' AS kind, 'Viewed' AS name)"
        )
        table = queries.condition_history(connection, key_of(EventState(("Viewed",), (), 3)), NOW)
    rows = set(zip(*(table.column(c).to_pylist() for c in ("profile", "timestamp_us", "message_id")), strict=True))
    newest = {("p", 30, "c"), ("p", 20, "b"), ("p", 10, "a"), ("q", 30, "c"), ("q", 20, "b"), ("q", 10, "a")}
    assert rows == newest | {("later", 2000, "d")}


@given(
    st.lists(st.tuples(st.integers(0, 1), EVENTS), max_size=10),
    st.lists(st.tuples(st.integers(0, 3), EVENTS), max_size=30),
    st.sampled_from([None, Fixed(10), Fixed(400)]),
)
@example([], [(0, (500, "b")), (0, (500, "a")), (0, (500, "b"))], None)  # the same time, and the same event again
def test_many_events_at_once_are_the_same_as_one_after_the_other(
    live: list[tuple[int, Event]], past: list[tuple[int, Event]], span: Fixed | None
) -> None:
    bulk, single = ListColumn(span), ListColumn(span)
    for column in (bulk, single):
        for ordinal, event in live:
            column.insert(ordinal, event, NOW)
    ordinals, times = (np.array(column, np.int64) for column in ([o for o, _ in past], [e[0] for _, e in past]))
    changed = bulk.extend(ordinals, times, [e for _, e in past], NOW)
    one_by_one = {o for o, e in past if single.insert(o, e, NOW)}
    assert set(changed.tolist()) == one_by_one
    for ordinal in range(4):
        assert bulk.of(ordinal) == single.of(ordinal)
        assert bulk.is_complete(ordinal, NOW) == single.is_complete(ordinal, NOW)
        assert bulk.is_complete(ordinal, NOW // 2) == single.is_complete(ordinal, NOW // 2)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 3), st.integers(-1, 1)), max_size=3),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(-1, 1)), max_size=30),
    st.integers(2, 4),
)
def test_many_times_at_once_are_the_same_as_one_after_the_other(
    live: list[tuple[int, int, int]], past: list[tuple[int, int, int]], keep: int
) -> None:
    bulk, single = NarrowColumn(keep, 4), NarrowColumn(keep, 4)
    for column, parts in ((bulk, [live, past]), (single, [[event] for event in live + past])):
        for events in parts:
            column.insert(*np.array(events, np.int64).reshape(-1, 3).T)
    for ordinal in range(4):
        one = np.array([ordinal])
        assert [a.tolist() for a in bulk.entries(one)] == [a.tolist() for a in single.entries(one)]


@given(st.lists(st.text()))
def test_ids_have_the_same_numbers_one_by_one_and_many_at_once(message_ids: list[str]) -> None:
    encoded = [message_id.encode() for message_id in message_ids]
    assert hashes_of(encoded).tolist() == list(map(hash_of, message_ids))
