"""TikTok's Events API: names, people, products, and what its answers mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from headrace_destination_tiktok_events import answers, people
from headrace_destination_tiktok_events.destination import MANIFEST, TikTokEvents
from headrace_destination_tiktok_events.settings import TikTokEventsSettings
from pydantic import ValidationError

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    Delivered,
    EventBatch,
    EventItem,
    Note,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    Retry,
    Skip,
    TransientError,
    Warned,
)
from headrace_sdk.values import sha256

NOW_US = 1_796_000_000_000_000
CASES = json.loads((Path(__file__).parents[2] / "cases" / "normalisation.json").read_text())


def built(*events: EventItem, **settings: Any) -> list[Any]:
    known = {"access_token": "t", "event_source_id": "PIXEL123", **settings}
    connector = TikTokEvents(TikTokEventsSettings.model_validate(known))
    return list(connector.send_events(EventBatch(events=events, now_us=NOW_US)))


def event(name: str = "Order Completed", *, kind: str = "track", at_us: int = NOW_US, **fields: Any) -> EventItem:
    return EventItem(message_id="m", kind=kind, name=name, timestamp_us=at_us, fields={"ttclid": "c", **fields})


def sent(*events: EventItem, **settings: Any) -> dict[str, Any]:
    (request,) = (one for one in built(*events, **settings) if isinstance(one, Request))
    body: dict[str, Any] = json.loads(request.body)
    return body


def one(item: EventItem, **settings: Any) -> dict[str, Any]:
    (found,) = sent(item, **settings)["data"]
    return dict(found)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["platform"] == "tiktok"], ids=lambda case: f"{case['field']}:{case['raw']}"
)
def test_people_agree_with_the_vendors_tag(case: dict[str, Any]) -> None:
    found = people.normalise(case["field"], case["raw"])
    assert (found.normalised, found.sent) == (case["normalised"], case["sha256"])


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (event("Order Completed"), "Purchase"),
        (event("order_completed"), "Purchase"),
        (event("CompletePayment"), "Purchase"),
        (event("Product Viewed"), "ViewContent"),
        (event("Signed Up"), "CompleteRegistration"),
        (event("Thing Done"), "Thing Done"),
        (event("added_to_segment"), "added_to_segment"),
        (event("Home", kind="page"), "Pageview"),
        (event("", kind="page"), "Pageview"),
        (event("Mine"), "ClickButton"),
        (event("Welcome", kind="screen"), "LaunchAPP"),
        (event("Pricing", kind="page"), "Lead"),
    ],
)
def test_names(item: EventItem, expected: str) -> None:
    names = {"mine": "ClickButton", "Welcome": "LaunchAPP", "Pricing": "Lead"}
    assert one(item, event_names=names)["event"] == expected


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (event("", kind="identify"), "TikTok has no identify events"),
        (event("Home", kind="screen"), "TikTok has no screen events: name one in the setting event_names"),
        (event("Secret"), "the setting event_names leaves it out"),
        (event(" "), "has no name"),
        (event(ttclid=None), "has nothing by which TikTok could find the person"),
        (event(ttclid="", city="Ulm"), "has nothing by which TikTok could find the person"),
        (event(ttclid="", email="nobody"), "email is no e-mail address"),
    ],
)
def test_what_is_left_out(item: EventItem, reason: str) -> None:
    assert built(item, event_names={"secret": ""}) == [Skip(item=0, reason=reason)]


def test_a_person() -> None:
    user = one(
        event(
            email=["Ada@Example.com ", "ada@example.com", "b@example.com"], phone="+49 (171) 123-4567", user_id="U 1",
            first_name=" Ada Mary", last_name="O'Brien", city="São Paulo", state="New York", zip="SW1Y 4JH",
            country="GB", ttp="p", ip="203.0.113.7", user_agent="Mozilla/5.0", locale="en-GB", idfa="x",
        )
    )["user"]  # fmt: skip
    assert user == {
        "email": [sha256("ada@example.com"), sha256("b@example.com")],
        "phone": sha256("+491711234567"), "external_id": sha256("U 1"),
        "first_name": sha256("adamary"), "last_name": sha256("o'brien"), "city": "sãopaulo", "state": "newyork",
        "zip_code": sha256("sw1y4jh"), "country": "gb", "ttclid": "c", "ttp": "p", "ip": "203.0.113.7",
        "user_agent": "Mozilla/5.0", "locale": "en-GB",
    }  # fmt: skip


def test_a_click_id_is_read_from_the_address_of_the_page() -> None:
    url = "https://shop.example/?a=1&ttclid=E.C.P.x"
    assert one(event(ttclid=None, page_url=url))["user"] == {"ttclid": "E.C.P.x"}
    assert one(event(ttclid="given", page_url=url))["user"] == {"ttclid": "given"}
    assert isinstance(built(event(ttclid=None, page_url="http://["))[0], Skip)


def test_what_cannot_be_used_is_said() -> None:
    note, request = built(event("x", email="nobody", phone="110"))
    reason = (
        "left out: email is no e-mail address; phone is no telephone number with a plus and the country code (E.164)"
    )
    assert note == Note(item=0, reason=reason)
    assert json.loads(request.body)["data"][0]["user"] == {"ttclid": "c"}


def test_products_and_values() -> None:
    products = [
        {"product_id": 7, "sku": "s", "name": "Tee", "price": "14.90", "quantity": "2", "brand": "Acme"},
        {"sku": "S-2", "category": "Caps", "content_type": "product_group"}, "odd",
    ]  # fmt: skip
    found = one(event(products=products, value="29.80", currency="eur", order_id=5, custom_properties={"n": 1}))
    assert found["properties"] == {
        "n": 1,
        "contents": [
            {"content_type": "product", "content_id": "7", "content_name": "Tee", "brand": "Acme", "price": 14.9,
             "quantity": 2},
            {"content_type": "product_group", "content_id": "S-2", "content_category": "Caps"},
        ],
        "content_type": "product", "value": 29.8, "currency": "EUR", "order_id": "5",
    }  # fmt: skip


def test_a_value_is_the_sum_where_there_is_none() -> None:
    priced = [{"sku": "a", "price": 0.1, "quantity": 3}, {"sku": "b", "price": 1}]
    assert one(event(products=priced))["properties"]["value"] == 1.3
    assert "value" not in one(event(products=[*priced, {"sku": "c"}]))["properties"]


def test_an_event_about_one_product_reads_it_from_the_properties() -> None:
    product = {"product_id": "p", "name": "Tee", "price": 5, "url": "https://x.example"}
    assert one(event("Product Viewed", product=product))["properties"]["contents"] == [
        {"content_type": "product", "content_id": "p", "content_name": "Tee", "price": 5}
    ]
    assert "properties" not in one(event("Order Completed", product=product))
    assert "properties" not in one(event("Product Viewed", product={"name": "no id"}))


def test_the_parts_of_event_sources() -> None:
    fields: dict[str, Any] = {
        "page_url": "https://x.example", "app_name": "Shop", "ad": {"campaign_id": "1"}, "lead_id": "L", "gaid": "g",
        "lead_event_source": "CRM",
    }  # fmt: skip
    web = one(event(**fields))
    app = one(event(**fields), event_source="app", event_source_id="7123")
    crm = one(event(ttclid=None, **fields), event_source="crm", event_source_id="9123")
    offline = one(event(**fields), event_source="offline", event_source_id="8123")
    assert web["page"] == {"url": "https://x.example"} and not {"app", "ad", "lead"} & set(web)
    assert app["app"] == {"app_name": "Shop"} and app["ad"] == {"campaign_id": "1"} and app["user"]["gaid"] == "g"
    assert crm["lead"] == {"lead_id": "L", "lead_event_source": "CRM"} and crm["user"] == {}
    assert not {"page", "app", "ad", "lead"} & set(offline)


def test_no_device_is_nobodys_device() -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    assert isinstance(built(event(ttclid="", idfa=nobody), event_source="app")[0], Skip)


def test_moments_ids_and_limited_data_use() -> None:
    assert one(event(at_us=NOW_US - 1))["event_time"] == NOW_US // 1_000_000 - 1
    assert one(event(at_us=NOW_US + 10**9))["event_time"] == NOW_US // 1_000_000
    assert one(event(at_us=0))["event_time"] == NOW_US // 1_000_000
    assert (one(event())["event_id"], one(event(event_id=9))["event_id"]) == ("m", "9")
    assert one(event(limited_data_use=True))["limited_data_use"] is True
    assert one(event(), limited_data_use=True)["limited_data_use"] is True
    assert "limited_data_use" not in one(event(limited_data_use="no"))


def test_a_request_and_its_test_code() -> None:
    body = sent(event(), test_event_code="TEST1")
    assert list(body) == ["event_source", "event_source_id", "test_event_code", "partner_name", "data"]
    requests = [found for found in built(*[event("x")] * 1_001) if isinstance(found, Request)]
    assert [len(request.items) for request in requests] == [1_000, 1]
    assert requests[0].headers == {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"access_token": ""}, {"access_token": "two words"}, {"event_source": "shop"}, {"event_source_id": ""},
        {"event_source_id": "a/b"}, {"base_url": "ftp://x"}, {"base_url": "https://u@x"}, {"pixel": "1"},
    ],
)  # fmt: skip
def test_settings_that_are_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TikTokEventsSettings.model_validate({"access_token": "t", "event_source_id": "P", **wrong})


REQUEST = Request(method="POST", url="https://x", items=(0, 1, 2))


def answer(code: Any, message: str = "", *, status: int = 200, **headers: str) -> Response:
    body = json.dumps({"code": code, "message": message, "data": {}}).encode()
    return Response(status=status, headers=headers, body=body, received_at_us=NOW_US)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (answer(40105, "Access token is incorrect"), AuthError),
        (answer(40104, "access_token is empty"), AuthError),
        (answer(40001, "no permission"), AuthError),
        (answer(40002, "Invalid value for event_source_id"), ConfigError),
        (answer(40100, "Too many requests"), RateLimited),
        (answer(40002, "?", status=429), RateLimited),
        (answer(50000, "System error"), TransientError),
        (answer(51010, "?"), TransientError),
        (answer(40999, "?"), RecordRejected),
        (answer(0, status=500), TransientError),
        (answer("0"), TransientError),
        (answer(True), TransientError),
        (Response(status=200, headers={}, body=b"<html>", received_at_us=0), TransientError),
        (Response(status=200, headers={}, body=b"[]", received_at_us=0), TransientError),
        (Response(status=503, headers={}, body=b"", received_at_us=0), TransientError),
        (Response(status=429, headers={}, body=b"", received_at_us=0), RateLimited),
        (Response(status=401, headers={}, body=b"", received_at_us=0), AuthError),
        (Response(status=404, headers={}, body=b"<html>", received_at_us=0), ConfigError),
        (Response(status=302, headers={}, body=b"", received_at_us=0), ConfigError),
        (Response(status=413, headers={}, body=b"", received_at_us=0), RecordRejected),
    ],
)
def test_answers_that_are_errors(response: Response, error: type[ConnectorError]) -> None:
    with pytest.raises(error) as raised:
        answers.read(REQUEST, response)
    assert type(raised.value) is error


def test_answers_of_events() -> None:
    assert answers.read(REQUEST, answer(0)).items == (Delivered(),) * 3
    assert {type(found) for found in answers.read(REQUEST, answer(20001)).items} == {Warned}
    for message in ("data[1].user.email: Not a SHA-256", "data.1.event: Missing", "data[1], data[7]: wrong"):
        found = answers.read(REQUEST, answer(40002, message))
        assert [type(outcome) for outcome in found.items] == [Retry, Rejected, Retry] and found.refused_whole
    unnamed = answers.read(REQUEST, answer(40002, "one of the events is wrong"))
    assert {type(outcome) for outcome in unnamed.items} == {Rejected} and unnamed.refused_whole


def test_reasons_quote_nothing_personal() -> None:
    found = answers.read(REQUEST, answer(40002, "bad ada@example.com, 4917112345678, " + "ab" * 32))
    assert found.items[0] == Rejected(reason="TikTok answered with code 40002 (bad ..., ..., ...)")


def test_the_manifest_names_the_header_of_the_token() -> None:
    assert MANIFEST.auth is not None and getattr(MANIFEST.auth, "header", "") == "Access-Token"
    assert MANIFEST.any_of[0] and {name for group in MANIFEST.any_of for name in group} <= {
        field.name for field in MANIFEST.fields
    }
