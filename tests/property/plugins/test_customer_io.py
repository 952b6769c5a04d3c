"""Whatever events and members hold, each is accounted for once, keeps Customer.io's rules, nobody is in an address."""

from __future__ import annotations

import json

from headrace_destination_customer_io.destination import CustomerIo
from headrace_destination_customer_io.fields import FIELDS
from headrace_destination_customer_io.segments import rows_of
from headrace_destination_customer_io.settings import CustomerIoSettings
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from headrace_sdk import EventBatch, EventItem, MemberBatch, RecordRejected, Request, Row, Skip
from tests.support.vendors.customer_io import wrong_operation

NOW_US = 1_796_000_000_000_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
IDS = st.text(max_size=3) | st.just("x" * 151) | st.lists(st.text(max_size=3), max_size=2)
TRAITS = st.dictionaries(st.sampled_from(["email", "plan", "x" * 151]), JSON | st.just("v" * 1_001))
VALUES = {"user_id": IDS, "email": IDS | st.emails(), "traits": TRAITS | JSON, "group_id": IDS}
FIELD_VALUES = st.fixed_dictionaries({}, optional={field.name: VALUES.get(field.name, JSON) for field in FIELDS})
EVENTS = st.builds(
    EventItem,
    message_id=st.text(min_size=1, max_size=50),
    kind=st.sampled_from(["track", "track", "page", "screen", "group", "identify", "alias"]),
    name=st.sampled_from(["Order Completed", "added_to_segment", "", "ü" * 51]) | st.text(max_size=10),
    timestamp_us=st.integers(-1, NOW_US + 86_400_000_000),
    received_at_us=st.integers(NOW_US - 86_400_000_000, NOW_US),
    previous_id=st.text(max_size=3),
    fields=FIELD_VALUES,
)
URLS = {f"https://track.customer.io{path}" for path in ("/api/v2/batch", "/api/v1/events")}


@examples(max_examples=50)
@given(st.lists(EVENTS, max_size=4), st.sampled_from(["id", "email"]))
def test_events(events: list[EventItem], identify_by: str) -> None:
    settings = CustomerIoSettings.model_validate({"site_id": "s", "api_key": "k", "identify_by": identify_by})
    built = list(CustomerIo(settings).send_events(EventBatch(events=tuple(events), now_us=NOW_US)))
    requests = [one for one in built if isinstance(one, Request)]
    places = [place for request in requests for place in request.items]
    places += [one.item for one in built if isinstance(one, Skip)]
    assert sorted(places) == list(range(len(events)))
    for request in requests:
        assert request.url in URLS
        body = json.loads(request.body)
        operations = body.get("batch", [])
        assert len(operations or [body]) == len(request.items)
        assert [wrong_operation(one) for one in operations] == [("", "")] * len(operations)
        if not operations:
            assert body["anonymous_id"] and body["name"] and len(body["id"]) == 26


@given(st.lists(st.lists(st.text(max_size=5) | st.emails(), max_size=3), max_size=5), st.sampled_from(["id", "email"]))
def test_members(people: list[list[str]], identify_by: str) -> None:
    known = {"site_id": "s", "api_key": "k", "segment_id": "7", "identify_by": identify_by}
    settings = CustomerIoSettings.model_validate(known)
    rows: list[Row] = []
    for ids in people:
        try:
            found = rows_of({"user_id": ids, "email": ids}, settings)
        except RecordRejected:
            continue
        assert found == rows_of({"user_id": ids[::-1], "email": ids[::-1]}, settings)
        rows += found
    requests = list(CustomerIo(settings).add_members(MemberBatch(rows=tuple(rows), now_us=0)))
    assert [place for one in requests if isinstance(one, Request) for place in one.items] == list(range(len(rows)))
    url = f"https://track.customer.io/api/v1/segments/7/add_customers?id_type={identify_by}"
    assert all(isinstance(one, Request) and one.url == url for one in requests)
