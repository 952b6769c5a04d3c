"""The Google Analytics connector: names, parameters, people, answers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from headrace_destination_google_analytics_4.destination import MANIFEST, GoogleAnalytics4
from headrace_destination_google_analytics_4.params import number
from headrace_destination_google_analytics_4.settings import GoogleAnalyticsSettings
from pydantic import ValidationError

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    Delivered,
    EventBatch,
    EventItem,
    Note,
    Outcomes,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    Skip,
    TransientError,
    Warned,
)

NOW_US = 1_796_000_000_000_000
HOUR_US = 3_600_000_000
CASES = [
    case
    for case in json.loads((Path(__file__).parents[2] / "cases" / "normalisation.json").read_text())
    if case["platform"] == "ga4"
]


def connector(**more: Any) -> GoogleAnalytics4:
    known = {"api_secret": "s", "measurement_id": "G-X1"}
    return GoogleAnalytics4(GoogleAnalyticsSettings.model_validate({**known, **more}))


def event(name: str = "Thing Done", *, kind: str = "track", **fields: Any) -> EventItem:
    given = {"client_id": "1.2", **fields}
    return EventItem(message_id="m", kind=kind, name=name, timestamp_us=NOW_US - HOUR_US, fields=given)


def sent(item: EventItem, **settings: Any) -> dict[str, Any]:
    (request, *_) = built(item, **settings)
    assert isinstance(request, Request)
    body: dict[str, Any] = json.loads(request.body)
    return body


def built(item: EventItem, **settings: Any) -> list[Any]:
    return list(connector(**settings).send_events(EventBatch(events=(item,), now_us=NOW_US)))


@pytest.mark.parametrize(
    ("spoken", "name"),
    [
        ("Order Completed", "purchase"),
        ("order completed", "purchase"),
        ("purchase", "purchase"),
        ("Product Added", "add_to_cart"),
        ("Button Clicked", "Button_Clicked"),
        (" a - b/c ", "a_b_c"),
        ("Bestellung übermittelt", "Bestellung_übermittelt"),
        ("added_to_segment", "added_to_segment"),
    ],
)
def test_names(spoken: str, name: str) -> None:
    assert sent(event(spoken))["events"][0]["name"] == name


@pytest.mark.parametrize(
    ("item", "settings", "reason"),
    [
        (event("session start"), {}, "reserved"),
        (event("Session Start"), {"event_names": {"Session Start": "session_start"}}, "reserved"),
        (event("ga_x"), {}, "reserved"),
        (event("firebase_x"), {}, "reserved"),
        (event("1st"), {}, "start with a letter"),
        (event("!!"), {}, "start with a letter"),
        (event("x" * 41), {}, "longer than 40"),
        (event("Home", kind="screen"), {}, "app streams only"),
        (event("in_app_purchase"), {}, "app streams only"),
        (event("", kind="identify"), {}, "no identify events"),
        (event("", kind="alias"), {}, "no alias events"),
        (event("A"), {"event_names": {"A": " "}}, "leave the event out"),
        (event("", kind="page"), {"event_names": {"page": ""}}, "leave the event out"),
        (event(client_id=""), {}, "no client id"),
        (event(client_id="1.2"), {"measurement_id": "", "firebase_app_id": "1:2:ios:3"}, "no app instance id"),
    ],
)
def test_what_is_left_out_and_why(item: EventItem, settings: dict[str, Any], reason: str) -> None:
    (skip,) = built(item, **settings)
    assert isinstance(skip, Skip) and reason in skip.reason


def test_names_of_the_customer_win() -> None:
    names = {"Order Completed": "generate lead", "page": "seen", "identify": "known"}
    assert sent(event("Order Completed"), event_names=names)["events"][0]["name"] == "generate_lead"
    assert sent(event("Home", kind="page"), event_names=names)["events"][0]["name"] == "seen"
    assert sent(event("", kind="identify"), event_names=names)["events"][0]["name"] == "known"


def test_old_events_are_left_out_and_future_ones_are_set_to_now() -> None:
    def at(moment_us: int) -> EventItem:
        return EventItem(message_id="m", kind="track", name="A", timestamp_us=moment_us, fields={"client_id": "1.2"})

    (skip,) = built(at(NOW_US - 72 * HOUR_US - 1))
    assert isinstance(skip, Skip) and "72 hours" in skip.reason
    assert sent(at(NOW_US - 72 * HOUR_US))["timestamp_micros"] == NOW_US - 72 * HOUR_US
    assert sent(at(NOW_US + HOUR_US))["timestamp_micros"] == NOW_US
    request, note = built(at(NOW_US - 80 * HOUR_US), send_late_events=True)
    assert json.loads(request.body)["timestamp_micros"] == NOW_US - 80 * HOUR_US and "72 hours old" in note.reason


def test_parameters_have_the_documented_types() -> None:
    fields: dict[str, Any] = {
        "transaction_id": 1001,
        "value": "19.90",
        "currency": "eur",
        "tax": "2",
        "shipping": "free",
    }
    request, note, *_ = built(event("Order Completed", **fields, items=[{"sku": "a", "price": "3", "quantity": "2"}]))
    assert json.loads(request.body)["events"][0]["params"] == {
        "currency": "EUR",
        "value": 19.9,
        "transaction_id": "1001",
        "tax": 2,
        "items": [{"item_id": "a", "price": 3, "quantity": 2}],
    }
    assert note == Note(item=0, reason="left out, as Google takes no such name or value: shipping")


def test_products_by_googles_names() -> None:
    product = {
        "product_id": 7, "sku": "S", "name": "Tee", "brand": "B", "category": "C", "variant": "V", "position": 3,
        "price": 1.5, "quantity": 2, "coupon": "X", "color code": "red", "url": "https://x", "tags": ["a"],
    }  # fmt: skip
    (item,) = sent(event("Product Added", items=[product]))["events"][0]["params"]["items"]
    assert item == {
        "item_id": "7", "item_name": "Tee", "item_brand": "B", "item_category": "C", "item_variant": "V", "index": 3,
        "price": 1.5, "quantity": 2, "coupon": "X", "color_code": "red",
    }  # fmt: skip


def test_an_event_about_one_product_has_it_as_its_item() -> None:
    properties = {"product_id": "p", "name": "Tee", "price": 5, "currency": "EUR", "value": 5, "size": "L"}
    params = sent(event("Product Viewed", product=properties, params=properties, currency="EUR", value=5))
    assert params["events"][0]["params"] == {
        "currency": "EUR", "value": 5, "items": [{"item_id": "p", "item_name": "Tee", "price": 5}], "size": "L",
    }  # fmt: skip
    assert "items" not in sent(event("Thing Done", product=properties))["events"][0]["params"]
    assert "items" not in sent(event("Product Viewed", product={"price": 5}))["events"][0]["params"]


def test_further_parameters() -> None:
    further = {
        "order_id": "T1", "total": 12, "revenue": 10, "note": "n" * 120, "_x": 1, "google_x": 1, "deep": {"a": 1},
        "list": [1], "gone": None, "empty": "", "a b": True, "f": float("nan"), "x" * 41: 1,
    }  # fmt: skip
    request, note, *_ = built(event("Order Completed", transaction_id="T1", value=10, currency="EUR", params=further))
    params = json.loads(request.body)["events"][0]["params"]
    assert params == {
        "currency": "EUR", "value": 10, "transaction_id": "T1", "total": 12, "note": "n" * 100, "a_b": True,
    }  # fmt: skip
    assert note.reason == (
        "cut to the length that Google takes: note; "
        "left out, as Google takes no such name or value: _x, deep, f, google_x, list and 1 more"
    )


def test_no_more_than_25_parameters() -> None:
    request, note = built(event(session_id="1", engagement_time_msec=1, params={f"p{n}": n for n in range(30)}))
    assert len(json.loads(request.body)["events"][0]["params"]) == 25
    assert "Google takes 25 parameters" in note.reason


def test_user_properties() -> None:
    given = {
        "plan": "pro",
        "long": "x" * 40,
        "user_id": "u",
        "n" * 25: 1,
        "list": [1],
        **{f"p{n}": n for n in range(30)},
    }
    found = sent(event(user_properties=given))["user_properties"]
    assert len(found) == 25
    assert found["plan"] == {"value": "pro"} and found["long"] == {"value": "x" * 36}
    assert not {"user_id", "n" * 25, "list"} & set(found)


def test_consent_and_the_data_that_needs_it() -> None:
    person = {"email": "Ada@Example.com", "user_id": "u"}
    said = sent(event(ad_user_data="granted", ad_personalization="DENIED", **person), send_user_data=True)
    assert said["consent"] == {"ad_user_data": "GRANTED", "ad_personalization": "DENIED"}
    assert said["user_data"] == {"sha256_email_address": [hashlib.sha256(b"ada@example.com").hexdigest()]}
    assert "user_data" not in sent(event(ad_user_data="denied", **person), send_user_data=True)
    assert not {"user_data", "consent"} & set(sent(event(**person)))
    request, note = built(event(ad_user_data="perhaps"))
    assert "consent" not in json.loads(request.body) and "ad_user_data" in note.reason


def test_user_data_of_a_whole_person() -> None:
    fields: dict[str, Any] = {
        "email": ["A.b+c@gmail.com", "bad"], "phone": "+49 171 1234567", "first_name": "Ada 2", "last_name": "O'Byron",
        "street": "12, St. James", "city": "São Paulo 9", "state": "CA", "zip": " SW1. ", "country": "gb",
    }  # fmt: skip

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    assert sent(event(**fields), send_user_data=True)["user_data"] == {
        "sha256_email_address": [digest("ab@gmail.com")],
        "sha256_phone_number": [digest("+491711234567")],
        "address": [
            {
                "sha256_first_name": digest("ada"), "sha256_last_name": digest("obyron"),
                "sha256_street": digest("12 st james"), "city": "são paulo", "region": "ca", "postal_code": "SW1",
                "country": "GB",
            }
        ],
    }  # fmt: skip
    assert "user_data" not in sent(event(city="Ulm", country="de"), send_user_data=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['field']}:{case['raw']}")
def test_cases(case: dict[str, Any]) -> None:
    found = connector().normalise(case["field"], case["raw"])
    assert (found.normalised, found.sent) == (case["normalised"], case["sha256"])


def test_what_is_sent_beside_the_event() -> None:
    found = sent(
        event(
            user_id=17, user_agent="UA", ip_override="203.0.113.7", device={"category": "mobile", "x": 1},
            user_location={"country_id": "DE"}, session_id="1700000000", engagement_time_msec="5",
            page_location="https://x.example/?q=1", page_title="t" * 301,
        )
    )  # fmt: skip
    assert found["user_id"] == "17" and found["user_agent"] == "UA" and found["ip_override"] == "203.0.113.7"
    assert found["device"] == {"category": "mobile"} and found["user_location"] == {"country_id": "DE"}
    params = found["events"][0]["params"]
    assert params["session_id"] == "1700000000" and params["engagement_time_msec"] == 5
    assert params["page_location"] == "https://x.example/?q=1" and len(params["page_title"]) == 300


def test_app_streams() -> None:
    settings = {"measurement_id": "", "firebase_app_id": "1:2:ios:3"}
    (request, *_) = built(event("Home", kind="screen", app_instance_id="a", screen_name="Home"), **settings)
    assert request.url == "https://www.google-analytics.com/mp/collect?firebase_app_id=1%3A2%3Aios%3A3"
    body = json.loads(request.body)
    assert body["app_instance_id"] == "a" and "client_id" not in body
    assert body["events"] == [{"name": "screen_view", "params": {"screen_name": "Home"}}]


def test_remarks_on_purchases() -> None:
    reasons = [built_.reason for built_ in built(event("Order Completed", value=1)) if isinstance(built_, Note)]
    assert ["currency" in reasons[0], "order id" in reasons[1], "products" in reasons[2]] == [True] * 3


def answer(status: int, body: bytes = b"", path: str = "/mp/collect", **headers: str) -> Outcomes:
    request = Request(method="POST", url=f"https://g.example{path}?measurement_id=G-1", items=(0, 1))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return connector().read(request, Response(status=status, body=body, headers=named))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (302, ConfigError), (404, ConfigError), (401, AuthError), (403, AuthError), (400, RecordRejected),
        (413, RecordRejected), (429, RateLimited), (408, TransientError), (500, TransientError), (503, TransientError),
    ],
)  # fmt: skip
def test_answers_that_are_no_success(status: int, error: type[ConnectorError]) -> None:
    with pytest.raises(error):
        answer(status)


def test_answers_of_success() -> None:
    assert answer(204).items == (Delivered(), Delivered())
    with pytest.raises(TransientError):
        answer(200, b"<html>", content_type="text/html; charset=utf-8")


def test_answers_of_the_validation_server() -> None:
    path = "/debug/mp/collect"
    assert isinstance(answer(200, b'{"validationMessages": []}', path).items[0], Warned)
    message = {"fieldPath": "events[0].params", "validationCode": "VALUE_INVALID", "description": "ada@example.com"}
    (first, _) = answer(200, json.dumps({"validationMessages": [message]}).encode(), path).items
    assert first == Rejected(reason="Google's validation server finds: VALUE_INVALID at events[0].params")
    with pytest.raises(TransientError):
        answer(200, b"<html>", path)
    with pytest.raises(TransientError):
        answer(200, b"{}", path)


def test_the_check_asks_the_validation_server() -> None:
    (check,) = connector().check()
    assert "/debug/mp/collect?measurement_id=G-X1" in check.request.url and check.request.items == ()
    assert json.loads(check.request.body)["validation_behavior"] == "ENFORCE_RECOMMENDATIONS"
    read = connector().read_check
    assert read(check, Response(status=200, body=b'{"validationMessages": []}')) == ""
    assert "answers 500" in read(check, Response(status=500))
    assert "no answer" in read(check, Response(status=200, body=b"x"))
    bad = b'{"validationMessages": [{"validationCode": "NAME_INVALID"}]}'
    assert "NAME_INVALID" in read(check, Response(status=200, body=bad))


@pytest.mark.parametrize(
    "settings",
    [
        {"api_secret": ""}, {"api_secret": "a b"}, {"api_secret": "ü"}, {"measurement_id": "UA-1-1"},
        {"measurement_id": ""}, {"firebase_app_id": "1:2:ios:3"}, {"measurement_id": "", "firebase_app_id": "a b"},
        {"base_url": "ftp://x"}, {"base_url": "https://x/?y=1"}, {"base_url": "https://u:p@x"}, {"token": "x"},
        {"event_names": {"a": 1}},
    ],
)  # fmt: skip
def test_settings_that_cannot_work(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        connector(**settings)


def test_numbers() -> None:
    given = [1, "2", " 3.5 ", "x", True, float("inf"), "nan", None, [], "1e30"]
    assert [number(value) for value in given] == [1, 2, 3.5, None, None, None, None, None, None, 1e30]


def test_the_secret_is_the_hosts_business() -> None:
    assert MANIFEST.auth is not None
    (request,) = built(event())
    assert "secret" not in request.url and list(request.headers) == ["Content-Type"]
