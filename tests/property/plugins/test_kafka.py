"""Every event of a batch is one record or left out, in order, and no URL holds anything of a person."""

from __future__ import annotations

import json

from headrace_destination_kafka.destination import Kafka
from headrace_destination_kafka.settings import KafkaSettings
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import EventBatch, EventItem, Profile, Request, Skip

CONNECTOR = Kafka(KafkaSettings(bootstrap_servers=["b.example:9092"], topic="t", topics={"a": "u", "b": ""}))
texts = st.text(max_size=8)
events = st.builds(
    EventItem,
    message_id=texts.filter(bool),
    kind=st.just("track"),
    name=st.sampled_from("abc"),
    timestamp_us=st.integers(0, 2**62),
    identifiers=st.dictionaries(texts, st.lists(texts, max_size=2), max_size=2),
    properties=st.dictionaries(texts, st.none() | st.integers() | texts, max_size=3),
    profile=st.none() | st.builds(Profile, id=texts),
)


@given(st.lists(events, min_size=1, max_size=8))
def test_every_event_is_one_record(batch: list[EventItem]) -> None:
    built = list(CONNECTOR.send_events(EventBatch(events=tuple(batch), now_us=0)))
    skipped = [one.item for one in built if isinstance(one, Skip)]
    requests = [one for one in built if isinstance(one, Request)]
    assert sorted([*skipped, *(place for one in requests for place in one.items)]) == list(range(len(batch)))
    for request in requests:
        assert request.url in ("kafka://b.example:9092/t", "kafka://b.example:9092/u")
        records = [json.loads(line) for line in request.body.split(b"\n")]
        ids = [json.loads(record["value"])["message_id"] for record in records]
        assert ids == [batch[place].message_id for place in request.items]
