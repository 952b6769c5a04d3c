"""Whatever events hold, each is accounted for once, keeps LinkedIn's rules, and leaves no person in an address."""

from __future__ import annotations

import json
from typing import Any

from headrace_destination_linkedin_conversions.destination import LinkedInConversions
from headrace_destination_linkedin_conversions.fields import FIELDS
from headrace_destination_linkedin_conversions.settings import LinkedInConversionsSettings
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import EventBatch, EventItem, Request, Skip
from headrace_sdk.values import is_sha256

NOW_US = 1_796_000_000_000_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
VALUES = {
    "email": st.lists(st.emails(), max_size=3),
    "currency": st.sampled_from(["EUR", "usd", "euro"]),
    "value": st.floats() | st.integers() | st.text(),
    "country": st.sampled_from(["de", "x"]),
}
EVENTS = st.builds(
    EventItem,
    message_id=st.just("m"),
    kind=st.sampled_from(["track", "track", "page", "screen", "group", "identify", "alias"]),
    name=st.sampled_from(["Order Completed", "Home", ""]) | st.text(max_size=10),
    timestamp_us=st.integers(-1, NOW_US + 86_400_000_000) | st.just(NOW_US),
    fields=st.fixed_dictionaries({}, optional={field.name: VALUES.get(field.name, JSON) for field in FIELDS}),
)


@given(st.lists(EVENTS, max_size=4))
def test_events(events: list[EventItem]) -> None:
    settings = LinkedInConversionsSettings.model_validate(
        {"access_token": "t", "conversion_rule": "1", "conversion_rules": {"Home": "2"}}
    )
    built = list(LinkedInConversions(settings).send_events(EventBatch(events=tuple(events), now_us=NOW_US)))
    requests = [one for one in built if isinstance(one, Request)]
    places = [place for request in requests for place in request.items]
    places += [one.item for one in built if isinstance(one, Skip)]
    assert sorted(places) == list(range(len(events)))
    for request in requests:
        assert request.url == "https://api.linkedin.com/rest/conversionEvents"
        elements = json.loads(request.body)["elements"]
        assert len(elements) == len(request.items)
        for element in elements:
            check(element)


def check(element: dict[str, Any]) -> None:
    assert NOW_US - 90 * 86_400_000_000 <= element["conversionHappenedAt"] * 1_000 <= NOW_US
    user = element["user"]
    assert user["userIds"] or "userInfo" in user or "externalIds" in user
    assert all(is_sha256(one["idValue"]) for one in user["userIds"] if one["idType"] == "SHA256_EMAIL")
    assert {"firstName", "lastName"} <= set(user.get("userInfo", {"firstName": "", "lastName": ""}))
    if value := element.get("conversionValue"):
        assert len(value["currencyCode"]) == 3 and "e" not in value["amount"].lower()
