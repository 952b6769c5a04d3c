"""Whatever offline events say: each is sent once or left out with a reason, and what is sent keeps Meta's rules."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter

from headrace_destination_meta_offline.destination import MANIFEST, MetaOffline
from headrace_destination_meta_offline.settings import MetaOfflineSettings
from hypothesis import given
from hypothesis import strategies as st

from headrace.connector.wire import describe
from headrace.plugins.mapping import compile_mapping
from headrace_sdk import EventBatch, EventItem, Request, Skip
from tests.property.plugins.test_meta_conversions_events import EVENTS, refuse
from tests.support.vendors.meta_conversions import problem_of

NOW_US = time.time_ns() // 1_000
DEFAULTS = compile_mapping(None, describe(MANIFEST))


@given(st.lists(EVENTS, max_size=4), st.sampled_from(["", "EUR"]), st.booleans(), st.integers(0, 70))
def test_every_event_is_sent_by_metas_rules_or_left_out(
    items: list[EventItem], currency: str, limited: bool, days: int
) -> None:
    older = [dataclasses.replace(item, timestamp_us=item.timestamp_us - days * 86_400_000_000) for item in items]
    mapped = tuple(dataclasses.replace(item, fields=DEFAULTS.event_fields(item)) for item in older)
    settings = MetaOfflineSettings(
        dataset_id="1", access_token="t", currency=currency, limited_data_use=limited, app_secret="s"
    )
    places: Counter[int] = Counter()
    for one in MetaOffline(settings).send_events(EventBatch(events=mapped, now_us=NOW_US)):
        if isinstance(one, Skip):
            places[one.item] += 1
            assert one.reason and "canary@" not in one.reason
        elif isinstance(one, Request):
            places.update(one.items)
            assert one.url == "https://graph.facebook.com/v25.0/1/events"
            body = json.loads(one.body, parse_constant=refuse)
            assert len(body["data"]) == len(one.items)
            for event in body["data"]:
                assert event["action_source"] == "physical_store"
                assert problem_of(event, strict_about_websites=True) is None, event
                assert "canary@" not in json.dumps(event["user_data"])
    assert places == Counter(range(len(items)))
