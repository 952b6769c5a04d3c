"""HubSpot: contacts in parts, names of events, and what HubSpot's answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_destination_hubspot import answers, contacts, events
from headrace_destination_hubspot.destination import HubSpot
from headrace_destination_hubspot.settings import HubSpotSettings
from pydantic import ValidationError

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    DeleteBatch,
    Delivered,
    EventBatch,
    EventItem,
    Job,
    Member,
    MemberBatch,
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

NOW_US = 1_796_000_000_000_000
API = "https://api.hubapi.com"


def connector(**settings: Any) -> HubSpot:
    return HubSpot(
        HubSpotSettings.model_validate({"access_token": "t", "list_id": "17", "portal_id": "42", **settings})
    )


def event(name: str = "Thing Done", kind: str = "track", **more: Any) -> EventItem:
    known: dict[str, Any] = {"fields": {"email": "a@x.de"}, "timestamp_us": NOW_US - 1_000_000}
    return EventItem(message_id="m", kind=kind, name=name, **{**known, **more})


def answer(status: int, body: Any = None) -> Response:
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status=status, body=raw)


def rows(*emails: str) -> tuple[Row, ...]:
    return tuple(Row.of({"email": email, "properties": {}}) for email in emails)


def requests(built: Any) -> list[Request]:
    found = list(built)
    assert all(isinstance(one, Request) for one in found)
    return found


def test_a_row_is_named_by_the_address_alone() -> None:
    there = connector()
    (row,) = there.rows(Member(profile_id="p", fields={"email": " Ada@x.de", "first_name": "Ada", "title": "Countess"}))
    assert row.data == {"email": "ada@x.de", "properties": {"firstname": "Ada", "jobtitle": "Countess"}}
    (renamed,) = there.rows(Member(profile_id="p", fields={"email": "ada@x.de", "first_name": "Augusta"}))
    assert renamed.key == row.key
    nobody: list[dict[str, str | list[str]]] = [{}, {"email": "x"}]
    for fields in nobody:
        with pytest.raises(RecordRejected) as raised:
            there.rows(Member(profile_id="p", fields=fields))
        assert raised.value.field == "email"


def test_properties_are_text_under_internal_names() -> None:
    given = {
        "Plan Name": "pro",
        "seats": 3,
        "vip": True,
        "tags": ["a"],
        "nothing": None,
        "empty": "",
        "1st": "x",
        "ä": 1,
    }
    assert contacts.texts_of(given) == {"plan_name": "pro", "seats": "3", "vip": "true", "tags": '["a"]'}
    assert contacts.texts_of("x") == {}


def test_an_address_goes_once_in_a_request() -> None:
    emails = [f"p{n}@x.de" for n in range(100)]
    batch = MemberBatch(rows=rows("p0@x.de", *emails, "p0@x.de", "z@x.de"), now_us=0)
    parts = requests(connector().add_members(batch))
    assert [len(one.items) for one in parts] == [100, 2, 1]
    assert parts[1].items == (1, 102) and parts[2].items == (101,)
    assert parts[0].url == f"{API}/crm/objects/2026-03/contacts/batch/upsert#add"
    assert json.loads(parts[1].body)["inputs"][1] == {
        "id": "z@x.de", "idProperty": "email", "objectWriteTraceId": "1", "properties": {"email": "z@x.de"},
    }  # fmt: skip


def test_versions_have_their_own_addresses() -> None:
    (old,) = requests(connector(api_version="v3").remove_members(MemberBatch(rows=rows("a@x.de"), now_us=0)))
    assert old.url == f"{API}/crm/v3/objects/contacts/batch/read"
    there = connector(api_version="v3")
    assert there.poll(Job(id="add:1,2", items=2, now_us=0)).url == f"{API}/crm/v3/lists/17/memberships/add"
    assert there.create_list("x").url == f"{API}/crm/v3/lists/"
    (sent,) = requests(there.send_events(EventBatch(events=(event(),), now_us=NOW_US)))
    assert sent.url == f"{API}/events/v3/send"


@pytest.mark.parametrize(
    ("name", "kind", "chosen", "portal", "found"),
    [
        ("Order Completed", "track", {}, "42", "pe42_order_completed"),
        ("Order Completed", "track", {"order completed": "bought"}, "42", "pe42_bought"),
        ("Order Completed", "track", {"Order Completed": "pe7_bought"}, "42", "pe7_bought"),
        ("Order Completed", "track", {"Order Completed": "pe7_bought"}, "", "pe7_bought"),
        ("Order Completed", "track", {}, "", ""),
        ("Order Completed", "track", {"Order Completed": ""}, "42", ""),
        ("Home", "page", {}, "42", ""),
        ("Home", "page", {"Home": "visited"}, "42", "pe42_visited"),
        ("!!", "track", {}, "42", ""),
        ("", "track", {}, "42", ""),
        ("", "group", {}, "42", ""),
    ],
)
def test_names_of_events(name: str, kind: str, chosen: dict[str, str], portal: str, found: str) -> None:
    made, reason = events.name_of(event(name, kind), chosen, portal)
    assert made == found and bool(reason) is (not found)


def test_events() -> None:
    batch = EventBatch(
        events=(event(), event(fields={"utk": "c"}), event(fields={}), event("", "identify")), now_us=NOW_US
    )
    skip, contact, sent = connector().send_events(batch)
    assert isinstance(skip, Skip) and (skip.item, skip.field) == (2, "email")
    assert isinstance(contact, Request) and contact.items == (3,) and "#" not in contact.url
    assert isinstance(sent, Request) and sent.items == (0, 1) and sent.url == f"{API}/events/2026-03/send/batch"
    first, second = json.loads(sent.body)["inputs"]
    assert first == {
        "eventName": "pe42_thing_done", "email": "a@x.de", "occurredAt": "2026-11-30T00:53:19.000Z", "uuid": "m",
    }  # fmt: skip
    assert second["utk"] == "c" and "email" not in second


def test_people_are_forgotten_by_each_address() -> None:
    known = Subject(profile_id="p", identifiers={"email": ["A@x.de", "a@x.de", "b@x.de", "bad"]})
    first, second, skip = connector().delete(DeleteBatch(subjects=(known, Subject(profile_id="q")), now_us=0))
    assert isinstance(first, Request) and isinstance(second, Request) and first.items == second.items == (0,)
    assert json.loads(second.body) == {"objectId": "b@x.de", "idProperty": "email"}
    assert isinstance(skip, Skip) and skip.item == 1
    assert connector().read(first, answer(404, {"message": "not found"})).items == (Delivered(),)


UPSERT = requests(connector().add_members(MemberBatch(rows=rows("a@x.de", "b@x.de"), now_us=0)))[0]
KNOWN = requests(
    connector().send_events(
        EventBatch(events=(event("", "identify"), event("", "identify", fields={"email": "b@x.de"})), now_us=NOW_US)
    )
)[0]


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (answer(401, {"message": "no"}), AuthError),
        (answer(403, {"message": "scopes"}), AuthError),
        (answer(404, b"<html>"), ConfigError),
        (answer(301), ConfigError),
        (answer(429, {"message": "limit"}), RateLimited),
        (answer(500), TransientError),
        (answer(400, b"<html>"), TransientError),
        (answer(200, b"<html>"), TransientError),
        (answer(200, {"status": "error"}), TransientError),
        (answer(200, {}), TransientError),
        (answer(409, {"message": "conflict"}), RecordRejected),
    ],
)
def test_answers_that_are_errors(response: Response, error: type[ConnectorError]) -> None:
    with pytest.raises(error) as raised:
        connector().read(UPSERT, response)
    assert type(raised.value) is error


def test_the_daily_limit_waits_long() -> None:
    with pytest.raises(RateLimited) as raised:
        connector().read(UPSERT, answer(429, {"policyName": "DAILY"}))
    assert raised.value.after_s == 3_600


def test_an_upsert_names_what_became_of_each() -> None:
    there = connector()
    written = [{"id": "8", "objectWriteTraceId": "1"}, {"id": "7", "properties": {"email": "A@x.de"}}]
    assert there.read(KNOWN, answer(200, {"results": written})).items == (Delivered(), Delivered())
    (first, second) = there.read(UPSERT, answer(200, {"results": written})).items
    assert first == second and isinstance(first, Pending) and sorted(first.job) == sorted("add:8,7")
    unnamed = [{"id": "8"}, {"id": "7"}]
    assert {type(one) for one in there.read(UPSERT, answer(200, {"results": unnamed})).items} == {Pending}
    part = {"results": written[:1], "errors": [{"message": "a@x.de is bad", "context": {"objectWriteTraceId": ["0"]}}]}
    refused, kept = there.read(KNOWN, answer(207, part)).items
    assert refused == Rejected(reason="HubSpot refused the contact (... is bad)") and kept == Delivered()
    by_address = {"results": written[:1], "errors": [{"message": "bad", "context": {"ids": ["A@x.de"]}}]}
    assert isinstance(there.read(KNOWN, answer(207, by_address)).items[0], Rejected)
    silent = there.read(KNOWN, answer(207, {"results": written[:1], "errors": [{"message": "?"}]}))
    assert [type(one) for one in silent.items] == [Retry, Delivered]


def test_a_culprit_is_taken_out() -> None:
    there = connector()
    named = there.read(UPSERT, answer(400, {"message": "bad", "errors": [{"context": {"objectWriteTraceId": ["1"]}}]}))
    assert [type(one) for one in named.items] == [Retry, Rejected] and named.refused_whole
    placed = there.read(UPSERT, answer(400, {"message": "inputs[0]: eventName"}))
    assert [type(one) for one in placed.items] == [Rejected, Retry]
    unnamed = there.read(UPSERT, answer(400, {"message": "Property x of a@x.de, +49 171 1234567 does not exist"}))
    assert {type(one) for one in unnamed.items} == {Rejected} and unnamed.refused_whole
    assert "a@x" not in repr(unnamed) and "1234567" not in repr(unnamed)
    assert there.read(UPSERT, answer(413)).refused_whole


def test_contacts_are_found_and_taken_off() -> None:
    there = connector()
    (request,) = requests(there.remove_members(MemberBatch(rows=rows("a@x.de", "b@x.de"), now_us=0)))
    found = there.read(request, answer(207, {"results": [{"id": "7"}, {"id": "x/../y"}]}))
    assert found.items == (Pending(job="remove:7", after_s=0.0),) * 2
    assert there.read(request, answer(200, {"results": []})).items == (Delivered(),) * 2
    step = there.poll(Job(id="remove:7,8", items=2, now_us=0))
    assert (step.method, step.url) == ("PUT", f"{API}/crm/lists/2026-03/17/memberships/remove")
    assert json.loads(step.body) == ["7", "8"]
    missing = {"recordIdsMissing": ["7"]}
    assert there.read(step, answer(200, missing)).items == (Delivered(),) * 2
    added = there.poll(Job(id="add:7,8", items=2, now_us=0))
    assert {type(one) for one in there.read(added, answer(200, missing)).items} == {Warned}
    for status in (400, 404):
        with pytest.raises(ConfigError) as raised:
            there.read(added, answer(status, {"message": "List is dynamic"}))
        assert raised.value.field == "list_id"


def test_lists() -> None:
    there = connector()
    found = {"lists": [{"listId": 5, "name": "A", "objectTypeId": "0-1", "additionalProperties": {"hs_list_size": "7"}},
                       {"listId": "6", "name": "Companies", "objectTypeId": "0-2"}],
             "hasMore": True, "offset": 100}  # fmt: skip
    page = there.read_lists(there.lists(), answer(200, found))
    assert page.lists == (VendorList(id="5", name="A", size=7),) and page.next_page == "100"
    assert json.loads(there.lists("100").body)["offset"] == 100 and json.loads(there.lists("x").body)["offset"] == 0
    bodies: list[Any] = [{}, b"<html>", {"list": 7}]
    for body in bodies:
        with pytest.raises(TransientError):
            there.read_lists(there.create_list("x"), answer(200, body))


def test_a_list_by_filter_is_told() -> None:
    there = connector()
    _, check = there.check()
    assert there.read_check(check, answer(200, {"list": {"processingType": "MANUAL"}})) == ""
    assert "static" in there.read_check(check, answer(200, {"list": {"processingType": "DYNAMIC"}}))
    assert "does not know the list" in there.read_check(check, answer(404, {"message": "?"}))
    assert answers.sentence(answer(200, {"results": []})) == ""


def test_a_list_is_needed_for_members_alone() -> None:
    there, batch = connector(list_id=""), MemberBatch(rows=rows("a@x.de"), now_us=0)
    for found in (there.add_members(batch), there.remove_members(batch)):
        (skip,) = found
        assert isinstance(skip, Skip) and skip.is_failure and skip.field == "list_id"


@pytest.mark.parametrize(
    "wrong",
    [{"access_token": ""}, {"list_id": "x"}, {"portal_id": "pe1"}, {"api_version": "v4"}, {"base_url": "x"}, {"x": 1}],
)
def test_settings_that_are_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HubSpotSettings.model_validate({"access_token": "t", **wrong})
