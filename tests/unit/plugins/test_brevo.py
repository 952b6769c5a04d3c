"""Brevo: names, contacts, events, lists, imports, deletions, and what its answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_destination_brevo import answers, contacts
from headrace_destination_brevo.destination import Brevo
from headrace_destination_brevo.settings import BrevoSettings
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
    Note,
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
API = "https://api.brevo.com/v3"


def there(**settings: Any) -> Brevo:
    return Brevo(BrevoSettings.model_validate({"api_key": "k", "list_id": "7", **settings}))


def built(*given: EventItem, **settings: Any) -> list[Any]:
    return list(there(**settings).send_events(EventBatch(events=given, now_us=NOW_US)))


def event(name: str = "Order Completed", *, kind: str = "track", **fields: Any) -> EventItem:
    return EventItem(
        message_id="m", kind=kind, name=name, timestamp_us=NOW_US - 5_000_000, received_at_us=NOW_US, fields=fields
    )


def one(item: EventItem, **settings: Any) -> dict[str, Any]:
    (request,) = (made for made in built(item, **settings) if isinstance(made, Request))
    body = json.loads(request.body)
    found: dict[str, Any] = body["events"][0] if "events" in body else body
    return found


def test_an_event() -> None:
    properties = {"order id": "T", "total €": 29.8, "no": None, "products": [{"sku": "s", "unit price": 5}, None]}
    item = event(email=["odd", "Ada@b.c"], user_id="u", phone="+491711234567", properties=properties)
    assert one(item) == {
        "event_name": "Order_Completed", "event_date": "2026-11-30T00:53:15.000Z",
        "identifiers": {"email_id": "ada@b.c", "ext_id": "u"},
        "event_properties": {"order_id": "T", "total_": 29.8, "products": [{"sku": "s", "unit_price": 5}]},
    }  # fmt: skip


def test_moments_are_those_of_the_event_and_never_ahead() -> None:
    ahead = EventItem(
        message_id="m", kind="track", name="x", timestamp_us=NOW_US + 9, received_at_us=1_767_323_045_250_000,
        fields={"email": "a@b.c"},
    )  # fmt: skip
    assert one(ahead)["event_date"] == "2026-01-02T03:04:05.250Z"


@pytest.mark.parametrize(
    ("fields", "settings", "expected"),
    [
        ({"email": "A@b.c"}, {}, {"email_id": "a@b.c"}),
        ({"user_id": 17}, {}, {"ext_id": "17"}),
        ({"user_id": "u", "email": "a@b.c"}, {"uses_ext_id": False}, {"email_id": "a@b.c"}),
        ({"phone": "+49 171 1234567"}, {}, {"phone_id": "+491711234567"}),
        ({"phone": "+491711234567", "user_id": "u"}, {}, {"ext_id": "u"}),
    ],
)
def test_who_it_is(fields: dict[str, Any], settings: dict[str, Any], expected: dict[str, str]) -> None:
    assert one(event(**fields), **settings)["identifiers"] == expected


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (event("Order Completed", email="a@b.c"), "Order_Completed"),
        (event("Mine", email="a@b.c"), "Their_s"),
        (event("added_to_segment", email="a@b.c"), "added_to_segment"),
        (event("Home", kind="page", email="a@b.c"), "page_viewed"),
        (event("", kind="page", email="a@b.c"), "page_viewed"),
        (event("Welcome", kind="screen", email="a@b.c"), "screen_viewed"),
        (event("Pricing", kind="page", email="a@b.c"), "prices"),
        (event("n" * 300, email="a@b.c"), "n" * 255),
    ],
)
def test_names(item: EventItem, expected: str) -> None:
    assert one(item, event_names={"mine": "Their's", "Pricing": "prices"})["event_name"] == expected


@pytest.mark.parametrize(
    ("item", "settings", "reason"),
    [
        (event("Secret", email="a@b.c"), {"event_names": {"secret": ""}}, "the setting event_names leaves it out"),
        (event("€", email="a@b.c"), {}, "has no name that Brevo takes"),
        (event("Home", kind="page", email="a@b.c"), {"page_event": ""}, "the setting page_event is empty"),
        (
            event(email="odd"),
            {},
            "has no e-mail address, user id or phone number by which Brevo finds contacts",
        ),
        (event(email="a@b.c", properties={"text": "x" * 50_000}), {}, "has properties of more than 50 KB"),
        (event("", kind="group", email="a@b.c"), {}, "Brevo has nothing for group events"),
        (event("", kind="alias", email="a@b.c"), {}, "Brevo has nothing for alias events"),
        (event("", kind="identify", email="odd"), {}, "email cannot be used"),
        (event("", kind="identify", first_name="Ada"), {}, "has no e-mail address, user id or phone number"),
    ],
)
def test_what_is_left_out(item: EventItem, settings: dict[str, Any], reason: str) -> None:
    assert built(item, **settings) == [Skip(item=0, reason=reason)]


def test_a_contact() -> None:
    item = event(
        "", kind="identify", email="Ada@b.c", user_id="u", phone="110", first_name="Ada",
        traits={"plan": "pro", "tags": ["a", "b"], "age": 36, "deep": {"x": 1}, "other": 1},
    )  # fmt: skip
    note, request = built(item, attributes={"plan": "PLAN", "tags": "TAGS", "age": "AGE", "deep": "DEEP"})
    assert note == Note(item=0, reason="left out: phone cannot be used")
    assert request.url == f"{API}/contacts" and request.method == "POST"
    assert json.loads(request.body) == {
        "email": "ada@b.c", "ext_id": "u", "updateEnabled": True,
        "attributes": {"FIRSTNAME": "Ada", "PLAN": "pro", "TAGS": ["a", "b"], "AGE": 36},
    }  # fmt: skip


def test_attributes_are_called_as_the_account_calls_them() -> None:
    item = event("", kind="identify", phone="+491711234567", first_name="Ada", last_name="B")
    found = one(item, attributes={"first_name": "PRENOM", "last_name": ""})
    assert found["attributes"] == {"PRENOM": "Ada", "SMS": "+491711234567"}


def test_events_are_parted_and_contacts_go_alone() -> None:
    made = built(event(email="a@b.c"), event("", kind="identify", email="a@b.c"), event("x", email="a@b.c"))
    assert [(request.url.removeprefix(API), request.items) for request in made] == [
        ("/contacts", (1,)), ("/events/batch", (0, 2)),
    ]  # fmt: skip
    assert [len(request.items) for request in built(*(event(email="a@b.c") for _ in range(201)))] == [200, 1]
    large = [event(email="a@b.c", properties={"text": "x" * 49_000}) for _ in range(11)]
    assert [len(request.items) for request in built(*large)] == [10, 1]


def test_rows_are_contacts() -> None:
    fields: dict[str, Any] = {
        "email": ["B@b.c", "odd", "a@b.c"], "user_id": "u", "phone": "+491711234567", "first_name": "Ada",
    }  # fmt: skip
    rows = there().rows(Member(profile_id="p", fields=fields))
    assert [row.data for row in rows] == [
        {"email": "a@b.c", "attributes": {"FIRSTNAME": "Ada"}}, {"email": "b@b.c", "attributes": {"FIRSTNAME": "Ada"}},
    ]  # fmt: skip
    assert all("@" not in row.key for row in rows)
    (single,) = there().rows(Member(profile_id="p", fields={**fields, "email": "a@b.c"}))
    assert single.data == {
        "email": "a@b.c", "ext_id": "u", "attributes": {"FIRSTNAME": "Ada", "SMS": "+491711234567"},
    }  # fmt: skip
    for settings, email in (({}, "odd"), ({"list_id": ""}, "a@b.c")):
        with pytest.raises(RecordRejected):
            there(**settings).rows(Member(profile_id="p", fields={"email": email}))


def batch(size: int) -> MemberBatch:
    return MemberBatch(rows=tuple(Row.of({"email": f"p{n}@b.c", "ext_id": f"u{n}"}) for n in range(size)), now_us=0)


def test_few_members_go_one_by_one_and_many_by_an_import() -> None:
    few = list(there().add_members(batch(2)))
    assert [made.items for made in few if isinstance(made, Request)] == [(0,), (1,)]
    assert isinstance(few[0], Request) and json.loads(few[0].body) == {
        "email": "p0@b.c", "ext_id": "u0", "listIds": [7], "updateEnabled": True,
    }  # fmt: skip
    (many,) = there().add_members(batch(100))
    assert isinstance(many, Request) and many.url == f"{API}/contacts/import" and len(many.items) == 100
    body = json.loads(many.body)
    assert body["listIds"] == [7] and body["updateExistingContacts"] is True
    assert body["jsonBody"][0] == {"email": "p0@b.c", "attributes": {"EXT_ID": "u0"}}
    assert len(list(there(import_from=0).add_members(batch(101)))) == 101


def test_lists_take_and_give_up_150_at_a_time() -> None:
    adds = list(there(creates_contacts=False).add_members(batch(151)))
    removes = list(there().remove_members(batch(301)))
    assert [len(made.items) for made in adds if isinstance(made, Request)] == [150, 1]
    assert [len(made.items) for made in removes if isinstance(made, Request)] == [150, 150, 1]
    assert isinstance(adds[1], Request) and adds[1].url == f"{API}/contacts/lists/7/contacts/add"
    assert json.loads(adds[1].body) == {"emails": ["p150@b.c"]}
    assert isinstance(removes[0], Request) and removes[0].url == f"{API}/contacts/lists/7/contacts/remove"


def test_people_are_forgotten_by_all_that_is_known() -> None:
    subjects = (
        Subject(profile_id="p", identifiers={"email": ["A+b@b.c"], "user_id": ["u/1"], "phone": ["+491711234567"]}),
        Subject(profile_id="q", identifiers={"anonymous_id": ["a"]}),
    )
    made = list(there().delete(DeleteBatch(subjects=subjects, now_us=NOW_US)))
    assert [(one.method, one.url, one.items) for one in made if isinstance(one, Request)] == [
        ("DELETE", f"{API}/contacts/a%2Bb%40b.c?identifierType=email_id", (0,)),
        ("DELETE", f"{API}/contacts/u%2F1?identifierType=ext_id", (0,)),
        ("DELETE", f"{API}/contacts/%2B491711234567?identifierType=phone_id", (0,)),
    ]
    assert isinstance(made[-1], Skip) and made[-1].item == 1
    subject = subjects[0]
    assert ("ext_id", "u/1") not in contacts.identifiers_of(subject, there(uses_ext_id=False).settings)


def asked(path: str, size: int = 1, body: Any = None, method: str = "POST") -> Request:
    raw = json.dumps(body).encode() if body is not None else b""
    return Request(method=method, url=f"{API}{path}", items=tuple(range(size)), body=raw)


def response(status: int, answer: Any = b"", **headers: str) -> Response:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return Response(status=status, headers=headers, body=body)


def failed(*places: Any, count: int | None = None) -> dict[str, Any]:
    errors = [{"eventIndex": one, "message": "bad a@b.c"} for one in places]
    return {"status": "partial", "failed_events": len(places) if count is None else count, "errors": errors}


REFUSED = Rejected(reason="Brevo refused it: bad ...")


@pytest.mark.parametrize(
    ("status", "answer", "outcomes"),
    [
        (202, {"message": "Batch accepted.", "count": 3}, [Delivered()] * 3),
        (207, failed([1]), [Delivered(), REFUSED, Delivered()]),
        (207, failed([0, 2], count=2), [REFUSED, Delivered(), REFUSED]),
        (207, failed(1), [Delivered(), REFUSED, Delivered()]),
        (400, failed([0, 1, 2], count=3), [REFUSED] * 3),
    ],
)
def test_answers_to_events(status: int, answer: Any, outcomes: list[Any]) -> None:
    found = there().read(asked("/events/batch", 3), response(status, answer))
    assert list(found.items) == outcomes and not found.refused_whole


@pytest.mark.parametrize(
    ("status", "answer", "warned"),
    [(202, {"count": 2}, [0, 1, 2]), (207, failed([9]), [0, 1, 2]), (207, failed([1], count=2), [0, 2])],
)
def test_events_that_are_not_named_are_warned_of(status: int, answer: Any, warned: list[int]) -> None:
    found = there().read(asked("/events/batch", 3), response(status, answer))
    assert [place for place, one in enumerate(found.items) if isinstance(one, Warned)] == warned


EMAILS = {"emails": ["a@b.c", "b@b.c", "c@b.c"]}
UNKNOWN = {"code": "invalid_parameter", "message": "Contact already in list and/or does not exist"}


@pytest.mark.parametrize(
    ("action", "status", "answer", "kinds"),
    [
        ("add", 201, {"contacts": {"success": ["A@b.c", "b@b.c", "c@b.c"]}}, [Delivered] * 3),
        ("add", 201, {"contacts": {"success": ["a@b.c"], "failure": ["b@b.c"]}}, [Delivered, Warned, Retry]),
        ("add", 400, UNKNOWN, [Warned] * 3),
        ("remove", 201, {"contacts": {"success": ["a@b.c"], "failure": ["b@b.c", "c@b.c"]}}, [Delivered] * 3),
        ("remove", 400, UNKNOWN, [Delivered] * 3),
        ("remove", 201, {"contacts": {"success": None, "failure": ["b@b.c"]}}, [Retry, Delivered, Retry]),
    ],
)
def test_failures_inside_a_success_are_found(action: str, status: int, answer: Any, kinds: list[type]) -> None:
    request = asked(f"/contacts/lists/7/contacts/{action}", 3, EMAILS)
    assert [type(one) for one in there().read(request, response(status, answer)).items] == kinds


@pytest.mark.parametrize("path", ["/events/batch", "/contacts/lists/7/contacts/add", "/contacts/import"])
def test_what_is_refused_without_names_is_looked_for(path: str) -> None:
    answer = {"code": "invalid_parameter", "message": "Contact email addresses are invalid"}
    found = there().read(asked(path, 3, EMAILS), response(400, answer))
    assert found.refused_whole and all(isinstance(one, Rejected) for one in found.items)


def test_an_import_is_followed() -> None:
    connector = there()
    (first,) = connector.read(asked("/contacts/import"), response(202, {"processId": 78})).items
    assert first == Pending(job="78", after_s=30.0)
    poll = connector.poll(Job(id="78", items=2, now_us=NOW_US))
    assert (poll.method, poll.url, poll.items) == ("GET", f"{API}/processes/78", (0, 1))
    done = {"status": "completed", "info": {"import": {"invalid_emails": None}}}
    odd = {"status": "completed", "info": {"import": {"invalid_emails": "https://x/1.csv", "duplicate_ext_id": None}}}
    for answer, expected in (
        (response(200, {"status": "queued"}), first),
        (response(200, {"status": "processing"}), first),
        (response(429), first),
        (response(200, done), Delivered()),
        (response(200, {"status": "completed"}), Delivered()),
        (response(200, odd), Warned(reason="Brevo left out some of the import (invalid_emails): see process 78 there")),
        (response(200, {"status": "failed"}), Retry(reason="Brevo did not carry out the import")),
        (response(404, {"code": "document_not_found"}), Retry(reason="Brevo did not carry out the import")),
    ):
        assert connector.read(poll, answer).items == (expected,) * 2
    with pytest.raises(TransientError):
        connector.read(poll, response(200, b"<html>"))


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (204, b"", Delivered()),
        (404, {"code": "document_not_found", "message": "Contact does not exist"}, Delivered()),
        (405, {"code": "method_not_allowed"}, RecordRejected),
        (404, b"<html>", ConfigError),
        (400, {"code": "invalid_parameter", "message": "odd"}, RecordRejected),
        (200, {}, TransientError),
    ],
)
def test_deletions(status: int, answer: Any, expected: Any) -> None:
    request = asked("/contacts/a%40b.c?identifierType=email_id", method="DELETE")
    if isinstance(expected, type):
        with pytest.raises(expected):
            there().read(request, response(status, answer))
    else:
        assert there().read(request, response(status, answer)).items == (expected,)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("List ids are not valid", ConfigError),
        ("List 7 does not exist", ConfigError),
        ("listIds is invalid", ConfigError),
        ("PLAN is not in the list of values", RecordRejected),
        ("list is not a valid attribute", RecordRejected),
    ],
)
def test_what_is_said_of_one_contact_stops_no_destination(message: str, error: type[ConnectorError]) -> None:
    (added,) = there().add_members(batch(1))
    assert isinstance(added, Request)
    with pytest.raises(error):
        there().read(added, response(400, {"code": "invalid_parameter", "message": message}))


@pytest.mark.parametrize(
    ("path", "status", "answer", "error"),
    [
        ("/contacts", 400, {"code": "duplicate_parameter", "message": "SMS is taken"}, RecordRejected),
        (
            "/contacts",
            400,
            {"code": "invalid_parameter", "message": "PLAN is not in the list of values"},
            RecordRejected,
        ),
        ("/contacts", 400, {"code": "invalid_parameter", "message": "List ids are not valid"}, RecordRejected),
        ("/contacts", 400, {"code": "invalid_parameter", "message": "emailBlacklisted is odd"}, RecordRejected),
        ("/contacts", 402, {"code": "not_enough_credits", "message": "x"}, ConfigError),
        ("/contacts", 425, {"code": "x", "message": "Too early"}, TransientError),
        ("/contacts", 200, b"<html>", TransientError),
        ("/contacts", 401, {"code": "unauthorized", "message": "Key not found"}, AuthError),
        ("/events/batch", 403, {"code": "permission_denied", "message": "x"}, AuthError),
        ("/events/batch", 202, b"<html>", TransientError),
        ("/events/batch", 503, b"", TransientError),
        ("/contacts/lists/7/contacts/add", 404, {"code": "document_not_found", "message": "x"}, ConfigError),
        ("/contacts/lists/7/contacts/add", 201, b"", TransientError),
        ("/contacts/import", 202, {}, TransientError),
        ("/contacts/import", 429, b"", RateLimited),
        ("/contacts", 302, b"", ConfigError),
    ],
)
def test_answers_for_the_whole(path: str, status: int, answer: Any, error: type[ConnectorError]) -> None:
    with pytest.raises(error) as caught:
        there().read(asked(path, 3, EMAILS), response(status, answer, **{"x-sib-ratelimit-reset": "1200"}))
    if isinstance(caught.value, RateLimited):
        assert caught.value.after_s == 1200.0
    assert answers.wait_s(response(429, b"", **{"retry-after": "3", "x-sib-ratelimit-reset": "soon"})) == 3.0


def test_lists_are_shown_and_made() -> None:
    connector = there(folder_id="3")
    request = connector.lists("50")
    assert request.url == f"{API}/contacts/lists?limit=50&offset=50"
    page: dict[str, Any] = {
        "count": 120,
        "lists": [{"id": n, "name": f"L{n}", "uniqueSubscribers": n} for n in range(50)],
    }
    found = connector.read_lists(request, response(200, page))
    assert found.lists[3] == VendorList(id="3", name="L3", size=3) and found.next_page == "100"
    last = connector.read_lists(connector.lists("100"), response(200, {**page, "lists": page["lists"][:20]}))
    assert last.next_page == "" and len(last.lists) == 20
    making = connector.create_list("Mine")
    assert json.loads(making.body) == {"name": "Mine", "folderId": 3}
    assert connector.read_lists(making, response(201, {"id": 9})).lists == (VendorList(id="9", name="Mine"),)
    for question, status, odd in ((request, 200, {"odd": 1}), (making, 201, {"odd": 1}), (request, 200, b"")):
        with pytest.raises(TransientError):
            connector.read_lists(question, response(status, odd))


def test_the_checks() -> None:
    key, listed = there().check()
    assert (key.request.url, listed.request.url) == (f"{API}/account", f"{API}/contacts/lists/7")
    assert len(list(there(list_id="").check())) == 1
    assert there().read_check(key, response(200, {"email": "x"})) == ""
    assert "does not let" in there().read_check(key, response(401, {"code": "unauthorized", "message": "x"}))
    assert "look at the list" in there().read_check(listed, response(404, {"code": "document_not_found"}))


def test_values_as_brevo_compares_them() -> None:
    assert there().normalise("email", " Ada@B.c").sent == "ada@b.c"
    assert there().normalise("phone", "+49 (171) 123-4567").normalised == "+491711234567"
    for field, value in (("email", "odd"), ("first_name", "Ada")):
        with pytest.raises(RecordRejected):
            there().normalise(field, value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": ""},
        {"api_key": "a b"},
        {"list_id": "x"},
        {"folder_id": ""},
        {"import_from": -1},
        {"attributes": {"plan": "plan"}},
        {"attributes": {"plan": "PL AN"}},
        {"base_url": "https://x?y"},
        {"site_id": "of another vendor"},
    ],
)
def test_settings_that_are_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        there(**wrong)
