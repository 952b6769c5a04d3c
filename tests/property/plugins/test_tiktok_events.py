"""Whatever events hold, each is accounted for once, keeps TikTok's rules, and leaves no person in an address."""

from __future__ import annotations

import json
from typing import Any

from headrace_destination_tiktok_events.destination import TikTokEvents
from headrace_destination_tiktok_events.fields import FIELDS
from headrace_destination_tiktok_events.settings import TikTokEventsSettings
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import EventBatch, EventItem, Request, Skip
from headrace_sdk.values import is_sha256

NOW_US = 1_796_000_000_000_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
PRODUCTS = st.lists(st.dictionaries(st.sampled_from(["sku", "product_id", "name", "price", "quantity"]), JSON))
VALUES = {
    "products": PRODUCTS,
    "email": st.lists(st.emails(), max_size=3),
    "page_url": st.just("https://x.example/?ttclid=1") | st.text(),
}
FIELD_VALUES = st.fixed_dictionaries({}, optional={field.name: VALUES.get(field.name, JSON) for field in FIELDS})
EVENTS = st.builds(
    EventItem,
    message_id=st.just("m"),
    kind=st.sampled_from(["track", "track", "page", "screen", "group", "identify", "alias"]),
    name=st.sampled_from(["Order Completed", "Product Viewed", "added_to_segment", ""]) | st.text(max_size=10),
    timestamp_us=st.integers(-1, NOW_US + 86_400_000_000),
    fields=FIELD_VALUES,
)


@given(st.lists(EVENTS, max_size=4), st.sampled_from(["web", "app", "offline", "crm"]))
def test_events(events: list[EventItem], source: str) -> None:
    settings = TikTokEventsSettings.model_validate(
        {"access_token": "t", "event_source": source, "event_source_id": "S"}
    )
    built = list(TikTokEvents(settings).send_events(EventBatch(events=tuple(events), now_us=NOW_US)))
    requests = [one for one in built if isinstance(one, Request)]
    places = [place for request in requests for place in request.items]
    places += [one.item for one in built if isinstance(one, Skip)]
    assert sorted(places) == list(range(len(events)))
    for request in requests:
        assert request.url == "https://business-api.tiktok.com/open_api/v1.3/event/track/"
        body = json.loads(request.body)
        assert len(body["data"]) == len(request.items)
        for event in body["data"]:
            check(event)


def check(event: dict[str, Any]) -> None:
    assert event["event"] and isinstance(event["event_id"], str)
    assert 0 <= event["event_time"] <= NOW_US // 1_000_000
    for name in ("email", "phone", "external_id", "first_name", "last_name", "zip_code"):
        found = event["user"].get(name, [])
        assert all(map(is_sha256, found if isinstance(found, list) else [found]))
    properties = event.get("properties", {})
    for content in properties.get("contents", []):
        assert isinstance(content.get("content_id", ""), str)
        assert isinstance(content.get("price", 0), int | float)
