"""The Google Ads conversions connector: conversions, adjustments, answers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from headrace_destination_google_ads_conversions.destination import MANIFEST, GoogleAdsConversions
from headrace_destination_google_ads_conversions.settings import VERSION_ENDS, GoogleAdsConversionsSettings
from pydantic import ValidationError

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    Delivered,
    EventBatch,
    EventItem,
    Outcomes,
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

ACTION = "customers/1234567890/conversionActions/"
EVENTS = {
    "Order Completed": {"conversion_action": "11"},
    "Called": {"conversion_action": "customers/1/conversionActions/12", "kind": "call"},
    "Paid": {"conversion_action": "13", "kind": "enhancement"},
    "Changed": {"conversion_action": "11", "kind": "restatement"},
    "Order Refunded": {"conversion_action": "11", "kind": "retraction"},
}
TIME = "2026-11-29T08:00:00.500Z"


def connector(**more: Any) -> GoogleAdsConversions:
    known = {
        "customer_id": "123-456-7890", "events": EVENTS, "developer_token": "dev", "client_id": "c",
        "client_secret": "s", "refresh_token": "r",
    }  # fmt: skip
    return GoogleAdsConversions(GoogleAdsConversionsSettings.model_validate({**known, **more}))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def event(name: str = "Order Completed", *, kind: str = "track", **fields: Any) -> EventItem:
    return EventItem(message_id="m-1", kind=kind, name=name, fields={"conversion_time": TIME, **fields})


def built(*events: EventItem, **settings: Any) -> list[Any]:
    return list(connector(**settings).send_events(EventBatch(events=events, now_us=0)))


def sent(item: EventItem, **settings: Any) -> dict[str, Any]:
    (request,) = built(item, **settings)
    assert isinstance(request, Request)
    body = json.loads(request.body)
    (found,) = body.get("conversions") or body["conversionAdjustments"]
    assert body["partialFailure"] is True
    return dict(found)


def test_a_click_with_what_is_required_alone() -> None:
    (request,) = built(event(gclid="Cj0"), login_customer_id="987-654-3210")
    assert request.url == "https://googleads.googleapis.com/v26/customers/1234567890:uploadClickConversions"
    assert request.headers == {
        "Content-Type": "application/json", "developer-token": "dev", "login-customer-id": "9876543210",
    }  # fmt: skip
    assert json.loads(request.body) == {
        "conversions": [
            {"gclid": "Cj0", "conversionAction": f"{ACTION}11", "conversionDateTime": "2026-11-29 08:00:00+00:00"}
        ],
        "partialFailure": True,
    }


def test_a_click_with_all_there_is() -> None:
    fields: dict[str, Any] = {
        "gclid": "Cj0", "gbraid": "g", "wbraid": "w", "conversion_time": "2026-11-29T10:00:00+02:00", "value": "29.90",
        "currency": "eur", "order_id": 1001, "email": ["A.b+c@Gmail.com", "bad"], "phone": "+49 171 1234567",
        "first_name": "Ada", "last_name": "Byron", "zip": "1", "country": "de", "customer_type": "New",
        "custom_variables": {"5": "gold", "customers/9/conversionCustomVariables/6": 7, "odd": "x"},
        "items": [{"product_id": "p1", "quantity": "2", "price": 14.95}, {"sku": "s"}, {"name": "no id"}],
        "ad_user_data": "granted", "user_agent": "UA",
    }  # fmt: skip
    settings = {
        "send_cart": True,
        "merchant_id": "77",
        "feed_country": "DE",
        "feed_language": "de",
        "environment": "web",
    }
    assert sent(event(**fields), **settings) == {
        "gclid": "Cj0",
        "conversionAction": f"{ACTION}11",
        "conversionDateTime": "2026-11-29 10:00:00+02:00",
        "conversionValue": 29.9,
        "currencyCode": "EUR",
        "orderId": "1001",
        "userIdentifiers": [
            {"userIdentifierSource": "FIRST_PARTY", "hashedEmail": digest("ab@gmail.com")},
            {"userIdentifierSource": "FIRST_PARTY", "hashedPhoneNumber": digest("+491711234567")},
        ],
        "cartData": {
            "merchantId": "77", "feedCountryCode": "DE", "feedLanguageCode": "de",
            "items": [{"productId": "p1", "quantity": 2, "unitPrice": 14.95}, {"productId": "s", "quantity": 1}],
        },
        "conversionEnvironment": "WEB",
        "customerType": "NEW",
        "customVariables": [
            {"conversionCustomVariable": "customers/1234567890/conversionCustomVariables/5", "value": "gold"},
            {"conversionCustomVariable": "customers/1234567890/conversionCustomVariables/6", "value": "7"},
        ],
        "consent": {"adUserData": "GRANTED"},
    }  # fmt: skip


def test_one_click_id_alone_and_no_cart_beside_the_others() -> None:
    items = [{"product_id": "p"}]
    assert {"gclid"} == {"gclid", "gbraid", "wbraid"} & set(sent(event(gclid="a", gbraid="b", wbraid="c")))
    found = sent(event(gbraid="b", wbraid="c", items=items), send_cart=True)
    assert found["wbraid"] == "c" and not {"gbraid", "cartData"} & set(found)
    assert "cartData" in sent(event(email="a@x.de", items=items), send_cart=True)
    assert "cartData" not in sent(event(gclid="a", items=items))


def test_contact_data_needs_leave_and_stands_in_for_the_click() -> None:
    found = sent(event(email=[f"p{n}@x.de" for n in range(7)]))
    assert len(found["userIdentifiers"]) == 5 and found["orderId"] == "m-1"
    assert "userIdentifiers" not in sent(event(gclid="a", email="a@x.de"), send_user_identifiers=False)
    said = sent(event(gclid="a", email="a@x.de", ad_user_data="denied"))
    assert said["consent"] == {"adUserData": "DENIED"} and "userIdentifiers" not in said
    assert sent(event(gclid="a"), consent_ad_user_data="granted")["consent"] == {"adUserData": "GRANTED"}
    assert "orderId" not in sent(event(gclid="a"))


def test_a_call() -> None:
    (request,) = built(event("Called", caller_id="+49 171 1234567", call_time=1_796_000_000, value=5, currency="EUR"))
    assert request.url.endswith(":uploadCallConversions")
    assert json.loads(request.body)["conversions"] == [
        {
            "callerId": "+491711234567",
            "callStartDateTime": "2026-11-30 00:53:20+00:00",
            "conversionAction": f"{ACTION}12",
            "conversionDateTime": "2026-11-29 08:00:00+00:00",
            "conversionValue": 5,
            "currencyCode": "EUR",
        }
    ]


def test_an_enhancement() -> None:
    fields: dict[str, Any] = {
        "order_id": "T1", "email": "a@x.de", "phone": "+491711234567", "first_name": "Ada", "last_name": "O'Byron",
        "street": "12 High St", "city": "St. Ives", "state": "CA", "zip": "94045", "country": "us", "user_agent": "UA",
        "gclid": "a", "value": 5,
    }  # fmt: skip
    (request,) = built(event("Paid", **fields))
    assert request.url.endswith(":uploadConversionAdjustments")
    source = {"userIdentifierSource": "FIRST_PARTY"}
    assert json.loads(request.body) == {
        "conversionAdjustments": [
            {
                "conversionAction": f"{ACTION}13",
                "adjustmentType": "ENHANCEMENT",
                "orderId": "T1",
                "userIdentifiers": [
                    {**source, "hashedEmail": digest("a@x.de")},
                    {**source, "hashedPhoneNumber": digest("+491711234567")},
                    {
                        **source,
                        "addressInfo": {
                            "hashedFirstName": digest("ada"), "hashedLastName": digest("o'byron"),
                            "hashedStreetAddress": digest("12 high st"), "city": "st ives", "state": "ca",
                            "countryCode": "US", "postalCode": "94045",
                        },
                    },
                ],
                "userAgent": "UA",
            }
        ],
        "partialFailure": True,
    }  # fmt: skip
    assert len(sent(event("Paid", **{**fields, "email": [f"p{n}@x.de" for n in range(9)]}))["userIdentifiers"]) == 5
    assert len(sent(event("Paid", **{**fields, "zip": None}))["userIdentifiers"]) == 2


def test_restatements_and_retractions() -> None:
    assert sent(event("Changed", order_id="T1", value=70, currency="USD", email="a@x.de")) == {
        "conversionAction": f"{ACTION}11",
        "adjustmentType": "RESTATEMENT",
        "orderId": "T1",
        "adjustmentDateTime": "2026-11-29 08:00:00+00:00",
        "restatementValue": {"adjustedValue": 70, "currencyCode": "USD"},
    }
    assert sent(event("Order Refunded", gclid="a", original_time="2026-11-01T00:00:00Z", value=1)) == {
        "conversionAction": f"{ACTION}11",
        "adjustmentType": "RETRACTION",
        "gclidDateTimePair": {"gclid": "a", "conversionDateTime": "2026-11-01 00:00:00+00:00"},
        "adjustmentDateTime": "2026-11-29 08:00:00+00:00",
    }


@pytest.mark.parametrize(
    ("item", "settings", "field"),
    [
        (event("Other", gclid="a"), {}, ""),
        (event("", kind="identify", gclid="a"), {}, ""),
        (event(), {}, "gclid"),
        (event(email="bad"), {}, "gclid"),
        (event(email="a@x.de"), {"send_user_identifiers": False}, "gclid"),
        (event(email="a@x.de", ad_user_data="denied"), {}, "gclid"),
        (event(gclid="a", conversion_time="yesterday"), {}, "conversion_time"),
        (event(gclid="a", conversion_time=None), {}, "conversion_time"),
        (event(gclid="a", conversion_time=1e300), {}, "conversion_time"),
        (event("Called", caller_id="0171 1", call_time=TIME), {}, "caller_id"),
        (event("Called", caller_id="+491711234567"), {}, "call_time"),
        (event("Paid", email="a@x.de"), {}, "order_id"),
        (event("Paid", order_id="T"), {}, "email"),
        (event("Paid", order_id="T", email="a@x.de", ad_user_data="denied"), {}, "ad_user_data"),
        (event("Changed", value=1), {}, "order_id"),
        (event("Changed", order_id="T"), {}, "value"),
        (event("Order Refunded", gclid="a"), {}, "order_id"),
    ],
)
def test_what_is_left_out(item: EventItem, settings: dict[str, Any], field: str) -> None:
    (skip,) = built(item, **settings)
    assert isinstance(skip, Skip) and skip.field == field and skip.reason


def test_kinds_go_in_requests_of_their_own() -> None:
    events = (
        event(gclid="a"), event("Other"), event("Called", caller_id="+491711234567", call_time=TIME), event(gclid="b"),
        event("Paid", order_id="T", email="a@x.de"), event("Changed", order_id="T", value=1),
    )  # fmt: skip
    found = built(*events)
    assert [one.items for one in found if isinstance(one, Request)] == [(0, 3), (2,), (4, 5)]
    many = built(*(event(gclid=f"c{n}") for n in range(2_001)))
    assert [len(one.items) for one in many] == [1_000, 1_000, 1]


UPLOAD = Request(method="POST", url="https://g.example/x:uploadClickConversions", items=(7, 8, 9), body=b"{}")


def read(status: int, body: Any, request: Request = UPLOAD, **headers: str) -> Outcomes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return connector().read(request, Response(status=status, body=raw, headers=named))


def partial(*errors: tuple[str, int | None], code: int = 3, results: list[Any] | None = None) -> dict[str, Any]:
    found = [
        {
            "errorCode": {"conversionUploadError": name},
            "message": "ada@example.com",
            "location": {
                "fieldPathElements": [
                    {"fieldName": "conversions", **({} if place is None else {"index": place})},
                    {"fieldName": "gclid"},
                ]
            },
        }
        for name, place in errors
    ]
    answer: dict[str, Any] = {
        "partialFailureError": {"code": code, "message": "ada@example.com", "details": [{"errors": found}]}
    }
    return answer if results is None else {**answer, "results": results}


DONE = {"conversionAction": "x"}


def test_a_partial_failure_concerns_the_conversion_that_it_names() -> None:
    assert read(200, {"results": [DONE] * 3, "jobId": "1"}).items == (Delivered(),) * 3
    found = read(200, partial(("UNPARSEABLE_GCLID", 1), results=[DONE, {}, DONE]))
    assert found.items == (
        Delivered(), Rejected(reason="Google refuses it: UNPARSEABLE_GCLID", field="gclid"), Delivered(),
    )  # fmt: skip
    # A place of 0 may be left out in JSON.
    first = read(200, partial(("EXPIRED_EVENT", None), results=[{}, DONE, DONE]))
    assert [type(one) for one in first.items] == [Rejected, Delivered, Delivered]
    assert "ada@" not in repr(found) + repr(first)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("ORDER_ID_ALREADY_IN_USE", Warned(reason="Google has it already: ORDER_ID_ALREADY_IN_USE")),
        ("CONVERSION_ALREADY_ENHANCED", Warned(reason="Google has it already: CONVERSION_ALREADY_ENHANCED")),
        ("TOO_RECENT_EVENT", Retry(reason="Google refuses it: TOO_RECENT_EVENT", after_s=21_600.0)),
        ("TOO_RECENT_CONVERSION", Retry(reason="Google refuses it: TOO_RECENT_CONVERSION", after_s=86_400.0)),
        ("CONCURRENT_MODIFICATION", Retry(reason="Google refuses it: CONCURRENT_MODIFICATION")),
        ("CLICK_NOT_FOUND", Rejected(reason="Google refuses it: CLICK_NOT_FOUND", field="gclid")),
        ("not a code", Rejected(reason="Google refuses it: UNKNOWN", field="gclid")),
    ],
)
def test_codes(code: str, outcome: Any) -> None:
    found = read(200, partial((code, 0), results=[{}, DONE, DONE]))
    assert found.items == (outcome, Delivered(), Delivered()) and found.misconfigured == ""


def test_what_the_account_must_settle_stops_the_destination() -> None:
    found = read(200, partial(("CUSTOMER_NOT_ACCEPTED_CUSTOMER_DATA_TERMS", 0), results=[{}, DONE, DONE]))
    assert "accept the customer data terms" in found.misconfigured
    assert [type(one) for one in found.items] == [Retry, Delivered, Delivered]


def test_failures_that_name_nobody() -> None:
    assert {type(one) for one in read(200, partial(code=14)).items} == {Retry}
    assert {type(one) for one in read(200, partial(code=3)).items} == {Rejected}
    assert [type(one) for one in read(200, {"results": [DONE, {}]}).items] == [Delivered, Retry, Retry]


def test_checked_requests_count_nothing() -> None:
    (request,) = built(event(gclid="a"), event(gclid="b"), validate_only=True)
    assert json.loads(request.body)["validateOnly"] is True
    assert {type(one) for one in read(200, {}, request).items} == {Warned}
    assert [type(one) for one in read(200, partial(("EXPIRED_EVENT", 1)), request).items] == [Warned, Rejected]
    with pytest.raises(TransientError):
        read(200, b"<html>", request)


def failure(code: int, kind: str, name: str, **more: Any) -> dict[str, Any]:
    errors = [{"errorCode": {kind: name}, "message": "ada@example.com", **more}]
    return {"error": {"code": code, "message": "x", "status": "X_Y", "details": [{"errors": errors}]}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html>", TransientError),
        (200, {}, TransientError),
        (200, [], TransientError),
        (200, failure(400, "requestError", "UNKNOWN"), RecordRejected),
        (400, failure(400, "requestError", "UNKNOWN"), RecordRejected),
        (400, failure(400, "databaseError", "CONCURRENT_MODIFICATION"), TransientError),
        (400, failure(400, "requestError", "UNSUPPORTED_VERSION"), ConfigError),
        (401, [failure(401, "authenticationError", "OAUTH_TOKEN_EXPIRED")], AuthError),
        (403, failure(403, "authorizationError", "USER_PERMISSION_DENIED"), AuthError),
        (403, failure(403, "authorizationError", "CUSTOMER_NOT_ENABLED"), ConfigError),
        (404, b"<html>", ConfigError),
        (404, {"error": {"status": "NOT_FOUND"}}, ConfigError),
        (409, {"error": {"status": "ABORTED"}}, TransientError),
        (429, {"error": {}}, RateLimited),
        (400, b"<html>", TransientError),
        (500, b"<html>", TransientError),
        (503, failure(503, "internalError", "TRANSIENT_ERROR"), TransientError),
    ],
)
def test_errors(status: int, body: Any, kind: type[ConnectorError]) -> None:
    with pytest.raises(kind) as caught:
        read(status, body)
    assert "ada@" not in str(caught.value)


def test_throttling_says_how_long() -> None:
    details = {"details": {"quotaErrorDetails": {"retryDelay": "30s"}}}
    with pytest.raises(RateLimited) as caught:
        read(429, failure(429, "quotaError", "RESOURCE_EXHAUSTED", **details))
    assert caught.value.after_s == 30.0
    with pytest.raises(RateLimited) as caught:
        read(429, failure(429, "quotaError", "RESOURCE_EXHAUSTED", **details), retry_after="7")
    assert caught.value.after_s == 7.0


def test_the_check_looks_for_the_conversion_actions() -> None:
    (check,) = connector().check()
    assert check.request.url == "https://googleads.googleapis.com/v26/customers/1234567890/googleAds:search"
    assert json.loads(check.request.body)["query"].endswith("WHERE conversion_action.id IN (11, 12, 13)")
    read_check = connector().read_check

    def rows(**states: str) -> bytes:
        found = [{"conversionAction": {"id": name[1:], "status": state}} for name, state in states.items()]
        return json.dumps({"results": found}).encode()

    enabled = {"_11": "ENABLED", "_12": "ENABLED"}
    assert read_check(check, Response(status=200, body=rows(**enabled, _13="ENABLED"))) == ""
    assert "13 is not enabled" in read_check(check, Response(status=200, body=rows(**enabled, _13="REMOVED")))
    assert "13 is not in the account" in read_check(check, Response(status=200, body=rows(**enabled)))
    assert "11 is not in the account" in read_check(check, Response(status=200, body=b"{}"))
    assert "no answer" in read_check(check, Response(status=200, body=b"<html>"))
    assert "newer one" in read_check(check, Response(status=404, body=b"<html>"))


def test_versions() -> None:
    assert MANIFEST.versions is not None and MANIFEST.versions.end_of("v22") is not None
    default = GoogleAdsConversionsSettings.model_fields["api_version"].default
    assert VERSION_ENDS[default] == max(VERSION_ENDS.values())


@pytest.mark.parametrize(
    "settings",
    [
        {"customer_id": "1"}, {"events": {}}, {"events": {"A": {"conversion_action": "x"}}},
        {"events": {"A": {"conversion_action": "1", "kind": "view"}}}, {"events": {"A": "1"}},
        {"login_customer_id": "1"}, {"developer_token": "a b"}, {"client_id": ""}, {"client_secret": ""},
        {"refresh_token": "ü"}, {"api_version": "26"}, {"merchant_id": "x"}, {"feed_country": "de"},
        {"environment": "tv"}, {"consent_ad_user_data": "denied"}, {"base_url": "x"}, {"token": "x"},
    ],
)  # fmt: skip
def test_settings_that_cannot_work(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        connector(**settings)


def test_every_field_can_be_normalised() -> None:
    for field in MANIFEST.fields:
        assert connector().normalise(field.name, field.example or "x").sent
    with pytest.raises(RecordRejected):
        connector().normalise("email", "x")
