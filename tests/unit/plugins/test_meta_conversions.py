"""Events in the form of Meta's Conversions API: names, values, people, what is left out and why."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from headrace_destination_meta_conversions import events, people
from headrace_destination_meta_conversions.destination import MANIFEST, MetaConversions
from headrace_destination_meta_conversions.settings import MetaConversionsSettings
from pydantic import ValidationError

from headrace.connector.wire import describe
from headrace.plugins.mapping import compile_mapping
from headrace_sdk import Built, EventBatch, EventItem, Note, Profile, RecordRejected, Request, Skip
from headrace_sdk.values import sha256
from tests.support.vendors.meta_conversions import problem_of

CASES = json.loads((Path(__file__).parents[2] / "cases" / "normalisation.json").read_text())
CAPI = [case for case in CASES if case["platform"] == "meta_capi"]
NOW_US = 1_796_000_000_000_000
DAY_US = 86_400_000_000
PERSON = Profile(id="p", identifiers={"email": ["ada@example.com"]})
DEFAULTS = compile_mapping(None, describe(MANIFEST))


def settings(**more: Any) -> MetaConversionsSettings:
    return MetaConversionsSettings(**{"pixel_id": "1", "access_token": "t", **more})


def event(name: str = "Quiz taken", **more: Any) -> EventItem:
    values = {"kind": "track", "timestamp_us": NOW_US, "received_at_us": NOW_US, "profile": PERSON, **more}
    item = EventItem(message_id="m-1", name=name, **values)
    return dataclasses.replace(item, fields={**DEFAULTS.event_fields(item), **item.fields})


def made(item: EventItem, **more: Any) -> dict[str, Any]:
    """The event at Meta."""
    return events.make(item, settings(**more), NOW_US).data


def refused(item: EventItem, **more: Any) -> str:
    with pytest.raises(RecordRejected) as caught:
        events.make(item, settings(**more), NOW_US)
    return caught.value.reason


@pytest.mark.parametrize("case", CAPI, ids=lambda case: f"{case['field']}:{case['raw']}")
def test_values_are_sent_as_metas_own_clients_send_them(case: dict[str, Any]) -> None:
    if case["expect"] == "reject":
        with pytest.raises(RecordRejected) as caught:
            people.normalise(case["field"], case["raw"])
        assert len(case["raw"]) < 3 or case["raw"] not in caught.value.reason
        return
    found = people.normalise(case["field"], case["raw"])
    assert found.normalised == case["normalised"]
    assert found.sent == (case["sha256"] or sha256(found.normalised))


@pytest.mark.parametrize(
    ("field", "raw", "sent"),
    [
        ("date_of_birth", "1990-02-03", sha256("19900203")),
        ("user_id", " Ab ", sha256("Ab")),
        ("external_id", "x", sha256("x")),
        ("ip", "2001:0DB8::1", "2001:db8::1"),
        ("user_agent", " UA/1.0 ", "UA/1.0"),
        ("fbc", "fb.1.1796000000000.Ab.Cd", "fb.1.1796000000000.Ab.Cd"),
        ("fbclid", "IwAR0_-x", "IwAR0_-x"),
        ("madid", "AEBE52E7-03EE-455A-B3C4-E57283966239", "aebe52e7-03ee-455a-b3c4-e57283966239"),
    ],
)
def test_values_beyond_the_cases(field: str, raw: str, sent: str) -> None:
    assert people.normalise(field, raw).sent == sent


@pytest.mark.parametrize(
    ("field", "raw"),
    [
        ("ip", "300.1.1.1"), ("fbc", "IwAR0"), ("fbp", "fb.1.1.1"), ("fbclid", "a b"), ("madid", "x"), ("doby", "1800"),
        ("dobm", "13"), ("dobd", "x"), ("user_agent", "x" * 513), ("value", "1"), ("shoe_size", "42"),
    ],
)  # fmt: skip
def test_unusable_values_are_refused(field: str, raw: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        people.normalise(field, raw)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("kind", "name", "chosen", "found"),
    [
        ("track", "Order Completed", {}, "Purchase"), ("track", "Purchased", {}, "Purchase"),
        ("track", "Product Added", {}, "AddToCart"), ("track", "Added to cart", {}, "AddToCart"),
        ("track", "Checkout Started", {}, "InitiateCheckout"), ("track", "Product Viewed", {}, "ViewContent"),
        ("track", "Products Searched", {}, "Search"), ("track", "Signed Up", {}, "CompleteRegistration"),
        ("track", "AddPaymentInfo", {}, "AddPaymentInfo"), ("track", "Lead", {}, "Lead"),
        ("track", "Quiz taken", {}, "Quiz taken"), ("track", "Quiz taken", {"quiz_taken": "Quiz"}, "Quiz"),
        ("track", "Product Added", {"Product Added": "Basket"}, "Basket"),
        ("track", "Added to cart", {"Product Added": "Basket"}, "Basket"),
        ("page", "", {}, "PageView"), ("page", "Contact", {}, "PageView"),
        ("page", "Pricing", {"pricing": "ViewContent"}, "ViewContent"), ("page", "x", {"page": "Seen"}, "Seen"),
        ("screen", "Home", {"Home": "ViewContent"}, "ViewContent"), ("identify", "", {"identify": "Lead"}, "Lead"),
    ],
)  # fmt: skip
def test_names_of_events(kind: str, name: str, chosen: dict[str, str], found: str) -> None:
    item = event(name, kind=kind, properties={"value": 1, "currency": "EUR"})
    assert made(item, event_names=chosen)["event_name"] == found


@pytest.mark.parametrize(
    ("kind", "name", "chosen", "reason"),
    [
        ("track", "Product Viewed", {"Product Viewed": ""}, "leaves it out"),
        ("page", "Home", {"page": ""}, "leaves it out"),
        ("screen", "Home", {}, "screen events are sent only under a name"),
        ("identify", "", {}, "identify events are sent only under a name"),
        ("alias", "", {}, "alias events"),
    ],
)
def test_events_that_are_left_out(kind: str, name: str, chosen: dict[str, str], reason: str) -> None:
    assert reason in refused(event(name, kind=kind), event_names=chosen)


def test_times_are_those_that_meta_takes() -> None:
    assert made(event(timestamp_us=NOW_US - 7 * DAY_US))["event_time"] == 1_795_395_200
    assert "more than 7 days ago" in refused(event(timestamp_us=NOW_US - 7 * DAY_US - 1))
    store: dict[str, Any] = {"properties": {"action_source": "physical_store"}}
    assert made(event(timestamp_us=NOW_US - 62 * DAY_US, **store))["action_source"] == "physical_store"
    assert "more than 62 days ago" in refused(event(timestamp_us=NOW_US - 62 * DAY_US - 1, **store))
    assert made(event(timestamp_us=NOW_US + 60_000_000))["event_time"] == 1_796_000_060
    assert "future" in refused(event(timestamp_us=NOW_US + 60_000_001))


def test_a_purchase_needs_value_and_currency() -> None:
    order = {"revenue": "19.90", "currency": "eur", "order_id": 7}
    assert made(event("Order Completed", properties=order))["custom_data"] == {
        "value": 19.9, "currency": "EUR", "order_id": "7",
    }  # fmt: skip
    assert made(event("Order Completed", properties={"total": 0}), currency="USD")["custom_data"] == {
        "value": 0, "currency": "USD",
    }  # fmt: skip
    assert "Purchase needs value" in refused(event("Order Completed", properties={"currency": "EUR"}))
    assert "Purchase needs currency" in refused(event("Order Completed", properties={"revenue": 1}))
    assert "Purchase needs currency" in refused(event("Order Completed", properties={"revenue": 1, "currency": "Euro"}))
    assert "custom_data" not in made(event("Quiz taken"))


def test_products_become_contents() -> None:
    shoe = {"product_id": 7, "sku": "S", "name": "Shoe", "category": "Shoes", "price": "9.50", "quantity": "2"}
    (viewed, added, cart, listed) = (
        made(event(name, properties=properties)).get("custom_data")
        for name, properties in (
            ("Product Viewed", {**shoe, "currency": "EUR"}),
            ("Product Added", {"sku": "S"}),
            ("Checkout Started", {"products": [shoe, {"sku": "T", "delivery_category": "curbside"}], "value": 20}),
            ("Product List Viewed", {"contents": [{"id": 1, "item_price": 2}], "content_type": "product_group"}),
        )
    )
    assert viewed == {
        "value": 9.5, "currency": "EUR", "content_ids": ["7"], "content_type": "product", "content_name": "Shoe",
        "content_category": "Shoes", "contents": [{"id": "7", "quantity": 2, "item_price": 9.5}],
    }  # fmt: skip
    assert added == {"content_ids": ["S"], "content_type": "product", "contents": [{"id": "S", "quantity": 1}]}
    assert cart == {
        "value": 20, "content_ids": ["7", "T"], "content_type": "product", "num_items": 3,
        "contents": [
            {"id": "7", "quantity": 2, "item_price": 9.5}, {"id": "T", "quantity": 1, "delivery_category": "curbside"},
        ],
    }  # fmt: skip
    assert listed == {
        "content_ids": ["1"], "content_type": "product_group",
        "contents": [{"id": "1", "quantity": 1, "item_price": 2}],
    }  # fmt: skip


def test_what_belongs_to_one_standard_event_goes_with_it_alone() -> None:
    properties = {"query": "shoes", "status": True, "predicted_ltv": "99.5"}
    assert made(event("Products Searched", properties=properties))["custom_data"] == {
        "search_string": "shoes", "predicted_ltv": 99.5,
    }  # fmt: skip
    assert made(event("Signed Up", properties=properties))["custom_data"] == {"status": True, "predicted_ltv": 99.5}


def test_names_of_people_never_become_names_of_content() -> None:
    item = event("Signed Up", properties={"name": "Ada Lovelace", "email": "ada@example.com"})
    assert "Ada" not in json.dumps(made(item)) and "ada@" not in json.dumps(made(item))


def test_other_properties_go_only_where_the_mapping_says_so() -> None:
    item = event("Quiz taken", properties={"score": 7, "value": 3}, fields={"custom_data": {"score": 7, "value": "x"}})
    assert made(item)["custom_data"] == {"score": 7, "value": 3}
    assert made(event("Quiz taken", properties={"score": 7})).get("custom_data") is None


def test_people_who_are_not_known_are_found_by_their_browser() -> None:
    nobody: dict[str, Any] = {"profile": None}
    context = {"ip": "203.0.113.7", "userAgent": "UA", "page": {"url": "https://s.example/?fbclid=IwAR0&x=1"}}
    assert made(event(context=context, **nobody))["user_data"] == {
        "client_ip_address": "203.0.113.7", "client_user_agent": "UA", "fbc": "fb.1.1796000000000.IwAR0",
    }  # fmt: skip
    known = {"fbc": ["fb.1.1790000000000.A"], "fbp": ["fb.1.1790000000000.1"], "fbclid": ["B"], "anonymous_id": ["a"]}
    assert made(event(identifiers=known, **nobody))["user_data"] == {
        "external_id": sha256("a"), "fbc": "fb.1.1790000000000.A", "fbp": "fb.1.1790000000000.1",
    }  # fmt: skip
    assert made(event(context={"clickIds": {"fbclid": "B"}}, **nobody))["user_data"]["fbc"].endswith(".B")
    profile = Profile(id="", identifiers={"fbp": ["fb.1.1790000000000.1"]})
    assert made(event("added_to_segment", profile=profile))["user_data"] == {"fbp": "fb.1.1790000000000.1"}


@pytest.mark.parametrize(
    ("traits", "reason"),
    [
        ({"gender": "f", "city": "Ulm", "country": "DE", "zip": "1", "state": "BW"}, "country, ct, ge, st, zp alone"),
        ({"date_of_birth": "1990-02-03"}, "db alone"),
        ({"first_name": "Ada", "gender": "f"}, "fn, ge alone"),
        ({"last_name": "Ada"}, "ln alone"),
        ({}, "nothing is known of the person"),
    ],
)
def test_people_of_whom_too_little_is_known_are_left_out(traits: dict[str, Any], reason: str) -> None:
    assert reason in refused(event(profile=Profile(id="p", traits=traits)))


def test_a_value_that_cannot_be_used_is_the_reason_when_nothing_else_is_known() -> None:
    item = event(profile=Profile(id="p", identifiers={"email": ["not an address"]}))
    assert refused(item) == "email is no e-mail address"


def test_more_values_are_a_list_one_is_a_text() -> None:
    identifiers = {"email": ["a@x.de", "A@x.de", "b@x.de"], "phone": ["+49 171 1234567"], "user_id": ["u"]}
    traits = {"country": "US", "state": "New York", "zip": "10001-1234", "firstName": "Ada"}
    user = made(event(profile=Profile(id="p", identifiers=identifiers, traits=traits)))["user_data"]
    assert user == {
        "em": [sha256("a@x.de"), sha256("b@x.de")], "ph": sha256("491711234567"), "external_id": sha256("u"),
        "fn": sha256("ada"), "country": sha256("us"), "st": sha256("ny"), "zp": sha256("10001"),
    }  # fmt: skip
    assert made(event(identifiers={"user_id": ["u"]}, profile=None), hash_user_id=False)["user_data"] == {
        "external_id": "u"
    }


def test_the_events_own_words_go_before_the_settings() -> None:
    own = {"event_id": "browser-1", "action_source": "chat"}
    data = made(event(properties=own, fields={"limited_data_use": "false", "opt_out": 1}), limited_data_use=True)
    assert (data["event_id"], data["action_source"], data["opt_out"]) == ("browser-1", "chat", True)
    assert "data_processing_options" not in data
    data = made(event(properties={"action_source": "moon"}), limited_data_use=True, action_source="email")
    assert (data["event_id"], data["action_source"]) == ("m-1", "email")
    assert [data[f"data_processing_options{part}"] for part in ("", "_country", "_state")] == [["LDU"], 0, 0]
    place = {"limited_data_use_country": 1, "limited_data_use_state": 1000}
    data = made(event(fields={"limited_data_use": True}), **place)
    assert [data[f"data_processing_options{part}"] for part in ("", "_country", "_state")] == [["LDU"], 1, 1000]


def test_a_membership_is_an_event_of_the_moment_when_it_changed() -> None:
    properties = {"audience_id": "gold", "sync_id": "s", "since": "2020-01-01T00:00:00Z"}
    item = event("added_to_segment", properties=properties, timestamp_us=NOW_US - 90 * DAY_US)
    data = made(item)
    assert (data["event_name"], data["event_time"]) == ("added_to_segment", 1_796_000_000)
    assert (data["action_source"], data["custom_data"]) == ("system_generated", {"audience_id": "gold"})
    assert made(item, event_names={"added_to_segment": "Lead"})["event_name"] == "Lead"


def test_app_events_say_what_app_and_device_it_is() -> None:
    context = {
        "app": {"namespace": "com.acme", "version": "2.0", "build": 7}, "device": {"type": "iOS", "model": "iPhone17"},
        "os": {"name": "iOS", "version": "19.1"}, "locale": "de-DE", "timezone": "Europe/Berlin",
        "network": {"carrier": "Acme"}, "screen": {"width": 390, "height": 844, "density": 3},
    }  # fmt: skip
    data = made(event(context=context), action_source="app")
    assert data["app_data"] == {
        "advertiser_tracking_enabled": 0, "application_tracking_enabled": 0,
        "extinfo": [
            "i2", "com.acme", "7", "2.0", "19.1", "iPhone17", "de-DE", "", "Acme", "390", "844", "3", "", "", "",
            "Europe/Berlin",
        ],
    }  # fmt: skip
    context["device"] = {"type": "Android", "adTrackingEnabled": True}
    data = made(event(context=context), action_source="app")
    assert (data["app_data"]["extinfo"][0], data["app_data"]["advertiser_tracking_enabled"]) == ("a2", 1)
    assert "ios or android" in refused(event(context={"device": "x"}), action_source="app")
    assert "os.version" in refused(event(context={"os": {"name": "iOS"}}), action_source="app")


def test_website_events_without_page_or_browser_are_remarked() -> None:
    places = sent([event(), event(context={"userAgent": "UA", "page": {"url": "https://s.example/"}})])
    assert [(note.item, note.reason.split()[0]) for note in places if isinstance(note, Note)] == [
        (0, "user_agent"), (0, "event_source_url"),
    ]  # fmt: skip
    assert "event_source_url" not in made(event(context={"page": {"url": "javascript:alert(1)"}}))


def sent(items: Iterable[EventItem], **more: Any) -> list[Built]:
    return list(MetaConversions(settings(**more)).send_events(EventBatch(events=tuple(items), now_us=NOW_US)))


def test_requests_hold_at_most_a_thousand_events_and_name_their_places() -> None:
    items = [event(f"Quiz {n}") for n in range(1_500)]
    items[3] = event(kind="alias")
    built = sent(items, app_secret="s3", test_event_code="TEST7")
    assert [one.item for one in built if isinstance(one, Skip)] == [3]
    requests = [one for one in built if isinstance(one, Request)]
    assert [len(one.items) for one in requests] == [1_000, 499]
    assert [place for one in requests for place in one.items] == [n for n in range(1_500) if n != 3]
    body = json.loads(requests[0].body)
    assert body["test_event_code"] == "TEST7" and body["appsecret_proof"] in requests[0].secrets
    assert body["data"][3]["event_name"] == "Quiz 4"
    assert requests[0].url == "https://graph.facebook.com/v25.0/1/events"
    assert list(requests[0].headers) == ["Content-Type"]


def test_what_is_made_keeps_metas_rules() -> None:
    for name in [*(one.name for one in events.STANDARD), "Quiz"]:
        properties = {"value": 1, "currency": "EUR", "products": [{"sku": "S", "price": 1}]}
        data = {**made(event(name, properties=properties)), "event_time": int(time.time())}
        assert problem_of(data, strict_about_websites=False) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"pixel_id": "x"}, {"access_token": ""}, {"access_token": "a b"}, {"action_source": "moon"},
        {"currency": "eur"}, {"limited_data_use_country": 2}, {"limited_data_use_state": -1},
        {"api_version": "25"}, {"base_url": "ftp://x"}, {"test_event_code": "a b"}, {"event_names": []}, {"unknown": 1},
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_without_quoting_secrets(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**wrong)
    assert "a b" not in str(caught.value)
