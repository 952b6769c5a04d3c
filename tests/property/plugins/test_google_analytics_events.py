"""Whatever events hold, each is accounted for once, keeps Google's limits, and leaves no person in an address."""

from __future__ import annotations

import json
import re
from typing import Any

from headrace_destination_google_analytics_4.destination import GoogleAnalytics4
from headrace_destination_google_analytics_4.fields import FIELDS
from headrace_destination_google_analytics_4.settings import GoogleAnalyticsSettings
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import EventBatch, EventItem, Request, Skip

NOW_US = 1_796_000_000_000_000
NAMES = (
    st.sampled_from(["Order Completed", "Product Viewed", "purchase", "a b", "", "session_start", "ünï"]) | st.text()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=150),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=45), inner, max_size=30),
    max_leaves=40,
)
PRODUCTS = st.lists(st.dictionaries(st.sampled_from(["sku", "name", "price", "url", "x y", "list"]), JSON), max_size=3)
FIELD_VALUES = st.dictionaries(st.sampled_from([field.name for field in FIELDS]), JSON, max_size=12)
EVENTS = st.builds(
    EventItem,
    message_id=st.just("m"),
    kind=st.sampled_from(["track", "track", "page", "screen", "group", "identify", "alias"]),
    name=NAMES,
    timestamp_us=st.integers(NOW_US - 4 * 86_400_000_000, NOW_US + 86_400_000_000) | st.just(0),
    fields=st.builds(
        lambda values, items: {"client_id": "secret-person", **values, **({"items": items} if items else {})},
        FIELD_VALUES,
        PRODUCTS,
    ),
)


@given(st.lists(EVENTS, max_size=4), st.booleans())
def test_events(events: list[EventItem], send_user_data: bool) -> None:
    settings = GoogleAnalyticsSettings.model_validate(
        {"api_secret": "s", "measurement_id": "G-1", "send_user_data": send_user_data}
    )
    built = list(GoogleAnalytics4(settings).send_events(EventBatch(events=tuple(events), now_us=NOW_US)))
    requests = [one for one in built if isinstance(one, Request)]
    places = [place for request in requests for place in request.items]
    places += [one.item for one in built if isinstance(one, Skip)]
    assert sorted(places) == list(range(len(events)))
    for request in requests:
        assert request.url == "https://www.google-analytics.com/mp/collect?measurement_id=G-1"
        check(json.loads(request.body, parse_constant=lambda constant: (_ for _ in ()).throw(ValueError(constant))))


def check(body: dict[str, Any]) -> None:
    assert body["client_id"]
    assert body.get("timestamp_micros", NOW_US) <= NOW_US
    assert len(body.get("user_properties", {})) <= 25
    (event,) = body["events"]
    assert re.fullmatch(r"[^\W\d_]\w{0,39}", event["name"])
    assert len(event["params"]) <= 25
    for name, value in event["params"].items():
        assert re.fullmatch(r"[^\W\d_]\w{0,39}", name)
        for scalar in [inner for item in value for inner in item.values()] if name == "items" else [value]:
            assert isinstance(scalar, str | int | float | bool)
            assert not isinstance(scalar, str) or len(scalar) <= 1000
