"""Mixpanel: names, ids, moments, profiles, groups, audiences, deletions, and what its answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_destination_mixpanel import answers, events
from headrace_destination_mixpanel.destination import MANIFEST, Mixpanel
from headrace_destination_mixpanel.settings import MixpanelSettings
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
    Retry,
    Skip,
    Subject,
    TransientError,
    Warned,
)

NOW_US = 1_796_000_000_000_000
ACCOUNT = {"service_account": "s", "service_account_secret": "x", "project_id": "1"}


def there(**settings: Any) -> Mixpanel:
    return Mixpanel(MixpanelSettings.model_validate({"project_token": "tok", **settings}))


def built(*given: EventItem, **settings: Any) -> list[Any]:
    return list(there(**settings).send_events(EventBatch(events=given, now_us=NOW_US)))


def event(name: str = "Order Completed", *, kind: str = "track", **more: Any) -> EventItem:
    known = {"message_id": "m-1", "timestamp_us": NOW_US - 5_000_000, "received_at_us": NOW_US - 1_000_000, **more}
    return EventItem(kind=kind, name=name, **known)


def sent(*given: EventItem, **settings: Any) -> list[dict[str, Any]]:
    (request,) = (one for one in built(*given, **settings) if isinstance(one, Request))
    found: list[dict[str, Any]] = json.loads(request.body)
    return found


def properties(item: EventItem, **settings: Any) -> dict[str, Any]:
    (found,) = sent(item, **settings)
    return dict(found["properties"])


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (event("Order Completed"), "Order Completed"),
        (event("order_completed"), "Order Completed"),
        (event("Mine"), "Theirs"),
        (event("added_to_segment"), "added_to_segment"),
        (event("Home", kind="page"), "Loaded a Page"),
        (event("", kind="page"), "Loaded a Page"),
        (event("Welcome", kind="screen"), "Loaded a Screen"),
        (event("Pricing", kind="page"), "Saw Prices"),
    ],
)
def test_names(item: EventItem, expected: str) -> None:
    names = {"mine": "Theirs", "Pricing": "Saw Prices", "order_completed": "Order Completed"}
    (found,) = sent(item, event_names=names)
    assert found["event"] == expected


@pytest.mark.parametrize(
    ("item", "settings", "reason"),
    [
        (event("Secret"), {"event_names": {"secret": ""}}, "the setting event_names leaves it out"),
        (event(" "), {}, "has no name"),
        (event("Home", kind="page"), {"page_event": ""}, "the setting page_event is empty"),
        (event(timestamp_us=1_000_000), {}, "happened before 1971, which Mixpanel refuses"),
        (
            event(fields={"properties": {"$ignore": True}}),
            {},
            "its property $ignore would make Mixpanel drop it unseen",
        ),
        (event("", kind="identify"), {}, "has no user id and no device id that Mixpanel takes"),
        (event("", kind="identify", fields={"user_id": "u"}), {}, "has no traits to set"),
        (event("", kind="group", fields={"group_id": "g"}), {}, "the setting group_key is empty: no groups are sent"),
        (event("", kind="group"), {"group_key": "company"}, "has no group id"),
        (
            event("", kind="alias", previous_id="a", fields={"user_id": "u"}),
            {},
            "Mixpanel joins no two ids in projects with the simplified identity merge",
        ),
        (event("", kind="alias", fields={"user_id": "u"}), {"id_merge": "original"}, "has no two ids to join"),
    ],
)
def test_what_is_left_out(item: EventItem, settings: dict[str, Any], reason: str) -> None:
    assert built(item, **settings) == [Skip(item=0, reason=reason)]


def test_an_event() -> None:
    fields = {
        "user_id": ["u1", "u2"], "anonymous_id": "a1", "ip": "203.0.113.7", "group_id": "acme",
        "properties": {"order_id": "T", "products": [{"sku": "s"}], "$current_url": "mine", "time": 5, "token": "x"},
        "context": {"page": {"url": "https://x.y", "referrer": "https://r"}, "campaign": {"name": "n", "source": ""},
                    "os": {"name": "iOS"}, "screen": {"width": 390}, "device": "odd"},
    }  # fmt: skip
    made = built(event(fields=fields), group_key="company")
    notes = [Note(item=0, reason=f"the property {name} is Mixpanel's own") for name in ("token", "time")]
    assert made[:2] == notes
    (found,) = json.loads(made[2].body)
    assert found["properties"] == {
        "order_id": "T", "products": [{"sku": "s"}], "$current_url": "mine", "$referrer": "https://r",
        "utm_campaign": "n", "$os": "iOS", "$screen_width": 390, "company": "acme", "time": 1_795_999_995_000,
        "distinct_id": "u1", "$insert_id": "m-1", "ip": "203.0.113.7", "$user_id": "u1", "$device_id": "a1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "merge", "expected"),
    [
        ({"user_id": "u"}, "simplified", {"distinct_id": "u", "$user_id": "u"}),
        ({"anonymous_id": "a"}, "simplified", {"distinct_id": "$device:a", "$device_id": "a"}),
        ({"anonymous_id": "a"}, "original", {"distinct_id": "a"}),
        ({"user_id": "u", "anonymous_id": "a"}, "original", {"distinct_id": "u"}),
        ({"user_id": "NULL", "anonymous_id": "a"}, "simplified", {"distinct_id": "$device:a", "$device_id": "a"}),
        ({"user_id": 17}, "simplified", {"distinct_id": "17", "$user_id": "17"}),
        ({"user_id": []}, "simplified", {"distinct_id": ""}),
    ],
)
def test_ids(fields: dict[str, Any], merge: str, expected: dict[str, str]) -> None:
    found = properties(event(fields=fields), id_merge=merge)
    assert {key: found[key] for key in ("distinct_id", "$user_id", "$device_id") if key in found} == expected


def test_who_is_nobody_is_said() -> None:
    note, _ = built(event())
    assert note.reason == "has no user id and no device id: Mixpanel counts it, but not as anybody's"


@pytest.mark.parametrize(
    ("timestamp_us", "received_us", "now_us", "expected_ms"),
    [
        (NOW_US - 9, NOW_US, NOW_US, (NOW_US - 9) // 1_000),
        (NOW_US + 7_200_000_000, NOW_US - 2_000, NOW_US, (NOW_US - 2_000) // 1_000),
        (NOW_US + 7_200_000_000, NOW_US - 2_000, NOW_US + 9_000_000_000, (NOW_US - 2_000) // 1_000),
        (NOW_US + 5_000, 0, NOW_US, NOW_US // 1_000),
        (0, 0, NOW_US, NOW_US // 1_000),
    ],
)
def test_moments_never_lie_ahead_and_stay_the_same(
    timestamp_us: int, received_us: int, now_us: int, expected_ms: int
) -> None:
    item = event(timestamp_us=timestamp_us, received_at_us=received_us)
    made, reason, _ = events.import_of(item, "x", there().settings, now_us)
    assert (made["properties"]["time"], reason) == (expected_ms, "")


def test_insert_ids_are_what_mixpanel_takes() -> None:
    uuid = "5a1f2c4e-7b1d-4a56-9c3e-0d2b8f6e1a90"
    assert events.insert_id_of(uuid) == uuid
    for odd in ("a" * 37, "with space", "ü", "null", "", "a_b"):
        made = events.insert_id_of(odd)
        assert len(made) == 36 and made.isalnum() and made == events.insert_id_of(odd)


def test_a_profile() -> None:
    fields = {
        "user_id": "u", "email": "a@b.c", "first_name": "Ada", "created_at": "2026-01-01", "ip": "203.0.113.7",
        "traits": {"email": "a@b.c", "firstName": "Ada", "plan": "pro", "age": 36, "$email": "x", "none": None},
    }  # fmt: skip
    (request,) = built(event("", kind="identify", fields=fields))
    assert request.url == "https://api.mixpanel.com/engage?strict=1&verbose=1&ip=0"
    assert "Authorization" not in request.headers
    assert json.loads(request.body) == [
        {"$token": "tok", "$distinct_id": "u", "$ip": "203.0.113.7",
         "$set": {"plan": "pro", "age": 36, "$email": "a@b.c", "$first_name": "Ada", "$created": "2026-01-01"}},
    ]  # fmt: skip


def test_a_group_and_an_alias() -> None:
    group = event("", kind="group", fields={"group_id": "g", "traits": {"name": "Acme", "seats": 5}})
    (request,) = built(group, group_key="company")
    assert request.url == "https://api.mixpanel.com/groups?strict=1&verbose=1"
    assert json.loads(request.body) == [
        {"$token": "tok", "$group_key": "company", "$group_id": "g", "$set": {"seats": 5, "$name": "Acme"}}
    ]
    alias = event("", kind="alias", previous_id="a", fields={"user_id": "u"})
    assert sent(alias, id_merge="original") == [
        {"event": "$merge", "properties": {"$distinct_ids": ["a", "u"], "token": "tok"}}
    ]


def test_identify_events_join_a_device_to_its_user_with_original_merging() -> None:
    item = event("", kind="identify", fields={"user_id": "u", "anonymous_id": "a", "traits": {"plan": "pro"}})
    joins, profile = built(item, id_merge="original")
    assert (joins.items, profile.items) == ((0,), (0,)) and "/import?" in joins.url and "/engage?" in profile.url
    assert json.loads(joins.body) == [{"event": "$merge", "properties": {"$distinct_ids": ["a", "u"], "token": "tok"}}]
    assert len(built(item)) == 1
    (alone,) = built(event("", kind="identify", fields={"user_id": "u", "anonymous_id": "a"}), id_merge="original")
    assert "/import?" in alone.url


def test_requests_are_parted_by_what_they_hold() -> None:
    groups = [event("", kind="group", fields={"group_id": f"g{n}"}) for n in range(201)]
    made = built(event("x"), *groups, event("", kind="identify"), group_key="k")
    requests = [one for one in made if isinstance(one, Request)]
    assert [len(one.items) for one in requests] == [200, 1, 1]
    assert [one.items[0] for one in requests] == [1, 0, 201]


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"region": "eu"}, "https://api-eu.mixpanel.com/import?strict=1"),
        ({"region": "in"}, "https://api-in.mixpanel.com/import?strict=1"),
        (ACCOUNT, "https://api.mixpanel.com/import?strict=1&project_id=1"),
    ],
)
def test_where_events_go(settings: dict[str, Any], url: str) -> None:
    (request,) = (one for one in built(event(), **settings) if isinstance(one, Request))
    assert request.url == url
    own = {"Authorization": "Basic dG9rOg=="} if settings is not ACCOUNT else {}
    assert request.headers == {"Content-Type": "application/json", **own}


def test_audiences_are_values_of_a_list_property() -> None:
    connector = there(audience="VIPs")
    rows = connector.rows(Member(profile_id="p", fields={"user_id": ["u2", "u1", "null"]}))
    assert [row.data for row in rows] == [{"distinct_id": "u1"}, {"distinct_id": "u2"}]
    assert all("u1" not in row.key for row in rows)
    batch = MemberBatch(rows=tuple(rows), now_us=NOW_US)
    (adds,), (removes,) = connector.add_members(batch), connector.remove_members(batch)
    assert isinstance(adds, Request) and isinstance(removes, Request)
    who = {"$token": "tok", "$distinct_id": "u1", "$ignore_time": True}
    assert json.loads(adds.body)[0] == {**who, "$union": {"Audiences": ["VIPs"]}}
    assert json.loads(removes.body)[0] == {**who, "$remove": {"Audiences": "VIPs"}}
    for settings, id in (({}, "u"), ({"audience": "A"}, "0")):
        with pytest.raises(RecordRejected):
            there(**settings).rows(Member(profile_id="p", fields={"user_id": id}))


def test_people_are_forgotten() -> None:
    subjects = (
        Subject(profile_id="p", identifiers={"user_id": ["u"], "anonymous_id": ["a"]}),
        Subject(profile_id="q", identifiers={"email": ["a@b.c"]}),
        Subject(profile_id="r", identifiers={"user_id": ["v"]}),
    )
    batch = DeleteBatch(subjects=subjects, now_us=NOW_US)
    skip, task = there(gdpr_token="g", region="eu").delete(batch)
    assert skip == Skip(item=1, reason="no user id or anonymous id by which Mixpanel knows people")
    assert isinstance(task, Request)
    assert task.url == "https://eu.mixpanel.com/api/app/data-deletions/v3.0/?token=tok"
    assert task.items == (0, 2) and task.headers["Authorization"] == "Bearer g"
    assert json.loads(task.body) == {"compliance_type": "GDPR", "distinct_ids": ["u", "$device:a", "v"]}
    first, _, second = there().delete(batch)
    assert isinstance(first, Request) and isinstance(second, Request)
    assert (first.items, second.items) == ((0,), (2,))
    assert json.loads(second.body) == [
        {"$token": "tok", "$distinct_id": "v", "$delete": "null", "$ignore_alias": False}
    ]


def test_many_ids_are_parted() -> None:
    subjects = tuple(Subject(profile_id="p", identifiers={"user_id": [f"{n}", f"u{n}"]}) for n in range(1, 1_001))
    made = there(gdpr_token="g").delete(DeleteBatch(subjects=subjects, now_us=NOW_US))
    assert [len(json.loads(one.body)["distinct_ids"]) for one in made if isinstance(one, Request)] == [1_998, 2]


def asked(size: int, path: str = "/import") -> Request:
    return Request(method="POST", url=f"https://api.mixpanel.com{path}?strict=1", items=tuple(range(size)))


def response(status: int, answer: Any, **headers: str) -> Response:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return Response(status=status, headers=headers, body=body)


def failed(*places: Any, **more: Any) -> dict[str, Any]:
    records = [{"index": place, "field": "properties.time", "message": "is invalid: 4915112345678"} for place in places]
    return {"code": 400, "status": "Bad Request", "error": "failed validation", "failed_records": records, **more}


REFUSED = Rejected(reason="Mixpanel refused it: is invalid: ...", field="properties.time")


@pytest.mark.parametrize(
    ("path", "status", "answer", "outcomes"),
    [
        ("/import", 200, {"code": 200, "num_records_imported": 3, "status": "OK"}, [Delivered()] * 3),
        ("/import", 400, failed(1, num_records_imported=2), [Delivered(), REFUSED, Delivered()]),
        ("/import", 400, failed(0, 1, 2, num_records_imported=0), [REFUSED] * 3),
        ("/engage", 200, failed(2), [Delivered(), Delivered(), REFUSED]),
        ("/engage", 200, {"status": 1, "error": None}, [Delivered()] * 3),
        ("/groups", 200, {"status": 1, "error": None}, [Delivered()] * 3),
    ],
)
def test_answers(path: str, status: int, answer: Any, outcomes: list[Any]) -> None:
    found = there().read(asked(3, path), response(status, answer))
    assert list(found.items) == outcomes and not found.refused_whole


def test_events_that_are_missing_go_again_and_updates_are_warned_of() -> None:
    lost = [
        ("/import", 400, failed(1, num_records_imported=1), [0, 2]),
        ("/import", 400, failed("odd", num_records_imported=2), [0, 1, 2]),
        ("/import", 200, {"code": 200, "num_records_imported": 2}, [0, 1, 2]),
        ("/engage", 200, {"error": "odd", "status": 1}, [0, 1, 2]),
        ("/engage", 200, b"1", [0, 1, 2]),
    ]
    for path, status, answer, unsure in lost:
        found = there().read(asked(3, path), response(status, answer))
        kind = Retry if path == "/import" else Warned
        assert [place for place, one in enumerate(found.items) if isinstance(one, kind)] == unsure
    assert there().read(asked(1, "/engage"), response(200, b"1")).items == (Delivered(),)


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [
        ("/import", 400, {"code": 400, "error": "data, missing or empty"}),
        ("/import", 413, {"code": 413, "error": "request exceeds max limit of 2097152 bytes"}),
        ("/import", 413, b"<html>"),
        ("/engage", 200, {"status": 0, "error": "odd"}),
        ("/engage", 200, b"0"),
    ],
)
def test_what_is_refused_without_names_is_looked_for(path: str, status: int, answer: Any) -> None:
    found = there().read(asked(3, path), response(status, answer))
    assert found.refused_whole and all(isinstance(one, Rejected) for one in found.items)


@pytest.mark.parametrize(
    ("path", "status", "answer", "error"),
    [
        ("/import", 401, {"code": 401, "error": "Invalid credentials"}, AuthError),
        ("/engage", 403, {"error": "Forbidden", "status": "error"}, AuthError),
        ("/import", 400, {"code": 400, "error": "project_id required"}, ConfigError),
        ("/import", 404, b"<html>", ConfigError),
        ("/import", 302, b"", ConfigError),
        ("/import", 429, {"code": 429, "error": "Project exceeded rate limits."}, RateLimited),
        ("/import", 503, b"", TransientError),
        ("/import", 200, b"<html>", TransientError),
        ("/engage", 200, {"odd": 1}, TransientError),
        ("/import", 204, b"", TransientError),
        ("/import", 422, {"error": "odd"}, RecordRejected),
        ("/api/app/data-deletions/v3.0/", 200, {"status": "error"}, TransientError),
        ("/api/app/data-deletions/v3.0/", 401, {"status": "error", "error": "x"}, AuthError),
        ("/api/app/data-deletions/v3.0/", 429, {"status": "error", "error": "x"}, RateLimited),
    ],
)
def test_answers_for_the_whole(path: str, status: int, answer: Any, error: type[ConnectorError]) -> None:
    with pytest.raises(error) as caught:
        there().read(asked(2, path), response(status, answer, **{"retry-after": "7"}))
    if isinstance(caught.value, RateLimited):
        assert caught.value.after_s == 7.0


def test_a_deletion_is_taken() -> None:
    for status, results in ((201, {"task_id": "t"}), (200, [{"status": "PENDING", "tracking_id": "1"}])):
        taken = response(status, {"status": "ok", "results": results})
        assert there().read(asked(2, "/api/app/data-deletions/v3.0/"), taken).items == (Delivered(), Delivered())


def test_the_check() -> None:
    assert list(there().check()) == []
    (check,) = there(**ACCOUNT, region="in").check()
    assert check.request.url == "https://api-in.mixpanel.com/lookup-tables?project_id=1"
    assert answers.problem_of(response(200, {"results": []})) == ""
    assert "refuses the service account" in answers.problem_of(response(401, {}))
    assert "status 200" in answers.problem_of(response(200, b"<html>"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"project_token": "to ken"},
        {"region": "us2"},
        {"service_account": "s"},
        {"service_account_secret": "x"},
        {"service_account": "s", "service_account_secret": "x"},
        {"project_id": "x"},
        {"gdpr_token": "a b"},
        {"base_url": "https://u@x"},
        {"id_merge": "none"},
        {"token": "of another vendor"},
    ],
)
def test_settings_that_are_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        there(**wrong)


def test_the_manifest_names_what_it_reads() -> None:
    assert {field.name for field in MANIFEST.fields} >= {"user_id", "anonymous_id", "properties", "context"}
