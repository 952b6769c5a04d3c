"""Every event of a batch is in one file, files have the same name every time, and no URL holds anything of a person."""

from __future__ import annotations

import json
import re

from headrace_destination_s3.destination import S3
from headrace_destination_s3.settings import S3Settings
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_sdk import EventBatch, EventItem, Profile, Request

SETTINGS = {"bucket": "shop-events", "access_key_id": "k", "secret_access_key": "s", "compression": "none"}
LINES = S3(S3Settings.model_validate(SETTINGS))
TABLES = S3(S3Settings.model_validate({**SETTINGS, "format": "parquet"}))
URL = re.compile(
    r"https://shop-events\.s3\.us-east-1\.amazonaws\.com/headrace/date=\d{4}-\d\d-\d\d/event=[\w.-]+/[0-9a-f]{32}\.\w+",
    re.ASCII,
)
texts = st.text(max_size=8)
events = st.builds(
    EventItem,
    message_id=texts.filter(bool),
    kind=st.just("track"),
    name=texts,
    timestamp_us=st.integers(-(2**62), 2**62),
    identifiers=st.just({"email": ["ada@example.com"]}),
    properties=st.dictionaries(texts, st.none() | st.integers() | texts, max_size=3),
    profile=st.none() | st.builds(Profile, id=texts),
)


@settings(max_examples=25)
@given(st.lists(events, min_size=1, max_size=8))
def test_every_event_is_in_one_file(batch: list[EventItem]) -> None:
    for connector in (LINES, TABLES):
        requests = list(connector.send_events(EventBatch(events=tuple(batch), now_us=0)))
        again = list(connector.send_events(EventBatch(events=tuple(batch), now_us=9)))
        assert requests == again
        places: list[int] = []
        for request in requests:
            assert isinstance(request, Request) and URL.fullmatch(request.url)
            places += request.items
            if connector is LINES:
                ids = [json.loads(line)["message_id"] for line in request.body.splitlines()]
                assert ids == [batch[place].message_id for place in request.items]
        assert sorted(places) == list(range(len(batch)))
