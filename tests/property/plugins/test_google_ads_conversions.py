"""Whatever events hold, each is accounted for once, in requests that hold nothing of a person in an address."""

from __future__ import annotations

import json
import re

from headrace_destination_google_ads_conversions.destination import GoogleAdsConversions
from headrace_destination_google_ads_conversions.fields import FIELDS
from headrace_destination_google_ads_conversions.settings import GoogleAdsConversionsSettings, Kind
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import ConnectorError, EventBatch, EventItem, Request, Response, Skip

SETTINGS = GoogleAdsConversionsSettings.model_validate(
    {
        "customer_id": "1234567890", "developer_token": "d", "client_id": "c", "client_secret": "s",
        "refresh_token": "r", "send_cart": True,
        "events": {kind: {"conversion_action": "1", "kind": kind} for kind in Kind},
    }
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=10,
)
USUAL = st.fixed_dictionaries(
    {"conversion_time": st.just("2026-11-29T08:00:00Z")},
    optional={
        "gclid": st.just("secret-click"),
        "order_id": st.just("T"),
        "email": st.just("secret@x.de"),
        "value": st.floats(),
        "caller_id": st.just("+491711234567"),
        "call_time": st.datetimes().map(str),
        "items": st.lists(
            st.dictionaries(st.sampled_from(["product_id", "sku", "price", "quantity"]), JSON), max_size=3
        ),
    },
)
ODD = st.dictionaries(st.sampled_from([field.name for field in FIELDS]), JSON, max_size=6)
EVENTS = st.builds(
    EventItem,
    message_id=st.just("m"),
    kind=st.sampled_from(["track", "track", "page"]),
    name=st.sampled_from([*Kind, "other"]),
    fields=st.builds(lambda usual, odd: {**usual, **odd}, USUAL, ODD),
)
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d")


@given(st.lists(EVENTS, max_size=6))
def test_events(events: list[EventItem]) -> None:
    built = list(GoogleAdsConversions(SETTINGS).send_events(EventBatch(events=tuple(events), now_us=0)))
    requests = [one for one in built if isinstance(one, Request)]
    places = [place for request in requests for place in request.items]
    assert sorted(places + [one.item for one in built if isinstance(one, Skip)]) == list(range(len(events)))
    for request in requests:
        assert re.fullmatch(r"https://googleads.googleapis.com/v26/customers/1234567890:upload\w+", request.url)
        body = json.loads(request.body)
        uploads = body.get("conversions") or body["conversionAdjustments"]
        assert len(uploads) == len(request.items)
        for upload in uploads:
            assert "secret@" not in json.dumps(upload)
            assert all(TIME.fullmatch(value) for name, value in upload.items() if name.endswith("DateTime"))


@given(st.integers(100, 599), st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_answer_is_delivered_unless_google_says_so(status: int, body: bytes) -> None:
    connector = GoogleAdsConversions(SETTINGS)
    request = Request(method="POST", url="https://x/:uploadClickConversions", items=(0, 1))
    try:
        found = connector.read(request, Response(status=status, body=body))
    except ConnectorError:
        return
    assert len(found.items) == 2
    assert b"results" in body or b"partialFailureError" in body
