"""Intercom: contacts, events, steps by Intercom's ids, and what Intercom's answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_destination_intercom import answers, contacts, events
from headrace_destination_intercom.destination import Intercom
from headrace_destination_intercom.settings import IntercomSettings
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
    Request,
    Response,
    Retry,
    Row,
    Skip,
    Subject,
    TransientError,
    VendorList,
)

NOW_US = 1_796_000_000_000_000
ID = "5ba682d23d7cf92bef87bf01"


def connector(**settings: Any) -> Intercom:
    return Intercom(IntercomSettings.model_validate({"access_token": "t", "list_id": "21", **settings}))


def event(name: str = "Thing Done", kind: str = "track", **more: Any) -> EventItem:
    known: dict[str, Any] = {"fields": {"email": "a@x.de"}, "timestamp_us": NOW_US - 1_000_000}
    return EventItem(message_id="m", kind=kind, name=name, **{**known, **more})


def answer(status: int, body: Any = None, **headers: str) -> Response:
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status=status, headers=named, body=raw, received_at_us=NOW_US)


def fault(message: str, code: str = "parameter_invalid") -> dict[str, Any]:
    return {"type": "error.list", "errors": [{"code": code, "message": message}]}


def only(built: Any) -> Request:
    (found,) = built
    assert isinstance(found, Request)
    return found


def outcome(request: Request, response: Response) -> Any:
    (found,) = connector().read(request, response).items
    return found


@pytest.mark.parametrize(
    ("region", "host"),
    [("us", "api.intercom.io"), ("eu", "api.eu.intercom.io"), ("au", "api.au.intercom.io")],
)
def test_regions(region: str, host: str) -> None:
    request = connector(region=region).lists()
    assert request.url == f"https://{host}/tags" and request.headers["Intercom-Version"] == "2.15"


def test_contacts() -> None:
    fields = {
        "user_id": " U-1 ", "email": "Ada@x.de", "phone": "+49 171 1234567", "first_name": "Ada", "last_name": "Byron",
        "avatar": "https://x/a.png", "signed_up_at": "2026-01-31T08:15:30Z", "email_consent": "Granted",
    }  # fmt: skip
    assert contacts.user_of(fields) == {
        "role": "user", "external_id": "U-1", "email": "ada@x.de", "phone": "+491711234567", "name": "Ada Byron",
        "avatar": "https://x/a.png", "signed_up_at": 1769847330, "unsubscribed_from_emails": False,
    }  # fmt: skip
    assert contacts.user_of({"email": "a@x.de", "email_consent": "denied"})["unsubscribed_from_emails"] is True
    for silent in ("", "maybe", None):
        assert "unsubscribed_from_emails" not in contacts.user_of({"email": "a@x.de", "email_consent": silent})
    moments = ((1769847330, 1769847330), ("1769847330123", 1769847330), ("x", None), ("2026-01-31", 1769817600))
    for given, seconds in moments:
        assert contacts.user_of({"user_id": "u", "signed_up_at": given}).get("signed_up_at") == seconds


@pytest.mark.parametrize(
    ("fields", "field"),
    [({}, ""), ({"email": "x"}, "email"), ({"phone": "+491711234567"}, ""), ({"user_id": "u" * 256}, "user_id")],
)
def test_nobody_is_found_by_too_little(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(RecordRejected) as raised:
        contacts.user_of(fields)
    assert raised.value.field == field


def test_attributes_are_scalars_without_a_field_of_their_own() -> None:
    given = {"plan": "pro", "seats": 3, "vip": True, "firstName": "A", "created_at": 1, "tags": [1], "x": None, "o": {}}
    assert contacts.attributes_of(given) == {"plan": "pro", "seats": 3, "vip": True}
    assert len(contacts.attributes_of({f"a{n}": n for n in range(200)})) == 100
    assert contacts.attributes_of("x") == {}


def test_a_row_is_named_by_identifiers_alone() -> None:
    first, second = (
        connector().rows(Member(profile_id="p", fields={"user_id": "u", "first_name": name})) for name in ("Ada", "B")
    )
    assert first[0].key == second[0].key and first[0].data != second[0].data


@pytest.mark.parametrize(
    ("name", "kind", "chosen", "found"),
    [
        ("Thing Done", "track", {}, "Thing Done"),
        ("Thing Done", "track", {"thing_done": "did-it"}, "did-it"),
        ("Thing Done", "track", {"Thing Done": ""}, ""),
        ("Home", "page", {}, ""),
        ("Home", "page", {"Home": "visited-home"}, "visited-home"),
        ("", "page", {"page": "visited"}, "visited"),
        ("", "track", {}, ""),
        ("", "group", {}, ""),
        ("x" * 300, "track", {}, "x" * 190),
    ],
)
def test_names_of_events(name: str, kind: str, chosen: dict[str, str], found: str) -> None:
    made, reason = events.name_of(event(name, kind), chosen)
    assert made == found and bool(reason) is (not found)


def test_events() -> None:
    metadata = {"total": 2.5, "price": {"amount": 250, "currency": "eur"}, "items": [1], "o": {"a": 1}, "no": None}
    made = events.body_of(event(fields={"user_id": "u", "email": "a@x.de", "metadata": metadata}), "x", NOW_US)
    assert made == {
        "event_name": "x", "created_at": NOW_US // 10**6 - 1, "user_id": "u",
        "metadata": {"total": 2.5, "price": {"amount": 250, "currency": "eur"}},
    }  # fmt: skip
    assert events.body_of(event(timestamp_us=NOW_US + 10**9), "x", NOW_US)["created_at"] == NOW_US // 10**6


@pytest.mark.parametrize("timestamp_us", [0, -5, NOW_US - 30_000_000, NOW_US + 10_000_000, NOW_US + 10**15])
def test_an_event_has_the_same_second_at_each_try(timestamp_us: int) -> None:
    """Intercom takes it for a repetition by its second."""
    known = event(timestamp_us=timestamp_us, received_at_us=NOW_US)
    seconds = {events.body_of(known, "x", NOW_US + late_s * 1_000_000)["created_at"] for late_s in (1, 60, 14_400)}
    assert seconds == {min(timestamp_us if timestamp_us > 0 else NOW_US, NOW_US) // 1_000_000}
    many = events.body_of(event(fields={"email": "a@x.de", "metadata": {f"k{n}": n for n in range(50)}}), "x", NOW_US)
    assert len(many["metadata"]) == 20 and many["email"] == "a@x.de"
    given = (event("", "identify"), event(), event(fields={"email": "x"}), event("", "alias"))
    built = list(connector().send_events(EventBatch(events=given, now_us=NOW_US)))
    assert [one.url for one in built if isinstance(one, Request)] == [
        "https://api.intercom.io/contacts",
        "https://api.intercom.io/events",
    ]
    reasons = [one.reason for one in built if isinstance(one, Skip)]
    assert reasons == ["email is no e-mail address", "Intercom has no alias events"]


MADE = only(connector().send_events(EventBatch(events=(event("", "identify"),), now_us=NOW_US)))
SENT = only(connector().send_events(EventBatch(events=(event(),), now_us=NOW_US)))
ADDED = only(connector().add_members(MemberBatch(rows=(Row.of({"role": "user", "email": "a@x.de"}),), now_us=0)))


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (answer(401, fault("no", "unauthorized")), AuthError),
        (answer(403, fault("no", "forbidden")), AuthError),
        (answer(400, fault("no", "intercom_version_invalid")), ConfigError),
        (answer(404, b"<html>"), ConfigError),
        (answer(301), ConfigError),
        (answer(429, fault("slow", "rate_limit_exceeded")), RateLimited),
        (answer(500, b"<html>"), TransientError),
        (answer(200, b"<html>"), TransientError),
        (answer(400, b"<html>"), TransientError),
        (answer(422, fault("bad a@x.de")), RecordRejected),
        (answer(200, fault("bad")), RecordRejected),
    ],
)
def test_answers_that_are_errors(response: Response, error: type[ConnectorError]) -> None:
    for request in (MADE, SENT, ADDED):
        with pytest.raises(error) as raised:
            connector().read(request, response)
        assert type(raised.value) is error and "a@x" not in raised.value.reason


def test_a_limit_waits_until_its_window_ends() -> None:
    for header, wait_s in ((str(NOW_US // 10**6 + 7), 7.0), ("9" * 11, 600.0), ("x", None), ("0", 0.1)):
        with pytest.raises(RateLimited) as raised:
            connector().read(SENT, answer(429, fault("slow"), x_ratelimit_reset=header))
        assert raised.value.after_s == wait_s


def test_a_contact_that_is_there_is_brought_up_to_date() -> None:
    there = connector()
    assert outcome(MADE, answer(200, {"id": ID})) == Delivered()
    with pytest.raises(TransientError):
        there.read(MADE, answer(200, {}))
    said = f"A contact matching those details already exists with id={ID}"
    found = outcome(MADE, answer(409, fault(said, "conflict")))
    assert isinstance(found, Pending)
    step = there.poll(Job(id=found.job, items=1, now_us=0))
    assert (step.method, step.url) == ("PUT", f"https://api.intercom.io/contacts/{ID}")
    assert json.loads(step.body) == json.loads(MADE.body) and step.items == (0,)
    assert outcome(step, answer(200, {"id": ID})) == Delivered()
    assert isinstance(outcome(step, answer(404, fault("User Not Found", "not_found"))), Retry)
    for message in (f"An archived contact matching those details already exists with id={ID}", "conflict"):
        with pytest.raises(RecordRejected):
            there.read(MADE, answer(409, fault(message)))


def test_a_member_gets_the_tag() -> None:
    there = connector()
    for response in (answer(200, {"id": ID}), answer(409, fault(f"A contact ... exists with id={ID}"))):
        assert outcome(ADDED, response) == Pending(job=f"tag:{ID}", after_s=0.0)
    step = there.poll(Job(id=f"tag:{ID}", items=1, now_us=0))
    assert (step.method, step.url) == ("POST", f"https://api.intercom.io/contacts/{ID}/tags#tag")
    assert json.loads(step.body) == {"id": "21"} and outcome(step, answer(200, {"id": "21"})) == Delivered()
    with pytest.raises(ConfigError):
        there.read(step, answer(404, fault("Tag not found", "not_found")))
    assert isinstance(outcome(step, answer(404, fault("Resource Not Found", "not_found"))), Retry)


def test_a_member_loses_the_tag_under_all_that_is_found() -> None:
    there = connector()
    row = Row.of({"role": "user", "email": "a@x.de", "external_id": "u", "name": "Ada"})
    request = only(there.remove_members(MemberBatch(rows=(row,), now_us=0)))
    assert json.loads(request.body)["query"] == {
        "operator": "OR",
        "value": [
            {"field": "external_id", "operator": "=", "value": "u"},
            {"field": "email", "operator": "=", "value": "a@x.de"},
        ],
    }
    assert outcome(request, answer(200, {"data": []})) == Delivered()
    with pytest.raises(TransientError):
        there.read(request, answer(200, {}))
    found = outcome(request, answer(200, {"data": [{"id": ID}, {"id": "../x"}, {"id": "b2"}]}))
    assert found == Pending(job=f"untag:{ID},b2", after_s=0.0)
    step = there.poll(Job(id=found.job, items=1, now_us=0))
    assert (step.method, step.url) == ("DELETE", f"https://api.intercom.io/contacts/{ID}/tags/21#untag:b2")
    for response in (answer(200, {"id": "21"}), answer(404, fault("Resource Not Found"))):
        assert outcome(step, response) == Pending(job="untag:b2", after_s=0.0)
    last = there.poll(Job(id="untag:b2", items=1, now_us=0))
    assert (
        outcome(last, answer(200, {"id": "21"})) == outcome(last, answer(404, fault("User Not Found"))) == Delivered()
    )


def test_an_event_makes_the_person_whom_intercom_does_not_know() -> None:
    there = connector()
    found = outcome(SENT, answer(404, fault("User Not Found", "not_found")))
    step = there.poll(Job(id=found.job, items=1, now_us=0))
    assert step.url == "https://api.intercom.io/contacts#make"
    assert json.loads(step.body) == {"role": "user", "email": "a@x.de"}
    for response in (answer(200, {"id": ID}), answer(409, fault(f"... id={ID}"))):
        assert isinstance(outcome(step, response), Retry)


def test_people_are_forgotten_one_after_the_other() -> None:
    there = connector()
    identifiers = {"email": ["B@x.de", "bad"], "user_id": ["u"], "phone": ["+491711234567"]}
    known = Subject(profile_id="p", identifiers=identifiers)
    request, skip = there.delete(DeleteBatch(subjects=(known, Subject(profile_id="q")), now_us=0))
    assert isinstance(request, Request) and isinstance(skip, Skip) and skip.item == 1
    assert [one["value"] for one in json.loads(request.body)["query"]["value"]] == ["u", "b@x.de"]
    many = Subject(profile_id="m", identifiers={"user_id": [f"u{n}" for n in range(17)]})
    sizes = [
        len(json.loads(one.body)["query"]["value"])
        for one in there.delete(DeleteBatch(subjects=(many,), now_us=0))
        if isinstance(one, Request)
    ]
    assert sizes == [15, 2]
    found = outcome(request, answer(200, {"data": [{"id": ID}, {"id": "b2"}]}))
    step = there.poll(Job(id=found.job, items=1, now_us=0))
    assert json.loads(step.body) == {"intercom_user_id": ID} and step.url.endswith("/user_delete_requests#forget:b2")
    assert outcome(step, answer(200, {"id": 1})) == Pending(job="forget:b2", after_s=0.0)
    assert outcome(there.poll(Job(id="forget:b2", items=1, now_us=0)), answer(404, fault("gone"))) == Delivered()


def test_tags() -> None:
    there = connector()
    tags = {"data": [{"id": 1, "name": "A"}, {"id": "2"}, {"name": "no id"}, 3]}
    found = there.read_lists(there.lists(), answer(200, tags)).lists
    assert found == (VendorList(id="1", name="A"), VendorList(id="2", name="2"))
    made = there.create_list("Mine")
    assert json.loads(made.body) == {"name": "Mine"}
    wrong: list[tuple[Request, Any]] = [(there.lists(), {}), (made, {}), (made, b"<html>")]
    for request, body in wrong:
        with pytest.raises(TransientError):
            there.read_lists(request, answer(200, body))
    _, check = there.check()
    assert there.read_check(check, answer(200, {"id": "21"})) == answers.sentence(answer(200, {})) == ""
    assert "does not know the tag" in there.read_check(check, answer(404, fault("?")))
    assert "not valid" in there.read_check(check, answer(401, fault("?")))


def test_a_tag_is_needed_for_members_alone() -> None:
    there, batch = connector(list_id=""), MemberBatch(rows=(Row.of({"email": "a@x.de"}),), now_us=0)
    for found in (there.add_members(batch), there.remove_members(batch)):
        (skip,) = found
        assert isinstance(skip, Skip) and skip.is_failure and skip.field == "list_id"


@pytest.mark.parametrize(
    "wrong",
    [{"access_token": ""}, {"list_id": "a/b"}, {"region": "mars"}, {"api_version": "1.4"}, {"base_url": "x"}, {"x": 1}],
)
def test_settings_that_are_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        IntercomSettings.model_validate({"access_token": "t", **wrong})
