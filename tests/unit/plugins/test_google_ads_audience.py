"""The Google Ads audience connector: people, requests, answers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from headrace_destination_google_ads_audience.answers import LOOK_EVERY_S
from headrace_destination_google_ads_audience.destination import GoogleAdsAudience
from headrace_destination_google_ads_audience.people import FIELDS, normalise
from headrace_destination_google_ads_audience.settings import GoogleAdsAudienceSettings
from pydantic import ValidationError

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    DeleteBatch,
    Delivered,
    Job,
    Member,
    MemberBatch,
    Outcomes,
    Pending,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    Retry,
    Row,
    Skip,
    Subject,
    TransientError,
    VendorList,
    Warned,
)

CASES = [
    case
    for case in json.loads((Path(__file__).parents[2] / "cases" / "normalisation.json").read_text())
    if case["platform"] == "google"
]
DEVICE = "AEBE52E7-03EE-455A-B3C4-E57283966239"


def connector(**more: Any) -> GoogleAdsAudience:
    known = {
        "customer_id": "123-456-7890", "user_list_id": "777", "client_id": "c", "client_secret": "s",
        "refresh_token": "r",
    }  # fmt: skip
    return GoogleAdsAudience(GoogleAdsAudienceSettings.model_validate({**known, **more}))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def rows(fields: dict[str, Any], **settings: Any) -> list[Any]:
    return [row.data for row in connector(**settings).rows(Member(profile_id="p", fields=fields))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['field']}:{case['raw']}")
def test_cases(case: dict[str, Any]) -> None:
    if case["expect"] == "reject":
        with pytest.raises(RecordRejected) as caught:
            normalise(case["field"], case["raw"])
        assert case["raw"] not in caught.value.reason
        return
    found = normalise(case["field"], case["raw"])
    assert (found.normalised, found.sent) == (case["normalised"], case["sha256"] or case["normalised"])


def test_every_field_can_be_normalised() -> None:
    for field in FIELDS:
        assert normalise(field.name, field.example or "granted").sent
    with pytest.raises(RecordRejected):
        normalise("shoe_size", "42")


def test_a_person_is_one_member_with_all_contact_data() -> None:
    fields = {
        "email": ["b@x.de", "A.x+y@Gmail.com", "bad"], "phone": "+49 171 1234567", "first_name": " Ada",
        "last_name": "Byron", "zip": "SW1Y 4JH", "country": "gb", "ad_user_data": "granted",
    }  # fmt: skip
    emails = sorted([digest("b@x.de"), digest("ax@gmail.com")])
    assert rows(fields) == [
        {
            "userData": {
                "userIdentifiers": [
                    {"emailAddress": emails[0]},
                    {"emailAddress": emails[1]},
                    {"phoneNumber": digest("+491711234567")},
                    {
                        "address": {
                            "givenName": digest("ada"),
                            "familyName": digest("byron"),
                            "regionCode": "GB",
                            "postalCode": "SW1Y 4JH",
                        }
                    },
                ]
            },
            "consent": {"adUserData": "CONSENT_GRANTED"},
        }
    ]


@pytest.mark.parametrize("missing", ["first_name", "last_name", "zip", "country"])
def test_an_address_needs_all_its_parts(missing: str) -> None:
    whole = {"first_name": "Ada", "last_name": "Byron", "zip": "1", "country": "gb"}
    assert len(rows(whole)) == 1
    with pytest.raises(RecordRejected):
        rows({name: value for name, value in whole.items() if name != missing})


def test_lists_of_other_kinds() -> None:
    fields = {"email": "a@x.de", "user_id": ["u1", "u2"], "mobile_id": [DEVICE]}
    assert rows(fields, key_type="user_id") == [{"userIdData": {"userId": "u1"}}, {"userIdData": {"userId": "u2"}}]
    assert rows(fields, key_type="mobile") == [{"mobileData": {"mobileIds": [DEVICE]}}]


def test_no_more_than_ten_identifiers_a_member() -> None:
    found = rows({"email": [f"p{n}@x.de" for n in range(23)]})
    assert [len(member["userData"]["userIdentifiers"]) for member in found] == [10, 10, 3]
    devices = [f"{n:08d}-0000-0000-0000-000000000001" for n in range(11)]
    assert [len(member["mobileData"]["mobileIds"]) for member in rows({"mobile_id": devices}, key_type="mobile")] == [
        10,
        1,
    ]


@pytest.mark.parametrize(
    ("fields", "key_type", "field", "reason"),
    [
        ({}, "contact", "", "none of e-mail"),
        ({"email": "bad"}, "contact", "email", "no e-mail address"),
        ({"phone": "0171 1234567"}, "contact", "phone", "no telephone number"),
        ({"email": "a@x.de"}, "user_id", "", "no user id"),
        ({"user_id": "u"}, "mobile", "", "no advertising id"),
        ({"mobile_id": "00000000-0000-0000-0000-000000000000"}, "mobile", "mobile_id", "no advertising id"),
        ({"email": "a@x.de", "ad_user_data": "denied"}, "contact", "ad_user_data", "denied"),
        ({"email": "a@x.de", "ad_personalization": "DENIED"}, "contact", "ad_personalization", "denied"),
        ({"email": "a@x.de", "ad_user_data": "yes?"}, "contact", "ad_user_data", "neither"),
    ],
)
def test_who_is_left_out_and_why(fields: dict[str, Any], key_type: str, field: str, reason: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        rows(fields, key_type=key_type)
    assert caught.value.field == field and reason in caught.value.reason


def change(data: list[Any], *, remove: bool = False, **settings: Any) -> list[Request]:
    made = connector(**settings)
    batch = MemberBatch(rows=tuple(Row.of(one) for one in data), now_us=0)
    built = made.remove_members(batch) if remove else made.add_members(batch)
    return [one for one in built if isinstance(one, Request)]


def test_requests() -> None:
    member = {"userData": {"userIdentifiers": [{"emailAddress": "0" * 64}]}}
    said = {**member, "consent": {"adUserData": "CONSENT_GRANTED"}}
    (add,) = change([said], login_customer_id="987-654-3210", consent_ad_personalization="granted")
    assert add.url == "https://datamanager.googleapis.com/v1/audienceMembers:ingest"
    assert json.loads(add.body) == {
        "destinations": [
            {
                "operatingAccount": {"accountId": "1234567890", "accountType": "GOOGLE_ADS"},
                "loginAccount": {"accountId": "9876543210", "accountType": "GOOGLE_ADS"},
                "productDestinationId": "777",
            }
        ],
        "audienceMembers": [said],
        "consent": {"adPersonalization": "CONSENT_GRANTED"},
        "termsOfService": {"customerMatchTermsOfServiceStatus": "ACCEPTED"},
        "encoding": "HEX",
    }
    (remove,) = change([said], remove=True, consent_ad_personalization="granted")
    assert remove.url.endswith("/v1/audienceMembers:remove")
    body = json.loads(remove.body)
    assert set(body) == {"destinations", "audienceMembers", "encoding"} and body["audienceMembers"] == [member]
    (by_id,) = change([{"userIdData": {"userId": "u"}}], key_type="user_id")
    assert set(json.loads(by_id.body)) == {"destinations", "audienceMembers"}
    (unaccepted,) = change([member], terms_accepted=False)
    assert "termsOfService" not in json.loads(unaccepted.body)


def test_requests_hold_at_most_ten_thousand_members() -> None:
    found = change([{"userIdData": {"userId": str(n)}} for n in range(10_001)], key_type="user_id")
    assert [len(request.items) for request in found] == [10_000, 1]


def test_people_to_be_forgotten() -> None:
    subjects = (
        Subject(profile_id="p", identifiers={"email": ["a@x.de", "b@x.de"], "phone": ["+491711234567"]}),
        Subject(profile_id="q", identifiers={"user_id": ["u"], "idfa": [DEVICE]}),
    )
    skip, request = list(connector().delete(DeleteBatch(subjects=subjects, now_us=0)))
    assert isinstance(request, Request) and isinstance(skip, Skip) and skip.item == 1
    (member,) = json.loads(request.body)["audienceMembers"]
    assert request.items == (0,) and len(member["userData"]["userIdentifiers"]) == 3
    skip, request = list(connector(key_type="mobile").delete(DeleteBatch(subjects=subjects, now_us=0)))
    assert isinstance(request, Request) and json.loads(request.body)["audienceMembers"] == [
        {"mobileData": {"mobileIds": [DEVICE]}}
    ]


UPLOAD = Request(method="POST", url="https://g.example/v1/audienceMembers:ingest", items=(4, 5, 6))


def read(status: int, body: Any, request: Request = UPLOAD, **headers: str) -> Outcomes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return connector().read(request, Response(status=status, body=raw, headers=named, received_at_us=5_000_000))


def error(code: int, *violations: tuple[str, str], reason: str = "") -> dict[str, Any]:
    details: list[dict[str, Any]] = [{"reason": reason}] if reason else []
    found = [{"field": path, "reason": why, "description": "ada@example.com"} for path, why in violations]
    details.append({"fieldViolations": found})
    return {"error": {"code": code, "message": "ada@example.com", "status": "X", "details": details}}


def test_a_request_that_is_taken_is_a_job() -> None:
    assert read(200, {"requestId": "r/1"}).items == (Pending(job="5000000.r/1", after_s=LOOK_EVERY_S),) * 3
    poll = connector().poll(Job(id="5000000.r/1", items=3, now_us=0))
    assert (poll.method, poll.items) == ("GET", (0, 1, 2))
    sent, _, kept = poll.url.partition("#")
    assert sent == "https://datamanager.googleapis.com/v1/requestStatus:retrieve?requestId=r%2F1"
    assert kept == "5000000.r%2F1"


def test_a_job_counts_as_taken_after_a_time() -> None:
    made = connector(patience_hours=2)
    poll = made.poll(Job(id="5000000.r/1", items=1, now_us=0))
    body = json.dumps(status("PROCESSING")).encode()

    def after(seconds: int) -> Any:
        moment_us = 5_000_000 + seconds * 1_000_000
        return made.read(poll, Response(status=200, body=body, received_at_us=moment_us)).items[0]

    assert after(7199) == Pending(job="5000000.r/1", after_s=LOOK_EVERY_S)
    assert after(7200) == Warned(
        reason="Google took it and was still working on it after 2 hours: its end was not seen"
    )


def test_late_errors_are_seen_without_being_asked_for() -> None:
    """Google is at work for half an hour and longer: whoever does not wait that long never sees what it refused."""
    poll = connector().poll(Job(id="5000000.r/1", items=1, now_us=0))

    def after(seconds: float, answer: Any) -> Any:
        moment_us = 5_000_000 + int(seconds * 1_000_000)
        return connector().read(poll, Response(status=200, body=json.dumps(answer).encode(), received_at_us=moment_us))

    for looks in range(1, 12):
        assert isinstance(after(looks * LOOK_EVERY_S, status("PROCESSING")).items[0], Pending), looks
    (ended,) = after(12 * LOOK_EVERY_S, status("FAILED", errors={f"{ERROR}NO_CONSENT": 1})).items
    assert ended == Rejected(reason="Google could not process it: NO_CONSENT for 1")


@pytest.mark.parametrize("body", [b"<html>", b"", b"{}", b"[]", b'{"requestId": 7}'])
def test_a_200_that_is_no_answer_is_tried_again(body: bytes) -> None:
    with pytest.raises(TransientError):
        read(200, body)


def status(state: str | None, *, errors: dict[str, int] | None = None, warnings: dict[str, int] | None = None) -> Any:
    def counts(found: dict[str, int]) -> list[dict[str, str]]:
        return [{"reason": reason, "recordCount": str(count)} for reason, count in found.items()]

    one: dict[str, Any] = {"requestStatus": state}
    if errors:
        one["errorInfo"] = {"errorCounts": counts(errors)}
    if warnings:
        one["warningInfo"] = {"warningCounts": counts(warnings)}
    return {"requestStatusPerDestination": [one]}


ERROR = "PROCESSING_ERROR_REASON_"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (status("SUCCESS"), Delivered()),
        (
            status("SUCCESS", warnings={"PROCESSING_WARNING_REASON_INTERNAL_ERROR": 1}),
            Warned(reason="Google has remarks: INTERNAL_ERROR for 1"),
        ),
        (
            status("PARTIAL_SUCCESS", errors={f"{ERROR}NO_CONSENT": 2, f"{ERROR}INVALID_FORMAT": 1}),
            Warned(reason="Google could not process all of 3 members: INVALID_FORMAT for 1, NO_CONSENT for 2"),
        ),
        (
            status("FAILED", errors={f"{ERROR}UNKNOWN_CONSENT": 3}),
            Rejected(reason="Google could not process it: UNKNOWN_CONSENT for 3"),
        ),
        (
            status("FAILURE", errors={f"{ERROR}INTERNAL_ERROR": 3}),
            Retry(reason="Google could not process it: INTERNAL_ERROR for 3"),
        ),
        (status("FAILED"), Retry(reason="Google could not process it: no reason is given")),
        (status("PROCESSING"), Pending(job="5000000.r/1", after_s=LOOK_EVERY_S)),
        (status("REQUEST_STATUS_UNKNOWN"), Pending(job="5000000.r/1", after_s=LOOK_EVERY_S)),
    ],
)
def test_the_end_of_a_job(answer: Any, outcome: Any) -> None:
    poll = connector().poll(Job(id="5000000.r/1", items=3, now_us=0))
    assert read(200, answer, poll).items == (outcome,) * 3


@pytest.mark.parametrize("answer", [{}, status(None), status("ODD"), {"requestStatusPerDestination": []}, b"<html>"])
def test_a_status_that_is_none_is_asked_for_again(answer: Any) -> None:
    with pytest.raises(TransientError):
        read(200, answer, connector().poll(Job(id="r", items=1, now_us=0)))


def test_members_that_are_named_are_at_fault_and_the_others_go_again() -> None:
    path = "audience_members[1].user_data.user_identifiers[0].email_address"
    found = read(400, error(400, (path, "INVALID_SHA256_FORMAT"), reason="INVALID_ARGUMENT"))
    assert found.refused_whole
    first, second, third = found.items
    assert second == Rejected(reason="Google refuses it: INVALID_SHA256_FORMAT")
    assert first == third == Retry(reason="Google refused the request because of other members", after_s=0.0)
    (_, again, _) = read(400, error(400, ("audienceMembers[1].consent", "odd ada@example.com"))).items
    assert again == Rejected(reason="Google refuses it: a field is not valid")
    with pytest.raises(RecordRejected):
        read(400, error(400, ("audience_members[9].x", "INVALID_FORMAT")))


@pytest.mark.parametrize(
    ("code", "answer", "kind"),
    [
        (400, error(400, reason="INVALID_ARGUMENT"), RecordRejected),
        (400, error(400, ("audience_members[0].x", "INVALID_USER_LIST_TYPE")), ConfigError),
        (400, error(400, reason="INVALID_USER_LIST_ID"), ConfigError),
        (400, error(400, reason="TERMS_AND_CONDITIONS_NOT_SIGNED"), ConfigError),
        (403, error(403, reason="NOT_ALLOWLISTED"), ConfigError),
        (403, error(403, reason="PERMISSION_DENIED"), AuthError),
        (401, {}, AuthError),
        (404, error(404), ConfigError),
        (409, error(409), TransientError),
        (429, error(429, reason="RESOURCE_EXHAUSTED"), RateLimited),
        (500, b"<html>", TransientError),
        (503, error(503), TransientError),
        (400, b"<html>", TransientError),
        (200, error(400, reason="INVALID_ARGUMENT"), RecordRejected),
    ],
)
def test_errors(code: int, answer: Any, kind: type[ConnectorError]) -> None:
    with pytest.raises(kind) as caught:
        read(code, answer)
    assert "ada@" not in str(caught.value)


def test_the_check() -> None:
    for key_type in ("contact", "user_id", "mobile"):
        (check,) = connector(key_type=key_type).check()
        assert json.loads(check.request.body)["validateOnly"] is True and check.request.items == ()
    said = connector().read_check
    assert said(check, Response(status=200, body=b"{}")) == ""
    assert said(check, Response(status=200, body=b'{"requestId": "r"}')) == ""
    assert "no answer" in said(check, Response(status=200, body=b"<html>"))
    denied = json.dumps(error(403, reason="PERMISSION_DENIED")).encode()
    assert "may not change" in said(check, Response(status=403, body=denied))


def test_lists() -> None:
    made = connector(login_customer_id="9876543210")
    first, second = made.lists(), made.lists("p 2")
    base = "https://datamanager.googleapis.com/v1/accountTypes/GOOGLE_ADS/accounts/1234567890/userLists"
    assert (first.method, first.url) == ("GET", f"{base}?pageSize=1000")
    assert second.url == f"{base}?pageSize=1000&pageToken=p%202"
    assert first.headers == {"login-account": "accountTypes/GOOGLE_ADS/accounts/9876543210"}
    contact = {"id": "1", "displayName": "A", "ingestedUserListInfo": {"uploadKeyTypes": ["CONTACT_ID"]}}
    other = {"id": "2", "displayName": "B", "ingestedUserListInfo": {"uploadKeyTypes": ["USER_ID"]}}
    sized = {**contact, "id": "3", "sizeInfo": {"displayNetworkMembersCount": "12"}}
    body = json.dumps({"userLists": [contact, other, sized, {"id": "4"}], "nextPageToken": "p 2"}).encode()
    found = made.read_lists(first, Response(status=200, body=body))
    assert found.lists == (VendorList(id="1", name="A"), VendorList(id="3", name="A", size=12))
    assert found.next_page == "p 2"
    with pytest.raises(AuthError):
        made.read_lists(first, Response(status=401, body=b"{}"))


def test_making_a_list() -> None:
    request = connector(membership_days=30).create_list("Buyers")
    assert json.loads(request.body) == {
        "displayName": "Buyers",
        "membershipDuration": "2592000s",
        "ingestedUserListInfo": {
            "uploadKeyTypes": ["CONTACT_ID"],
            "contactIdInfo": {"dataSourceType": "DATA_SOURCE_TYPE_FIRST_PARTY"},
        },
    }
    body = b'{"name": "accountTypes/GOOGLE_ADS/accounts/1/userLists/55", "displayName": "Buyers"}'
    made = connector().read_lists(request, Response(status=200, body=body))
    assert made.lists == (VendorList(id="55", name="Buyers"),)
    with pytest.raises(TransientError):
        connector().read_lists(request, Response(status=200, body=b"<html>"))
    with pytest.raises(ConfigError):
        connector(key_type="mobile").create_list("Devices")


@pytest.mark.parametrize(
    "settings",
    [
        {"customer_id": "123"}, {"customer_id": ""}, {"customer_id": "12345678901"}, {"login_customer_id": "abc"},
        {"user_list_id": "list"}, {"user_list_id": ""}, {"key_type": "email"}, {"client_id": ""},
        {"client_secret": "a b"}, {"refresh_token": ""}, {"consent_ad_user_data": "denied"}, {"membership_days": 541},
        {"patience_hours": 7},
        {"base_url": "datamanager"}, {"token_url": "https://x/?a=1"}, {"developer_token": "x"},
    ],
)  # fmt: skip
def test_settings_that_cannot_work(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        connector(**settings)
