"""Every event of a batch is one row, in order, and no URL holds anything of a person."""

from __future__ import annotations

import json

from headrace_destination_bigquery.destination import COLUMNS, BigQuery
from headrace_destination_bigquery.settings import BigQuerySettings
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import EventBatch, EventItem, Profile, Request

KEY = '{"client_email": "w@example.com", "private_key": "k", "private_key_id": "1", "token_uri": "https://t.example"}'
SETTINGS = {"service_account": KEY, "project": "shop-12345", "dataset": "d"}
CONNECTOR = BigQuery(BigQuerySettings.model_validate(SETTINGS))
ADDRESS = "https://bigquery.googleapis.com/bigquery/v2/projects/shop-12345/datasets/d/tables/headrace_events/insertAll"
texts = st.text(max_size=8)
events = st.builds(
    EventItem,
    message_id=st.text("abc", min_size=1, max_size=200),
    kind=st.just("track"),
    name=texts,
    timestamp_us=st.integers(-(2**62), 2**62),
    properties=st.dictionaries(texts, st.none() | st.integers() | texts, max_size=3),
    profile=st.none() | st.builds(Profile, id=texts),
    fields=st.dictionaries(st.sampled_from(["email", "user_id"]), st.none() | texts | st.lists(texts, max_size=2)),
)


@given(st.lists(events, min_size=1, max_size=8))
def test_every_event_is_one_row(batch: list[EventItem]) -> None:
    (request,) = CONNECTOR.send_events(EventBatch(events=tuple(batch), now_us=0))
    assert isinstance(request, Request) and request.items == tuple(range(len(batch)))
    assert request.url == ADDRESS
    rows = json.loads(request.body)["rows"]
    assert [row["json"]["message_id"] for row in rows] == [event.message_id for event in batch]
    for row in rows:
        assert len(row["insertId"]) <= 128
        assert set(row["json"]) <= {name for name, _ in COLUMNS}
        assert all(isinstance(value, str) and value for value in row["json"].values())
