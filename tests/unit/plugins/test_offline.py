"""Events and members from files."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.plugins.offline import InputError, read_events, read_members
from headrace_sdk import Profile


def events(*values: Any) -> list[Any]:
    return read_events([json.dumps(value) for value in values], now_us=5)


def test_both_spellings_are_the_same_event() -> None:
    camel = {
        "type": "track", "event": "Bought", "messageId": "m", "userId": "u", "anonymousId": "a",
        "timestamp": "2026-01-01T00:00:00Z", "receivedAt": "2026-01-01T00:00:01Z", "properties": {"n": 1},
    }  # fmt: skip
    snake = {
        "kind": "track", "name": "Bought", "message_id": "m", "identifiers": [["user_id", "u"], ["anonymous_id", "a"]],
        "timestamp": "2026-01-01T00:00:00Z", "received_at": "2026-01-01T00:00:01Z", "properties": {"n": 1},
    }  # fmt: skip
    first, second = events(camel, snake)
    assert first == second
    assert first.identifiers == {"user_id": ["u"], "anonymous_id": ["a"]}
    assert first.timestamp_us == 1_767_225_600_000_000


def test_an_event_without_profile_gets_one_of_what_it_says() -> None:
    (event,) = events({"type": "identify", "userId": 7, "traits": {"email": "a@b.de", "plan": "pro"}})
    assert event.profile == Profile(
        id="", identifiers={"user_id": ["7"], "email": ["a@b.de"]}, traits={"email": "a@b.de", "plan": "pro"}
    )
    (event,) = events({"type": "page", "profile": {"id": "p", "identifiers": {"email": "x@y.de"}}})
    assert event.profile == Profile(id="p", identifiers={"email": ["x@y.de"]})
    (event,) = events({"type": "page"})
    assert (event.profile, event.message_id, event.timestamp_us) == (None, "line-1", 5)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no JSON object"),
        ('{"type": "jump"}', "type must be one of"),
        ('{"type": "track"}', "needs a name"),
        ('{"type": "page", "properties": []}', "properties must be an object"),
        ('{"type": "page", "timestamp": "noon"}', "timestamp is no ISO 8601 time"),
        ('{"type": "page", "timestamp": 5}', "timestamp must be an ISO 8601 time"),
        ('{"type": "page", "userId": 1.5}', "userId must be text"),
        ('{"type": "page", "identifiers": "x"}', "identifiers must be an object or a list of pairs"),
        ('{"type": "page", "identifiers": [["a"]]}', "pairs of namespace and value"),
        ('{"type": "page", "identifiers": {"a": {}}}', "identifiers must be texts"),
    ],
)
def test_lines_that_are_no_events(line: str, part: str) -> None:
    with pytest.raises(InputError, match=part) as caught:
        read_events(["", line], now_us=0)
    assert caught.value.line == 2


def test_members_in_every_shape() -> None:
    lines = [
        {"id": "a", "identifiers": {"email": ["x@y.de"]}, "traits": {"city": "Ulm"}},
        {"profile": "b", "identifiers": [["email", "x@y.de"]], "action": "remove"},
        {"profile": {"id": "c", "identifiers": [{"namespace": "email", "value": "x@y.de"}]}},
        {"email": "x@y.de"},
        {"id": "e", "fields": {"email": ["x@y.de", "z@y.de"]}, "consents": {"ad_user_data": "granted"}},
    ]
    found = read_members(map(json.dumps, lines), field_names=["email", "zip"])
    assert [member.id for member in found] == ["a", "b", "c", "line-4", "e"]
    assert [member.remove for member in found] == [False, True, False, False, False]
    assert all(member.profile.identifiers == {"email": ["x@y.de"]} for member in found[:3])
    assert [member.profile.document().get("consents") for member in found[3:]] == [None, {"ad_user_data": "granted"}]
    assert [member.fields for member in found[3:]] == [{"email": "x@y.de"}, {"email": ["x@y.de", "z@y.de"]}]


def test_traits_stay_traits_where_a_connector_has_a_field_of_that_name() -> None:
    (found,) = read_members([json.dumps({"id": "a", "traits": {"plan": "pro"}})], field_names=["email", "traits"])
    assert found.fields == {} and found.profile.traits == {"plan": "pro"}


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ({"action": "update"}, "action must be"),
        ({"fields": {"shoe": "42"}}, "the connector has no field 'shoe'"),
        ({"email": {"a": 1}}, "field 'email' must be text"),
        ({"email": [1]}, "field 'email' must be text"),
        ({"consents": {"ad_storage": True}}, "consents must be"),
        ({"consents": {"ad_storage": ["granted"]}}, "consents must be"),
    ],
)
def test_lines_that_are_no_members(line: Any, part: str) -> None:
    with pytest.raises(InputError, match=part):
        read_members([json.dumps(line)], field_names=["email"])
