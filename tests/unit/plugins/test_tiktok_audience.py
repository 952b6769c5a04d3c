"""TikTok audiences: rows, requests, lists, and what TikTok's answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_destination_tiktok_audience import people
from headrace_destination_tiktok_audience.destination import TikTokAudience
from headrace_destination_tiktok_audience.settings import TikTokAudienceSettings
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
    Warned,
)
from headrace_sdk.values import sha256

DEVICE = "AEBE52E7-03EE-455A-B3C4-E57283966239"


def connector(**settings: Any) -> TikTokAudience:
    known = {"access_token": "t", "advertiser_id": "71", "audience_id": "167", **settings}
    return TikTokAudience(TikTokAudienceSettings.model_validate(known))


def body(request: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.body)
    return found


@pytest.mark.parametrize(
    ("field", "raw", "normalised"),
    [
        ("email", " Ada.B+x@Gmail.com", "ada.b+x@gmail.com"),
        ("phone", "+49 (171) 123-4567", "+491711234567"),
        ("idfa", DEVICE, DEVICE.lower()),
        ("gaid", DEVICE, DEVICE.lower()),
    ],
)
def test_values(field: str, raw: str, normalised: str) -> None:
    found = people.normalise(field, raw)
    assert (found.normalised, found.sent) == (normalised, sha256(normalised))
    assert people.normalise(field, found.sent.upper()).sent == found.sent


def test_rows_of_a_person() -> None:
    emails = ["b@x.de", "a@x.de", "A@x.de", "bad"]
    rows = people.rows_of({"email": emails, "phone": "+491711234567", "idfa": [DEVICE]})
    first, second = sorted([sha256("a@x.de"), sha256("b@x.de")])
    assert [row.data for row in rows] == [
        {"EMAIL_SHA256": first, "PHONE_SHA256": sha256("+491711234567"), "IDFA_SHA256": sha256(DEVICE.lower())},
        {"EMAIL_SHA256": second},
    ]
    assert people.rows_of({"email": list(reversed(emails)), "phone": "+491711234567", "idfa": DEVICE}) == rows


@pytest.mark.parametrize(("fields", "field"), [({}, ""), ({"email": "bad"}, "email"), ({"phone": ["110"]}, "phone")])
def test_nobody_is_found_by_too_little(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(RecordRejected) as raised:
        people.rows_of(fields)
    assert raised.value.field == field


def test_requests_have_the_columns_that_their_rows_have() -> None:
    rows = (Row.of({"PHONE_SHA256": "p"}), Row.of({"EMAIL_SHA256": "e", "AAID_SHA256": "d"}))
    batch = MemberBatch(rows=rows, now_us=0)
    (added,), (removed,) = connector().add_members(batch), connector().remove_members(batch)
    on_it = {"audience_ids": ["167"]}
    assert body(added) == {
        "advertiser_ids": ["71"],
        "action": "add",
        "id_schema": ["EMAIL_SHA256", "PHONE_SHA256", "AAID_SHA256"],
        "batch_data": [[{}, {"id": "p", **on_it}, {}], [{"id": "e", **on_it}, {}, {"id": "d", **on_it}]],
    }
    assert body(removed) == {**body(added), "action": "delete"}
    assert isinstance(added, Request) and added.items == (0, 1)
    assert added.url == "https://business-api.tiktok.com/open_api/v1.3/segment/mapping/"
    later = connector(api_version="v1.4").lists()
    assert later.url.startswith("https://business-api.tiktok.com/open_api/v1.4/dmp/custom_audience/list/")


def test_a_thousand_rows_a_request() -> None:
    rows = tuple(Row.of({"EMAIL_SHA256": f"{n:064x}"}) for n in range(1_001))
    built = list(connector().add_members(MemberBatch(rows=rows, now_us=0)))
    assert [one.items for one in built if isinstance(one, Request)] == [tuple(range(1_000)), (1_000,)]


def test_people_to_be_forgotten() -> None:
    known = Subject(profile_id="p", identifiers={"email": ["a@x.de", "b@x.de"], "phone": ["+491711234567"]})
    unknown = Subject(profile_id="q", identifiers={"user_id": ["u"]})
    skip, request = connector().delete(DeleteBatch(subjects=(unknown, known), now_us=0))
    assert isinstance(skip, Skip) and skip.item == 0
    assert isinstance(request, Request) and request.items == (1,)
    assert body(request)["action"] == "delete" and len(body(request)["batch_data"]) == 3
    many = Subject(profile_id="m", identifiers={"email": [f"p{n}@x.de" for n in range(600)]})
    built = list(connector().delete(DeleteBatch(subjects=(many, many), now_us=0)))
    assert [one.items for one in built if isinstance(one, Request)] == [(0,), (1,)]


REQUEST = Request(method="POST", url="https://x", items=(0, 1, 2))


def answer(code: Any, message: str = "", data: Any = None, *, status: int = 200) -> Response:
    raw = json.dumps({"code": code, "message": message, "data": data}).encode()
    return Response(status=status, headers={}, body=raw, received_at_us=0)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (answer(40105, "?"), AuthError),
        (answer(40102, "The access token is expired"), AuthError),
        (answer(40001, "?"), AuthError),
        (answer(40002, "Audience does not exist"), ConfigError),
        (answer(40002, "Invalid audience_id"), ConfigError),
        (answer(40002, "audience_ids is invalid"), ConfigError),
        (answer(40007, "advertiser 71 does not exist"), ConfigError),
        (answer(40007, "audience 72"), ConfigError),
        (answer(40100, "?"), RateLimited),
        (answer(40999, "?"), RecordRejected),
        (answer(50002, "?"), TransientError),
        (answer(0, status=502), TransientError),
        (answer(None), TransientError),
        (Response(status=200, headers={}, body=b"<html>", received_at_us=0), TransientError),
        (Response(status=404, headers={}, body=b"<html>", received_at_us=0), ConfigError),
        (Response(status=429, headers={}, body=b"", received_at_us=0), RateLimited),
    ],
)
def test_answers_that_are_errors(response: Response, error: type[ConnectorError]) -> None:
    with pytest.raises(error) as raised:
        connector().read(REQUEST, response)
    assert type(raised.value) is error


def test_answers_of_rows() -> None:
    there = connector()
    assert there.read(REQUEST, answer(0)).items == (Delivered(),) * 3
    assert {type(one) for one in there.read(REQUEST, answer(20001)).items} == {Warned}
    named = there.read(REQUEST, answer(40002, "batch_data[2]: Not a valid row"))
    assert [type(one) for one in named.items] == [Retry, Retry, Rejected] and named.refused_whole
    of_row = there.read(REQUEST, answer(40002, "batch_data[1][0].audience_ids: the audience does not exist"))
    assert [type(one) for one in of_row.items] == [Retry, Rejected, Retry]
    of_any = there.read(REQUEST, answer(40002, "A row may not be longer than what an audience takes"))
    assert {type(one) for one in of_any.items} == {Rejected} and of_any.refused_whole
    unnamed = there.read(REQUEST, answer(40002, "Not a valid row"))
    assert {type(one) for one in unnamed.items} == {Rejected} and unnamed.refused_whole


def test_lists() -> None:
    there = connector()
    first, second = there.lists(), there.lists("2")
    assert first.url.endswith("/dmp/custom_audience/list/?advertiser_id=71&page=1&page_size=100")
    assert second.url.endswith("&page=2&page_size=100") and first.method == "GET"
    found = [{"audience_id": 1, "name": "A", "cover_num": 7}, {"audience_id": "2"}, {"name": "no id"}, 3]
    page = there.read_lists(first, answer(0, data={"list": found, "page_info": {"page": 1, "total_page": 2}}))
    assert page.lists == (VendorList(id="1", name="A", size=7), VendorList(id="2", name="2"))
    assert page.next_page == "2"
    last = there.read_lists(second, answer(0, data={"list": [], "page_info": {"page": 2, "total_page": 2}}))
    assert (last.lists, last.next_page) == ((), "")
    made = there.create_list(" Mine ")
    assert body(made) == {"action": "create", "advertiser_id": "71", "custom_audience_name": "Mine"}
    assert there.read_lists(made, answer(0, data={"audience_id": "9"})).lists == (VendorList(id="9", name="Mine"),)


@pytest.mark.parametrize(
    ("method", "response", "error"),
    [
        ("GET", answer(40105), AuthError),
        ("GET", answer(0, data={}), TransientError),
        ("GET", answer(0, data=[]), TransientError),
        ("POST", answer(0, data={}), TransientError),
        ("POST", answer(40002, "The name is taken"), RecordRejected),
    ],
)
def test_answers_that_are_no_lists(method: str, response: Response, error: type[ConnectorError]) -> None:
    request = connector().lists() if method == "GET" else connector().create_list("x")
    with pytest.raises(error):
        connector().read_lists(request, response)


def test_the_check_looks_for_the_audience() -> None:
    (check,) = connector().check()
    assert check.request.url.endswith("/get/?advertiser_id=71&custom_audience_ids=%5B%22167%22%5D")
    there = connector()
    assert there.read_check(check, answer(0, data={"list": [{"audience_details": {"audience_id": "167"}}]})) == ""
    assert there.read_check(check, answer(0, data={"list": [{"audience_id": 167}]})) == ""
    nothing: list[dict[str, Any]] = [{"list": []}, {"list": 7}, {}]
    for data in nothing:
        assert "does not know the audience" in there.read_check(check, answer(0, data=data))
    assert "access token" in there.read_check(check, answer(40105))


@pytest.mark.parametrize(
    "wrong",
    [
        {"access_token": ""},
        {"advertiser_id": ""},
        {"advertiser_id": "x"},
        {"audience_id": "a"},
        {"base_url": "x"},
        {"x": 1},
    ],
)
def test_settings_that_are_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TikTokAudienceSettings.model_validate({"access_token": "t", "advertiser_id": "1", "audience_id": "2", **wrong})
