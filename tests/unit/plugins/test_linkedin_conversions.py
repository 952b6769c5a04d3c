"""LinkedIn's Conversions API: rules, people, values, and what its answers mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from headrace_destination_linkedin_conversions import answers, people
from headrace_destination_linkedin_conversions.destination import MANIFEST, LinkedInConversions
from headrace_destination_linkedin_conversions.settings import LinkedInConversionsSettings
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
)
from headrace_sdk.values import sha256

NOW_US = 1_796_000_000_000_000
DAY_US = 86_400_000_000
CASES = json.loads((Path(__file__).parents[2] / "cases" / "normalisation.json").read_text())


def connector(**settings: Any) -> LinkedInConversions:
    known = {"access_token": "t", "conversion_rule": "104012", **settings}
    return LinkedInConversions(LinkedInConversionsSettings.model_validate(known))


def built(*events: EventItem, **settings: Any) -> list[Any]:
    return list(connector(**settings).send_events(EventBatch(events=events, now_us=NOW_US)))


def event(name: str = "Order Completed", *, kind: str = "track", at_us: int = NOW_US, **fields: Any) -> EventItem:
    return EventItem(message_id="m", kind=kind, name=name, timestamp_us=at_us, fields={"li_fat_id": "c", **fields})


def one(item: EventItem, **settings: Any) -> dict[str, Any]:
    (request,) = (found for found in built(item, **settings) if isinstance(found, Request))
    (element,) = json.loads(request.body)["elements"]
    return dict(element)


@pytest.mark.parametrize("case", [case for case in CASES if case["platform"] == "linkedin"], ids=lambda c: c["raw"])
def test_people_agree_with_the_vendors_rule(case: dict[str, Any]) -> None:
    found = people.normalise(case["field"], case["raw"])
    assert (found.normalised, found.sent) == (case["normalised"], case["sha256"])


def test_a_conversion() -> None:
    found = one(
        event(
            email=["Ada@Example.com", "ada@example.com "], acxiom_id="a", oracle_moat_id="o", gaid="g",
            first_name="Ada", last_name="Byron", job_title="Countess", company="Acme", country="gb", user_id="u-1",
            value="29.80", currency="eur",
        )
    )  # fmt: skip
    assert found == {
        "conversion": "urn:lla:llaPartnerConversion:104012",
        "conversionHappenedAt": NOW_US // 1_000,
        "conversionValue": {"currencyCode": "EUR", "amount": "29.8"},
        "user": {
            "userIds": [
                {"idType": "SHA256_EMAIL", "idValue": sha256("ada@example.com")},
                {"idType": "LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID", "idValue": "c"},
                {"idType": "ACXIOM_ID", "idValue": "a"},
                {"idType": "ORACLE_MOAT_ID", "idValue": "o"},
                {"idType": "GOOGLE_AID", "idValue": "g"},
            ],
            "userInfo": {
                "firstName": "Ada", "lastName": "Byron", "title": "Countess", "companyName": "Acme",
                "countryCode": "GB",
            },
            "externalIds": ["u-1"],
        },
        "eventId": "m",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "rule"),
    [("Order Completed", "track", "1"), ("order_completed", "track", "1"), ("x", "track", "9"), ("Home", "page", "2")],
)
def test_rules(name: str, kind: str, rule: str) -> None:
    rules = {"Order completed": "urn:lla:llaPartnerConversion:1", "Home": " 2"}
    found = one(event(name, kind=kind), conversion_rules=rules, conversion_rule="9")
    assert found["conversion"] == f"urn:lla:llaPartnerConversion:{rule}"


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (event("", kind="identify"), "LinkedIn has no identify events"),
        (event("Home", kind="page"), "has no conversion rule in the settings"),
        (event("secret"), "the setting conversion_rules leaves it out"),
        (event(at_us=NOW_US - 91 * DAY_US), "is older than the 90 days that LinkedIn takes"),
        (event(li_fat_id=None), "has nothing by which LinkedIn could find the person"),
        (event(li_fat_id=None, first_name="Ada"), "has nothing by which LinkedIn could find the person"),
        (event(li_fat_id=None, email="nobody"), "email is no e-mail address"),
        (event(li_fat_id=None, gaid="0000-00"), "has nothing by which LinkedIn could find the person"),
    ],
)
def test_what_is_left_out(item: EventItem, reason: str) -> None:
    assert built(item, conversion_rules={"Secret": ""}) == [Skip(item=0, reason=reason)]


def test_user_ids_are_sent_even_when_there_are_none() -> None:
    assert one(event(li_fat_id="", first_name="Ada", last_name="Byron"))["user"]["userIds"] == []
    assert one(event(li_fat_id="", user_id="u"))["user"] == {"userIds": [], "externalIds": ["u"]}


def test_a_click_id_is_read_from_the_address_of_the_page() -> None:
    user = one(event(li_fat_id=None, page_url="https://x.example/?li_fat_id=f"))["user"]
    assert user["userIds"] == [{"idType": "LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID", "idValue": "f"}]


@pytest.mark.parametrize(("value", "amount"), [(5, "5"), (0.1, "0.1"), (1e-7, "0.0000001"), ("1e3", "1000")])
def test_amounts_are_texts(value: Any, amount: str) -> None:
    assert one(event(value=value, currency="USD"))["conversionValue"]["amount"] == amount


def test_a_value_without_currency_is_left_out_and_said() -> None:
    note, request = built(event(value=5, country="x", first_name="A", last_name="B"))
    assert isinstance(note, Note) and note.reason.startswith("left out: country ")
    assert note.reason.endswith("; value, as it has no currency")
    assert "conversionValue" not in json.loads(request.body)["elements"][0]
    assert "conversionValue" not in one(event(currency="EUR"))


def test_moments_and_ids() -> None:
    assert one(event(at_us=NOW_US - 1_000))["conversionHappenedAt"] == NOW_US // 1_000 - 1
    assert one(event(at_us=NOW_US + DAY_US))["conversionHappenedAt"] == NOW_US // 1_000
    assert one(event(at_us=0))["conversionHappenedAt"] == NOW_US // 1_000
    assert one(event(event_id="e"))["eventId"] == "e"


def test_a_request() -> None:
    requests = built(*[event("x")] * 5_001, api_version="202606")
    assert [len(request.items) for request in requests] == [5_000, 1]
    assert requests[0].url == "https://api.linkedin.com/rest/conversionEvents"
    assert requests[0].headers == {
        "Content-Type": "application/json", "LinkedIn-Version": "202606", "X-Restli-Protocol-Version": "2.0.0",
        "X-RestLi-Method": "BATCH_CREATE",
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"access_token": ""}, {"access_token": "ü"}, {"conversion_rule": "abc"}, {"conversion_rules": {"a": "x/y"}},
        {"account_id": "a"}, {"api_version": "2026"}, {"api_version": "202613"}, {"base_url": "x"}, {"rule": "1"},
    ],
)  # fmt: skip
def test_settings_that_are_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LinkedInConversionsSettings.model_validate({"access_token": "t", **wrong})


REQUEST = Request(method="POST", url="https://x", items=(0, 1, 2))


def answer(status: int, body: Any) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status=status, headers={}, body=raw, received_at_us=NOW_US)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"serviceErrorCode": 65601, "message": "revoked"}, AuthError),
        (403, {"message": "Not enough permissions"}, AuthError),
        (404, b"<html>", ConfigError),
        (302, b"", ConfigError),
        (426, {"message": "version is not active"}, ConfigError),
        (429, {"message": "throttled"}, RateLimited),
        (408, {}, TransientError),
        (423, {}, TransientError),
        (500, {}, TransientError),
        (503, b"<html>", TransientError),
        (422, b"<html>", TransientError),
        (413, {}, RecordRejected),
        (409, {}, RecordRejected),
        (200, b"<html>", TransientError),
        (201, b"", TransientError),
        (200, {"elements": [{"status": 201}]}, TransientError),
    ],
)
def test_answers_that_are_errors(status: int, body: Any, error: type[ConnectorError]) -> None:
    with pytest.raises(error) as raised:
        answers.read(REQUEST, answer(status, body))
    assert type(raised.value) is error


def test_the_status_of_each_event_is_read() -> None:
    elements = [{"status": 201}, {"status": 400, "error": {"message": "bad a@b.de"}}, {"status": 503}]
    good, bad, later = answers.read(REQUEST, answer(200, {"elements": elements})).items
    assert good == Delivered() and bad == Rejected(reason="LinkedIn answered 400 (bad ...)")
    assert isinstance(later, Retry)
    odd = answers.read(REQUEST, answer(200, {"elements": [{}, {"status": True}, 7]}))
    assert [type(outcome) for outcome in odd.items] == [Retry] * 3


@pytest.mark.parametrize(
    "message",
    [
        "Index: 1, ERROR :: /user :: bad",
        "method should be CONVERSIONS_API, indices [1] (0-indexed)",
        "index: 1; Index: 9",
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_named_events_are_refused_and_the_others_go_again(message: str, status: int) -> None:
    found = answers.read(REQUEST, answer(status, {"message": message}))
    assert [type(outcome) for outcome in found.items] == [Retry, Rejected, Retry] and found.refused_whole


def test_where_no_event_is_named_all_are_suspects() -> None:
    found = answers.read(REQUEST, answer(400, {"message": "Index: 17 of another request"}))
    assert [type(outcome) for outcome in found.items] == [Rejected] * 3 and found.refused_whole


def test_the_check_looks_at_the_rules() -> None:
    assert list(connector().check()) == []
    there = connector(account_id="123", conversion_rules={"a": "5", "b": ""})
    (check,) = there.check()
    assert check.request.url.endswith("/rest/conversions?q=account&account=urn%3Ali%3AsponsoredAccount%3A123")
    assert check.request.method == "GET"

    def said(*elements: Any) -> str:
        return there.read_check(check, answer(200, {"elements": list(elements)}))

    assert said({"id": 5, "conversionMethod": "CONVERSIONS_API", "enabled": True}, {"id": 7}) == ""
    assert "rule 5 is not of the Conversions API" in said({"id": 5, "conversionMethod": "INSIGHT_TAG"})
    assert "rule 104012 is switched off" in said({"id": "104012", "enabled": False})
    assert "401" in there.read_check(check, answer(401, {"message": "x"}))
    assert "no list" in there.read_check(check, answer(200, b"<html>"))


def test_the_end_of_the_default_version_is_known() -> None:
    assert MANIFEST.versions is not None
    assert MANIFEST.versions.end_of(LinkedInConversionsSettings.model_fields["api_version"].default) is not None
