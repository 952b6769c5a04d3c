"""Offline conversions in the form of Meta's Conversions API for datasets."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
from headrace_destination_meta_offline import events, people
from headrace_destination_meta_offline.destination import MANIFEST, MetaOffline
from headrace_destination_meta_offline.settings import MetaOfflineSettings
from pydantic import ValidationError

from headrace.connector.wire import describe
from headrace.plugins.mapping import compile_mapping
from headrace_sdk import EventBatch, EventItem, Profile, RecordRejected, Request, Skip, Sources
from headrace_sdk.values import sha256
from tests.support.vendors.meta_conversions import problem_of

CASES = json.loads((Path(__file__).parents[2] / "cases" / "normalisation.json").read_text())
CAPI = [case for case in CASES if case["platform"] == "meta_capi"]
NOW_US = 1_796_000_000_000_000
DAY_US = 86_400_000_000
PERSON = Profile(id="p", identifiers={"email": ["ada@example.com"]})
DEFAULTS = compile_mapping(None, describe(MANIFEST))
ORDER = {
    "order_id": "o-7",
    "revenue": 29.8,
    "currency": "eur",
    "products": [{"sku": "S", "price": "14.9", "quantity": 2}],
}


def settings(**more: Any) -> MetaOfflineSettings:
    return MetaOfflineSettings(**{"dataset_id": "1", "access_token": "t", **more})


def event(name: str = "Visit", **more: Any) -> EventItem:
    values = {"kind": "track", "timestamp_us": NOW_US, "received_at_us": NOW_US, "profile": PERSON, **more}
    item = EventItem(message_id="m-1", name=name, **values)
    return dataclasses.replace(item, fields={**DEFAULTS.event_fields(item), **item.fields})


def made(item: EventItem, **more: Any) -> dict[str, Any]:
    return events.make(item, settings(**more), NOW_US)


def refused(item: EventItem, **more: Any) -> str:
    with pytest.raises(RecordRejected) as caught:
        events.make(item, settings(**more), NOW_US)
    return caught.value.reason


@pytest.mark.parametrize("case", CAPI, ids=lambda case: f"{case['field']}:{case['raw']}")
def test_values_are_sent_as_metas_own_clients_send_them(case: dict[str, Any]) -> None:
    if case["expect"] == "reject":
        with pytest.raises(RecordRejected):
            people.normalise(case["field"], case["raw"])
        return
    found = people.normalise(case["field"], case["raw"])
    assert found.normalised == case["normalised"]
    assert found.sent == (case["sha256"] or sha256(found.normalised))


@pytest.mark.parametrize(("field", "raw"), [("fbc", "fb.1.1.x"), ("ip", "1.1.1.1"), ("madid", "x"), ("dobd", "32")])
def test_what_offline_events_do_not_take_is_refused(field: str, raw: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        people.normalise(field, raw)
    assert caught.value.field == field


def test_it_takes_offline_events_alone() -> None:
    assert MANIFEST.sources is Sources.OFFLINE
    assert {str(one) for one in MANIFEST.capabilities} == {"forwarding", "check"}


def test_an_order_of_a_store() -> None:
    traits = {"country": "US", "state": "California", "zip": "94301-1234", "gender": "female", "birthday": "1990-02-03"}
    profile = Profile(id="p", identifiers={"email": ["a@x.de", "b@x.de"], "user_id": ["u"]}, traits=traits)
    assert made(event("Purchased", profile=profile, properties={**ORDER, "item_number": 2})) == {
        "event_name": "Purchase", "event_time": 1_796_000_000, "event_id": "m-1", "action_source": "physical_store",
        "user_data": {
            "em": [sha256("a@x.de"), sha256("b@x.de")], "external_id": sha256("u"), "ge": sha256("f"),
            "db": sha256("19900203"), "st": sha256("ca"), "zp": sha256("94301"), "country": sha256("us"),
        },
        "custom_data": {
            "value": 29.8, "currency": "EUR", "order_id": "o-7", "item_number": "2", "content_type": "product",
            "contents": [{"id": "S", "quantity": 2, "item_price": 14.9}],
        },
    }  # fmt: skip


def test_what_meta_would_refuse_is_left_out() -> None:
    assert made(event(timestamp_us=NOW_US - 62 * DAY_US))["event_time"] == 1_790_643_200
    assert "more than 62 days ago" in refused(event(timestamp_us=NOW_US - 62 * DAY_US - 1))
    assert "future" in refused(event(timestamp_us=NOW_US + 60_000_001))
    assert "Purchase needs value" in refused(event("Order Completed"))
    assert "Purchase needs currency" in refused(event("Order Completed", properties={"revenue": 1}))
    assert made(event("Order Completed", properties={"revenue": 1}), currency="USD")["custom_data"]["currency"] == "USD"
    assert "page events are no conversions" in refused(event(kind="page"))
    assert "leaves it out" in refused(event("Visit"), event_names={"visit": ""})
    assert made(event("Visit"), event_names={"visit": "Schedule"})["event_name"] == "Schedule"
    assert "db alone" in refused(event(profile=Profile(id="p", traits={"birthday": "1990-02-03"})))
    assert refused(event(profile=Profile(id="p", identifiers={"email": ["x"]}))) == "email is no e-mail address"


def test_what_is_online_is_not_sent_of_an_event() -> None:
    context = {"ip": "203.0.113.7", "userAgent": "UA", "page": {"url": "https://s.example/?fbclid=A"}, "fbp": "x"}
    data = made(event(context=context, identifiers={"fbc": ["fb.1.1790000000000.A"], "anonymous_id": ["a"]}))
    assert data["user_data"] == {"em": sha256("ada@example.com")}
    assert set(data) == {"event_name", "event_time", "event_id", "action_source", "user_data"}


def test_the_events_own_words_go_before_the_settings() -> None:
    fields = {"limited_data_use": False, "custom_data": {"till": 7, "value": "x"}, "lead_id": "42"}
    data = made(event(properties={"event_id": "e-1", "value": 3}, fields=fields), limited_data_use=True)
    assert data["event_id"] == "e-1" and "data_processing_options" not in data
    assert data["custom_data"] == {"till": 7, "value": 3} and data["user_data"]["lead_id"] == 42
    data = made(event(), limited_data_use=True, limited_data_use_country=1, limited_data_use_state=1000)
    assert [data[f"data_processing_options{part}"] for part in ("", "_country", "_state")] == [["LDU"], 1, 1000]


def test_what_is_made_keeps_metas_rules() -> None:
    for name in [*(one.name for one in events.STANDARD), "Visit"]:
        data = {**made(event(name, properties=ORDER)), "event_time": int(time.time()) - 61 * 86_400}
        assert problem_of(data, strict_about_websites=True) is None


def test_requests_name_their_places() -> None:
    items = [event(f"Visit {n}") for n in range(1_200)]
    items[3] = event(kind="page")
    connector = MetaOffline(settings(app_secret="s3", upload_tag="store 7", test_event_code="TEST7"))
    built = list(connector.send_events(EventBatch(events=tuple(items), now_us=NOW_US)))
    assert [one.item for one in built if isinstance(one, Skip)] == [3]
    requests = [one for one in built if isinstance(one, Request)]
    assert [len(one.items) for one in requests] == [1_000, 199]
    assert [place for one in requests for place in one.items] == [n for n in range(1_200) if n != 3]
    body = json.loads(requests[0].body)
    assert (body["upload_tag"], body["test_event_code"]) == ("store 7", "TEST7")
    assert body["appsecret_proof"] in requests[0].secrets
    assert requests[0].url == "https://graph.facebook.com/v25.0/1/events"


@pytest.mark.parametrize(
    "wrong",
    [{"dataset_id": "x"}, {"access_token": "a b"}, {"currency": "Euro"}, {"api_version": "25"}, {"pixel_id": "1"}],
)
def test_settings_that_cannot_work_are_refused_without_quoting_secrets(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**wrong)
    assert "a b" not in str(caught.value)
