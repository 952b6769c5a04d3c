"""LinkedIn matched audiences: rows, requests, lists, and what LinkedIn's answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_destination_linkedin_audience import people
from headrace_destination_linkedin_audience.destination import LinkedInAudience
from headrace_destination_linkedin_audience.settings import LinkedInAudienceSettings
from pydantic import ValidationError

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    DeleteBatch,
    Delivered,
    MemberBatch,
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
)
from headrace_sdk.values import sha256

KNOWN = {"access_token": "t", "segment_id": "101", "account_id": "123"}


def connector(**settings: Any) -> LinkedInAudience:
    return LinkedInAudience(LinkedInAudienceSettings.model_validate({**KNOWN, **settings}))


def test_a_person_is_one_row_with_all_ids() -> None:
    device = "38400000-8CF0-11BD-B23E-10B96E40000D"
    (row,) = people.rows_of(
        {"email": ["B@x.de", "a@x.de", "bad", "AB" * 64], "gaid": device, "first_name": "Ada", "last_name": "Byron",
         "job_title": "Countess", "company": "Acme", "country": "gb"}
    )  # fmt: skip
    hashes = sorted([sha256("a@x.de"), sha256("b@x.de"), "ab" * 64])
    assert row.data == {
        "userIds": [
            *({"idType": "SHA512_EMAIL" if len(one) > 64 else "SHA256_EMAIL", "idValue": one} for one in hashes),
            {"idType": "GOOGLE_AID", "idValue": device.lower()},
        ],
        "firstName": "Ada", "lastName": "Byron", "title": "Countess", "company": "Acme", "country": "GB",
    }  # fmt: skip
    assert people.rows_of({"first_name": "Ada", "last_name": "Byron"})[0].data == {
        "firstName": "Ada",
        "lastName": "Byron",
    }
    assert "firstName" not in people.rows_of({"email": "a@x.de", "first_name": "Ada"})[0].data


@pytest.mark.parametrize(
    ("fields", "field"), [({}, ""), ({"first_name": "A"}, ""), ({"email": "bad"}, "email"), ({"company": "A"}, "")]
)
def test_nobody_is_found_by_too_little(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(RecordRejected) as raised:
        people.rows_of(fields)
    assert raised.value.field == field


def test_requests() -> None:
    rows = tuple(Row.of({"userIds": [{"idType": "SHA256_EMAIL", "idValue": f"{n:064x}"}]}) for n in range(5_001))
    added = list(connector().add_members(MemberBatch(rows=rows, now_us=0)))
    assert [len(one.items) for one in added if isinstance(one, Request)] == [5_000, 1]
    (removed,) = connector().remove_members(MemberBatch(rows=rows[:1], now_us=0))
    assert isinstance(removed, Request) and removed.url == "https://api.linkedin.com/rest/dmpSegments/101/users"
    assert removed.headers["X-RestLi-Method"] == "BATCH_CREATE" and removed.headers["LinkedIn-Version"] == "202607"
    assert json.loads(removed.body) == {"elements": [{"action": "REMOVE", **rows[0].data}]}


def test_people_to_be_forgotten() -> None:
    known = Subject(profile_id="p", identifiers={"email": ["a@x.de", "b@x.de"]})
    skip, request = connector().delete(DeleteBatch(subjects=(Subject(profile_id="q"), known), now_us=0))
    assert isinstance(skip, Skip) and isinstance(request, Request) and request.items == (1,)
    (element,) = json.loads(request.body)["elements"]
    assert element["action"] == "REMOVE" and len(element["userIds"]) == 2


REQUEST = Request(method="POST", url="https://x", items=(0, 1, 2))


def answer(status: int, body: Any, **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status=status, headers=headers, body=raw, received_at_us=0)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {}, AuthError), (403, {}, AuthError), (404, {}, TransientError), (410, {}, ConfigError),
        (426, {}, ConfigError), (429, {}, RateLimited), (503, {}, TransientError), (400, b"<html>", TransientError),
        (409, {}, RecordRejected), (200, b"<html>", TransientError), (200, {"elements": []}, TransientError),
    ],
)  # fmt: skip
def test_answers_that_are_errors(status: int, body: Any, error: type[ConnectorError]) -> None:
    with pytest.raises(error) as raised:
        connector().read(REQUEST, answer(status, body))
    assert type(raised.value) is error


def test_the_status_of_each_element_is_read() -> None:
    elements = [{"status": 201}, {"status": 400, "error": {"message": "bad"}}, {"status": 429}]
    good, bad, later = connector().read(REQUEST, answer(200, {"elements": elements})).items
    assert (good, bad) == (Delivered(), Rejected(reason="LinkedIn answered 400 (bad)")) and isinstance(later, Retry)
    named = connector().read(REQUEST, answer(422, {"message": "Index: 2, ERROR :: /x"}))
    assert [type(one) for one in named.items] == [Retry, Retry, Rejected] and named.refused_whole


def test_lists() -> None:
    there = connector(source_platform="HEADRACE")
    first = there.lists()
    assert first.url.endswith("?q=account&account=urn%3Ali%3AsponsoredAccount%3A123&start=0&count=100")
    users = [{"id": n, "type": "USER", "name": f"S{n}", "destinations": [{"audienceSize": 7}]} for n in range(99)]
    page = there.read_lists(
        first, answer(200, {"elements": [*users, {"id": 5, "type": "COMPANY"}], "paging": {"start": 0}})
    )
    assert page.lists[0] == VendorList(id="0", name="S0", size=7) and len(page.lists) == 99 and page.next_page == "100"
    last = there.read_lists(there.lists("100"), answer(200, {"elements": [], "paging": {"start": 100}}))
    assert (last.lists, last.next_page) == ((), "")
    made = there.create_list(" Mine ")
    assert there.read_lists(made, answer(201, b"", **{"x-restli-id": "9"})).lists == (VendorList(id="9", name="Mine"),)
    with pytest.raises(TransientError):
        there.read_lists(made, answer(201, b""))
    with pytest.raises(TransientError):
        there.read_lists(first, answer(200, {}))
    with pytest.raises(AuthError):
        there.read_lists(first, answer(401, {}))
    with pytest.raises(ConfigError):
        connector().create_list("x")


def test_the_check_looks_at_the_segment() -> None:
    (check,) = connector().check()
    assert check.request.url.endswith("/rest/dmpSegments/101")

    def said(body: Any, status: int = 200) -> str:
        return connector().read_check(check, answer(status, body))

    assert said({"type": "USER", "destinations": [{"status": "BUILDING"}]}) == said({"type": "USER"}) == ""
    assert "EXPIRED" in said({"type": "USER", "destinations": [{"status": "EXPIRED"}]})
    assert "type USER" in said({"type": "COMPANY"}) and "404" in said({}, 404)


@pytest.mark.parametrize(
    "wrong",
    [{"access_token": ""}, {"segment_id": "a"}, {"account_id": ""}, {"source_platform": "a b"}, {"api_version": "1"}],
)
def test_settings_that_are_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LinkedInAudienceSettings.model_validate({**KNOWN, **wrong})
