"""Rows of people at Meta: stable, free of clear text, and independent of the order of values."""

from __future__ import annotations

import re
from typing import Any

from headrace_destination_meta_audience.destination import MetaAudience
from headrace_destination_meta_audience.normalise import SCHEMA
from headrace_destination_meta_audience.people import normalise, rows_of
from headrace_destination_meta_audience.settings import MetaAudienceSettings
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import MemberBatch, RecordRejected

EMAILS = st.builds("{}@{}.example".format, st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.sampled_from(["x", "y"]))
PHONES = st.integers(10**9, 10**12).map("+{}".format)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "email": st.lists(EMAILS | st.text(max_size=5), max_size=4),
        "phone": st.lists(PHONES | st.text(max_size=5), max_size=4),
        "first_name": st.text(max_size=8),
        "last_name": st.text(max_size=8),
        "city": st.text(max_size=8),
        "state": st.text(max_size=8),
        "zip": st.text(max_size=8),
        "country": st.sampled_from(["de", "US", "??"]),
        "date_of_birth": st.dates().map(str) | st.text(max_size=8),
        "gender": st.sampled_from(["f", "Male", ""]),
    },
)


@given(FIELDS, st.randoms(use_true_random=False))
def test_rows_do_not_depend_on_the_order_of_values(fields: dict[str, Any], random: Any) -> None:
    shuffled = {
        name: random.sample(value, len(value)) if isinstance(value, list) else value for name, value in fields.items()
    }
    try:
        rows = rows_of(fields)
    except RecordRejected:
        try:
            rows_of(shuffled)
        except RecordRejected:
            return
        raise AssertionError("only one order gives rows") from None
    assert rows == rows_of(shuffled)
    assert len({row.key for row in rows}) == len(rows) > 0
    for row in rows:
        assert set(row.data) <= set(SCHEMA)
        assert all(re.fullmatch(r"[0-9a-f]{64}", cell) for cell in row.data.values())


@given(st.sampled_from(["email", "phone", "first_name", "city", "zip", "country", "gender"]), st.text(max_size=20))
def test_normalising_twice_changes_nothing(field: str, value: str) -> None:
    try:
        once = normalise(field, value)
    except RecordRejected:
        return
    again = normalise(field, once.normalised)
    assert again == once
    assert normalise(field, once.sent).sent == once.sent


@given(st.lists(FIELDS, max_size=6))
def test_a_row_is_the_same_row_in_every_batch(people: list[dict[str, Any]]) -> None:
    rows = []
    for fields in people:
        try:
            rows += rows_of(fields)
        except RecordRejected:
            continue
    connector = MetaAudience(MetaAudienceSettings(audience_id="1", access_token="t"))

    def cells(batch: MemberBatch) -> list[Any]:
        import json

        from headrace_sdk import Request

        requests = [built for built in connector.add_members(batch) if isinstance(built, Request)]
        return [row for request in requests for row in json.loads(request.body)["payload"]["data"]]

    together = cells(MemberBatch(rows=tuple(rows), now_us=0))
    alone = [row for one in rows for row in cells(MemberBatch(rows=(one,), now_us=0))]
    assert together == alone
