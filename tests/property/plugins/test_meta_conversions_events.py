"""Whatever events say: each is sent once or left out with a reason, and what is sent keeps Meta's rules."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from typing import Any

from headrace_destination_meta_conversions.destination import MANIFEST, MetaConversions
from headrace_destination_meta_conversions.settings import MetaConversionsSettings
from hypothesis import given
from hypothesis import strategies as st

from headrace.connector.wire import describe
from headrace.plugins.mapping import compile_mapping
from headrace_sdk import EventBatch, EventItem, Profile, Request, Skip
from tests.support.vendors.meta_conversions import problem_of

NOW_US = time.time_ns() // 1_000
DEFAULTS = compile_mapping(None, describe(MANIFEST))
SCALAR = st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats() | st.text(max_size=8)
ANYTHING = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
)
WORDS = (
    "value",
    "revenue",
    "currency",
    "price",
    "product_id",
    "sku",
    "name",
    "order_id",
    "num_items",
    "status",
    "query",
)
PRODUCT = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("product_id", "sku", "price", "quantity", "name", "delivery_category"), ANYTHING)
)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(WORDS, ANYTHING | st.sampled_from(["EUR", "19.9", 7])),
        "products": st.lists(PRODUCT, max_size=3) | ANYTHING,
        "contents": st.lists(PRODUCT, max_size=2) | ANYTHING,
        "content_ids": ANYTHING,
        "action_source": st.sampled_from(["app", "physical_store", "email", "moon", ""]),
    },
)
CONTEXT = st.fixed_dictionaries(
    {},
    optional={
        "ip": st.sampled_from(["203.0.113.7", "::1", "x"]) | ANYTHING,
        "userAgent": ANYTHING,
        "page": st.fixed_dictionaries(
            {}, optional={"url": st.sampled_from(["https://s.example/?fbclid=A", "http://[", "/x"]) | ANYTHING}
        ),
        "fbc": ANYTHING,
        "device": st.sampled_from([{"type": "ios"}, {"type": "android", "advertisingId": "x"}]) | ANYTHING,
        "os": st.sampled_from([{"version": "1"}]) | ANYTHING,
    },
)
TRAITS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("first_name", "last_name", "gender", "date_of_birth", "city", "state", "zip", "country"),
        ANYTHING | st.sampled_from(["US", "f", "1990-02-03", "New York", "10001-1234"]),
    ),
)
PROFILES = st.none() | st.builds(
    Profile,
    id=st.just("p"),
    identifiers=st.dictionaries(
        st.sampled_from(["email", "phone", "user_id", "fbp"]),
        st.lists(st.sampled_from(["canary@example.com", "+491711234567"]) | st.text(max_size=8), max_size=3),
    ),
    traits=TRAITS,
)
EVENTS = st.builds(
    EventItem,
    message_id=st.text(min_size=1, max_size=5),
    kind=st.sampled_from(["track", "page", "screen", "identify"]),
    name=st.sampled_from(["Order Completed", "Product Added", "Quiz", "added_to_segment", "Signed Up"]),
    timestamp_us=st.integers(NOW_US - 8 * 86_400_000_000, NOW_US + 60_000_000),
    received_at_us=st.just(NOW_US),
    properties=PROPERTIES,
    context=CONTEXT,
    profile=PROFILES,
)


@given(st.lists(EVENTS, max_size=4), st.sampled_from(["", "EUR"]), st.booleans())
def test_every_event_is_sent_by_metas_rules_or_left_out(items: list[EventItem], currency: str, limited: bool) -> None:
    mapped = tuple(dataclasses.replace(item, fields=DEFAULTS.event_fields(item)) for item in items)
    settings = MetaConversionsSettings(
        pixel_id="1", access_token="t", currency=currency, limited_data_use=limited, app_secret="s"
    )
    built = list(MetaConversions(settings).send_events(EventBatch(events=mapped, now_us=NOW_US)))
    places: Counter[int] = Counter()
    for one in built:
        if isinstance(one, Skip):
            places[one.item] += 1
            assert one.reason and "canary@" not in one.reason
        elif isinstance(one, Request):
            places.update(one.items)
            assert one.url == "https://graph.facebook.com/v25.0/1/events"
            body = json.loads(one.body, parse_constant=refuse)
            assert len(body["data"]) == len(one.items)
            for event in body["data"]:
                assert problem_of(event, strict_about_websites=False) is None, event
                assert "canary@" not in json.dumps(event["user_data"])
    assert places == Counter(range(len(items)))


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")
