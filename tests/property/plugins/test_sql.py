"""Every event of a batch is accounted for once, every row has one key, and no URL holds anything of a person."""

from __future__ import annotations

import json

from headrace_destination_sql.destination import Sql
from headrace_destination_sql.settings import SqlSettings
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import EventBatch, EventItem, Profile, Request

CONNECTOR = Sql(SqlSettings(url="postgresql://headrace@db.example/shop"))
texts = st.text(max_size=8)
events = st.builds(
    EventItem,
    message_id=st.sampled_from("abcdef"),
    kind=st.just("track"),
    name=texts,
    timestamp_us=st.integers(-(2**62), 2**62),
    properties=st.dictionaries(texts, st.none() | st.integers() | texts, max_size=3),
    profile=st.none() | st.builds(Profile, id=st.sampled_from("pqr"), traits=st.dictionaries(texts, texts, max_size=2)),
    fields=st.dictionaries(st.sampled_from(["email", "user_id"]), st.none() | texts | st.lists(texts, max_size=2)),
)


@given(st.lists(events, min_size=1, max_size=8))
def test_every_event_is_accounted_for(batch: list[EventItem]) -> None:
    (request,) = CONNECTOR.send_events(EventBatch(events=tuple(batch), now_us=0))
    assert isinstance(request, Request)
    assert request.items == tuple(range(len(batch)))
    assert request.url == "sql://db.example/shop"
    steps = json.loads(request.body)["statements"]
    ids = [row["message_id"] for row in steps[0]["rows"]]
    assert sorted(ids) == sorted({event.message_id for event in batch})
    people = [row["profile_id"] for step in steps[1:] for row in step["rows"]]
    assert sorted(people) == sorted({event.profile.id for event in batch if event.profile is not None})
