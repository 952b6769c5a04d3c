"""Customer.io: names, ids, people, groups, segments, deletions, and what its answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_destination_customer_io import operations
from headrace_destination_customer_io.destination import CustomerIo
from headrace_destination_customer_io.settings import CustomerIoSettings
from pydantic import ValidationError

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    DeleteBatch,
    Delivered,
    EventBatch,
    EventItem,
    Member,
    MemberBatch,
    Note,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    Skip,
    Subject,
    TransientError,
    VendorList,
    Warned,
)

NOW_US = 1_796_000_000_000_000
TRACK = "https://track.customer.io"


def there(**settings: Any) -> CustomerIo:
    return CustomerIo(CustomerIoSettings.model_validate({"site_id": "s", "api_key": "k", **settings}))


def built(*given: EventItem, **settings: Any) -> list[Any]:
    return list(there(**settings).send_events(EventBatch(events=given, now_us=NOW_US)))


def event(name: str = "Order Completed", *, kind: str = "track", previous: str = "", **fields: Any) -> EventItem:
    return EventItem(
        message_id="m-1", kind=kind, name=name, timestamp_us=NOW_US - 5_000_000, received_at_us=NOW_US,
        previous_id=previous, fields=fields,
    )  # fmt: skip


def one(item: EventItem, **settings: Any) -> dict[str, Any]:
    (request,) = (made for made in built(item, **settings) if isinstance(made, Request))
    body = json.loads(request.body)
    found: dict[str, Any] = body["batch"][0] if "batch" in body else body
    return found


def test_an_event() -> None:
    item = event(user_id=["u", "v"], email="a@b.c", properties={"revenue": 29.8, "coupon": None})
    (request,) = built(item)
    assert request.url == f"{TRACK}/api/v2/batch" and request.items == (0,)
    assert json.loads(request.body) == {
        "batch": [
            {"type": "person", "identifiers": {"id": "u"}, "action": "event", "name": "Order Completed",
             "id": operations.ulid_of(item, NOW_US), "timestamp": NOW_US // 1_000_000 - 5,
             "attributes": {"revenue": 29.8}},
        ]
    }  # fmt: skip


def test_ulids_are_those_of_the_specification_and_stay_the_same() -> None:
    item = EventItem(message_id="m", kind="track", timestamp_us=1_469_918_176_385_000, received_at_us=NOW_US)
    made = operations.ulid_of(item, NOW_US)
    assert made.startswith("01ARYZ6S41") and len(made) == 26  # the time of the specification's own example
    assert operations.ulid_of(item, NOW_US + 9) == made
    assert operations.ulid_of(event(event_id="x"), NOW_US)[10:] != operations.ulid_of(event(), NOW_US)[10:]


@pytest.mark.parametrize(
    ("fields", "settings", "expected"),
    [
        ({"user_id": "u", "email": "A@b.c"}, {}, {"id": "u"}),
        ({"email": ["A@b.c"]}, {}, {"email": "a@b.c"}),
        ({"user_id": "u", "email": "a@b.c"}, {"identify_by": "email"}, {"email": "a@b.c"}),
        ({"user_id": "u"}, {"identify_by": "email"}, {"id": "u"}),
        ({"user_id": "u" * 151, "email": "a@b.c"}, {}, {"email": "a@b.c"}),
        ({"user_id": 17}, {}, {"id": "17"}),
    ],
)
def test_who_it_is(fields: dict[str, Any], settings: dict[str, Any], expected: dict[str, str]) -> None:
    assert one(event(**fields), **settings)["identifiers"] == expected


def test_events_of_nobody_known_go_alone() -> None:
    made = built(event(anonymous_id="a"), event(user_id="u"), event("Home", kind="page", anonymous_id="a"))
    assert [request.url for request in made] == [f"{TRACK}/api/v1/events"] * 2 + [f"{TRACK}/api/v2/batch"]
    assert [request.items for request in made] == [(0,), (2,), (1,)]
    body = json.loads(made[1].body)
    assert {key: body[key] for key in ("anonymous_id", "name", "type", "data")} == {
        "anonymous_id": "a", "name": "Home", "type": "page", "data": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (event("Mine", user_id="u"), ("event", "Theirs")),
        (event("added_to_segment", user_id="u"), ("event", "added_to_segment")),
        (event("Home", kind="page", user_id="u"), ("page", "Home")),
        (event("", kind="page", user_id="u", page_url="https://x.y/" + "z" * 100), ("page", "https://x.y/" + "z" * 88)),
        (event("Welcome", kind="screen", user_id="u"), ("screen", "Welcome")),
    ],
)
def test_names(item: EventItem, expected: tuple[str, str]) -> None:
    found = one(item, event_names={"mine": "Theirs"})
    assert (found["action"], found["name"]) == expected


@pytest.mark.parametrize(
    ("item", "settings", "reason"),
    [
        (event("Secret", user_id="u"), {"event_names": {"secret": ""}}, "the setting event_names leaves it out"),
        (event(" ", user_id="u"), {}, "has no name"),
        (event("n" * 101, user_id="u"), {}, "its name is longer than 100 bytes"),
        (event(), {}, "has no user id, e-mail address or anonymous id that Customer.io takes"),
        (event(user_id="u", properties={"text": "x" * 32_000}), {}, "is larger than 32 KB"),
        (event("", kind="identify", anonymous_id="a"), {}, "has no user id and no e-mail address"),
        (
            event("", kind="identify", user_id="u", traits={f"t{n}": n for n in range(301)}),
            {},
            "has more than 300 attributes",
        ),
        (event("", kind="group", user_id="u"), {}, "has no group id that Customer.io takes"),
        (
            event("", kind="group", group_id="g"),
            {"object_type_id": ""},
            "the setting object_type_id is empty: no groups are sent",
        ),
        (event("", kind="alias", user_id="u"), {}, "has no two ids to merge"),
        (event("", kind="alias", user_id="u", previous="u"), {}, "has no two ids to merge"),
    ],
)
def test_what_is_left_out(item: EventItem, settings: dict[str, Any], reason: str) -> None:
    assert built(item, **settings) == [Skip(item=0, reason=reason)]


def test_a_person() -> None:
    item = event(
        "", kind="identify", user_id="u", email="Ada@b.c", anonymous_id="a", first_name="Ada", unsubscribed=False,
        created_at="2026-01-02T03:04:05Z",
        traits={"email": "Ada@b.c", "firstName": "Ada", "plan": "pro", "createdAt": "x", "bio": "x" * 1_001, "n": None},
    )  # fmt: skip
    note, request = built(item)
    assert note == Note(item=0, reason="an attribute is left out: names have at most 150 bytes, values 1,000")
    assert json.loads(request.body)["batch"] == [
        {"type": "person", "identifiers": {"id": "u"}, "action": "identify",
         "attributes": {"plan": "pro", "first_name": "Ada", "email": "ada@b.c", "created_at": 1_767_323_045,
                        "anonymous_id": "a", "unsubscribed": False},
         "timestamp": NOW_US // 1_000_000 - 5},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1_767_323_045, 1_767_323_045),
        ("1767323045", 1_767_323_045),
        (1_767_323_045_123, 1_767_323_045),
        ("2026-01-02T04:04:05+01:00", 1_767_323_045),
        ("2026-01-02", 1_767_312_000),
        ("soon", None),
        (None, None),
    ],
)
def test_created_is_in_seconds(given: Any, expected: int | None) -> None:
    found = one(event("", kind="identify", user_id="u", created_at=given, traits={"plan": "pro"}))["attributes"]
    assert found.get("created_at") == expected


def test_a_group_and_an_alias() -> None:
    group = event("", kind="group", user_id="u", group_id="acme", traits={"name": "Acme", "seats": 7})
    assert one(group, object_type_id="3") == {
        "type": "object", "identifiers": {"object_type_id": "3", "object_id": "acme"}, "action": "identify",
        "attributes": {"name": "Acme", "seats": 7}, "cio_relationships": [{"identifiers": {"id": "u"}}],
    }  # fmt: skip
    for previous, secondary in (("old", {"id": "old"}), ("o@b.c", {"email": "o@b.c"})):
        assert one(event("", kind="alias", user_id="u", previous=previous)) == {
            "type": "person", "action": "merge", "primary": {"id": "u"}, "secondary": secondary,
        }  # fmt: skip


def test_batches_are_parted_by_their_size() -> None:
    made = built(*(event(user_id="u", properties={"text": "x" * 30_000}) for _ in range(20)))
    assert [len(request.items) for request in made] == [16, 4]
    assert all(len(request.body) <= 500_000 for request in made)
    assert [len(request.items) for request in built(*(event(user_id="u") for _ in range(501)))] == [500, 1]


def test_members_of_a_segment() -> None:
    connector = there(segment_id="7", region="eu")
    rows = connector.rows(Member(profile_id="p", fields={"user_id": ["u2", " u1 ", ""]}))
    assert [row.data for row in rows] == [{"id": "u1"}, {"id": "u2"}] and "u1" not in rows[0].key
    batch = MemberBatch(rows=tuple(rows), now_us=NOW_US)
    (adds,), (removes,) = connector.add_members(batch), connector.remove_members(batch)
    assert isinstance(adds, Request) and isinstance(removes, Request)
    assert adds.url == "https://track-eu.customer.io/api/v1/segments/7/add_customers?id_type=id"
    assert removes.url == "https://track-eu.customer.io/api/v1/segments/7/remove_customers?id_type=id"
    assert json.loads(adds.body) == json.loads(removes.body) == {"ids": ["u1", "u2"]}
    by_email = there(segment_id="7", identify_by="email")
    assert [row.data for row in by_email.rows(Member(profile_id="p", fields={"email": ["A@b.c", "odd"]}))] == [
        {"id": "a@b.c"}
    ]


@pytest.mark.parametrize(
    ("settings", "fields", "reason"),
    [
        ({}, {"user_id": "u"}, "the setting segment_id is empty"),
        ({"segment_id": "7"}, {"email": "a@b.c"}, "has no user id"),
        ({"segment_id": "7", "identify_by": "email"}, {"user_id": "u"}, "has no e-mail address"),
    ],
)
def test_members_that_are_left_out(settings: dict[str, Any], fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        there(**settings).rows(Member(profile_id="p", fields=fields))
    assert caught.value.reason == reason


@pytest.mark.parametrize("action", ["delete", "suppress"])
def test_people_are_forgotten(action: str) -> None:
    subjects = (
        Subject(profile_id="p", identifiers={"user_id": ["u", "v"], "email": ["a@b.c"]}),
        Subject(profile_id="q", identifiers={"phone": ["+49"]}),
    )
    request, skip = there(forget_by=action).delete(DeleteBatch(subjects=subjects, now_us=NOW_US))
    assert skip == Skip(item=1, reason="no user id or e-mail address by which Customer.io knows people")
    assert isinstance(request, Request) and request.items == (0,)
    assert json.loads(request.body)["batch"] == [
        {"type": "person", "identifiers": one, "action": action}
        for one in ({"id": "u"}, {"id": "v"}, {"email": "a@b.c"})
    ]


def asked(size: int, path: str = "/api/v2/batch") -> Request:
    return Request(method="POST", url=f"{TRACK}{path}", items=tuple(range(size)))


def response(status: int, answer: Any, **headers: str) -> Response:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return Response(status=status, headers=headers, body=body)


def errors(*places: Any) -> dict[str, Any]:
    return {
        "errors": [{"batch_index": one, "reason": "invalid", "field": "name", "message": "bad a@b.c"} for one in places]
    }


REFUSED = Rejected(reason="Customer.io refused it: invalid, bad ...", field="name")


@pytest.mark.parametrize(
    ("size", "status", "answer", "outcomes"),
    [
        (3, 200, {}, [Delivered()] * 3),
        (3, 207, errors(1), [Delivered(), REFUSED, Delivered()]),
        (3, 200, errors(0, 2), [REFUSED, Delivered(), REFUSED]),
        (3, 207, errors(0, 1, 2), [REFUSED] * 3),
        (1, 207, errors(2), [REFUSED]),
    ],
)
def test_answers(size: int, status: int, answer: Any, outcomes: list[Any]) -> None:
    found = there().read(asked(size), response(status, answer))
    assert list(found.items) == outcomes and not found.refused_whole


@pytest.mark.parametrize("answer", [{}, errors("odd"), errors(9), {"errors": ["odd"]}, b"<html>"])
def test_parts_that_are_not_named_are_warned_of(answer: Any) -> None:
    found = there().read(asked(2), response(207, answer))
    assert all(isinstance(one, Warned) for one in found.items)


@pytest.mark.parametrize(
    ("path", "status", "answer", "said"),
    [
        ("/api/v2/batch", 400, {"errors": [{"reason": "invalid", "message": "odd"}]}, "invalid odd"),
        ("/api/v1/segments/7/add_customers", 400, {"meta": {"errors": ["id is too long"]}}, "id is too long"),
        ("/api/v2/batch", 413, b"", "413"),
    ],
)
def test_what_is_refused_as_a_whole_is_looked_for(path: str, status: int, answer: Any, said: str) -> None:
    found = there().read(asked(2, path), response(status, answer))
    assert found.refused_whole and all(isinstance(one, Rejected) and said in one.reason for one in found.items)


@pytest.mark.parametrize(
    ("path", "status", "answer", "error"),
    [
        ("/api/v2/batch", 401, {"meta": {"error": "Unauthorized"}}, AuthError),
        ("/api/v2/batch", 403, b"", AuthError),
        ("/api/v2/batch", 307, b"", ConfigError),
        ("/api/v1/segments/7/add_customers", 404, {"meta": {"error": "not found"}}, ConfigError),
        ("/api/v2/batch", 429, b"", RateLimited),
        ("/api/v2/batch", 503, b"", TransientError),
        ("/api/v2/batch", 200, b"<html>", TransientError),
        ("/api/v2/batch", 200, [], TransientError),
        ("/api/v2/batch", 202, {}, TransientError),
        ("/api/v2/batch", 422, {}, RecordRejected),
    ],
)
def test_answers_for_the_whole(path: str, status: int, answer: Any, error: type[ConnectorError]) -> None:
    with pytest.raises(error) as caught:
        there().read(asked(2, path), response(status, answer))
    if isinstance(caught.value, ConfigError):
        assert caught.value.field == ("segment_id" if "segments" in path else "region")


def test_segments_are_shown_and_made() -> None:
    with pytest.raises(ConfigError):
        there().lists()
    connector = there(app_api_key="app", region="eu")
    request = connector.lists()
    assert request.url == "https://api-eu.customer.io/v1/segments" and request.headers["Authorization"] == "Bearer app"
    given = [{"id": 7, "name": "A", "type": "manual"}, {"id": 8, "name": "B", "type": "dynamic"}, "odd"]
    found = connector.read_lists(request, response(200, {"segments": given}))
    assert found.lists == (VendorList(id="7", name="A"),) and found.next_page == ""
    making = connector.create_list("Mine")
    assert json.loads(making.body)["segment"]["name"] == "Mine"
    made = connector.read_lists(making, response(200, {"segment": {"id": 9, "type": "manual"}}))
    assert made.lists == (VendorList(id="9", name="Mine"),)
    for odd in (b"<html>", {"odd": 1}):
        for question in (request, making):
            with pytest.raises(TransientError):
                connector.read_lists(question, response(200, odd))


def test_the_checks() -> None:
    (only,) = there().check()
    assert only.request.url == f"{TRACK}/api/v1/accounts/region"
    connector = there(app_api_key="app", segment_id="7")
    key, segment = connector.check()
    assert segment.request.url == "https://api.customer.io/v1/segments/7"
    assert connector.read_check(key, response(200, {"region": "us"})) == ""
    assert "other region" in connector.read_check(key, response(200, {"region": "eu"}))
    assert "refuses" in connector.read_check(key, response(401, b""))
    assert "503" in connector.read_check(key, response(503, b""))
    assert connector.read_check(segment, response(200, {"segment": {"type": "manual"}})) == ""
    assert "data-driven" in connector.read_check(segment, response(200, {"segment": {"type": "dynamic"}}))
    assert "no such segment" in connector.read_check(segment, response(404, b""))
    assert "refuses" in connector.read_check(segment, response(401, b""))
    assert "503" in connector.read_check(segment, response(503, b""))


@pytest.mark.parametrize(
    "wrong",
    [
        {"site_id": "a b"},
        {"api_key": ""},
        {"api_key": "a b"},
        {"app_api_key": "ü"},
        {"region": "in"},
        {"segment_id": "x"},
        {"identify_by": "phone"},
        {"forget_by": "keep"},
        {"base_url": "ftp://x"},
        {"access_token": "of another vendor"},
    ],
)
def test_settings_that_are_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        there(**wrong)
