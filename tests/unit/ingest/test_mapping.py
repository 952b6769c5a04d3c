"""Mappings of webhooks and the bodies that they are applied to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_ingest.intake import own_message_id
from headrace_ingest.mapping import InvalidMapping, apply_mapping, parse_mapping, records_of
from headrace_ingest.refusal import Code, Refused
from headrace_ingest.sources import Source, is_origin, now_source
from headrace_ingest.webhook_bodies import read_body

_FORM = "application/x-www-form-urlencoded; charset=utf-8"


def _apply(record: Any, **mapping: Any) -> Any:
    return apply_mapping(parse_mapping(json.dumps(mapping)), record)


def test_what_a_mapping_makes() -> None:
    record = {"type": "paid", "who": {"id": 7, "mail": "a@b.example"}, "n": 1, "at": "2026-01-01", "x": None}
    message = _apply(
        record,
        event_from="type",
        identifiers={"user_id": "who.id", "anonymous_id": "no", "email": "who.mail", "crm_id": "x"},
        properties={"n": "n", "gone": "x", "constant": "'web'", "sum": "sum([n, `2`])"},
        traits="who",
        timestamp="at",
        message_id="n",
    )
    assert message == {
        "type": "track",
        "event": "paid",
        "userId": 7,
        "anonymousId": None,
        "context": {"externalIds": [{"type": "email", "id": "a@b.example"}]},
        "properties": {"n": 1, "constant": "web", "sum": 3},
        "traits": record["who"],
        "timestamp": "2026-01-01",
        "messageId": 1,
    }


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_when_nothing_is_found_there_is_no_event(value: Any) -> None:
    assert _apply({"go": value}, event="A", when="go") is None
    assert _apply({"go": 0}, event="A", when="go") is not None


def test_each_finds_the_records() -> None:
    mapping = parse_mapping('{"event": "A", "each": "orders[?paid]"}')
    assert records_of(mapping, {"orders": [{"paid": True}, {"paid": False}]}) == [{"paid": True}]
    assert records_of(mapping, {}) == []
    with pytest.raises(Refused) as caught:
        records_of(parse_mapping('{"event": "A", "each": "n"}'), {"n": 1})
    assert caught.value.code == Code.MAPPING_FAILED
    assert records_of(parse_mapping('{"event": "A"}'), [1, 2]) == [1, 2]


def test_expressions_that_do_not_fit_are_refused_by_name() -> None:
    for mapping, record in (
        ({"event": "A", "properties": "a"}, {"a": 1}),
        ({"event": "A", "properties": {"n": "sum(a)"}}, {"a": "x"}),
        ({"event": "A", "when": "length(a)"}, {"a": 1}),
    ):
        with pytest.raises(Refused) as caught:
            _apply(record, **mapping)
        assert caught.value.code == Code.MAPPING_FAILED and caught.value.field.startswith("mapping.")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"knd": "track"}',
        '{"kind": "fax", "event": "A"}',
        '{"kind": "track"}',
        '{"event": "A", "event_from": "a"}',
        '{"event": 1}',
        '{"event": "A", "identifiers": {"": "a"}}',
        '{"event": "A", "identifiers": {"a": "a["}}',
        '{"event": "A", "traits": {"a": 1}}',
        '{"event": "A", "when": "' + "a" * 501 + '"}',
        '{"event": "' + "a" * 201 + '"}',
        '{"event": "A", "properties": ' + json.dumps({str(n): "a" for n in range(201)}) + "}",
        '{"event": "A", "properties": {"a": "' + "(" * 400 + '"}}',
        " " * 20_000,
    ],
)
def test_wrong_mappings_are_refused(text: str) -> None:
    with pytest.raises(InvalidMapping):
        parse_mapping(text)


def test_bodies() -> None:
    assert read_body(b' {"a": NaN} ', "text/plain", 64, 10) == [{"a": None}]
    assert read_body(b'\xef\xbb\xbf{"a":"\\ud800\\u0000"}', "", 64, 10) == [{"a": "\ufffd"}]
    assert read_body(b'{"a":1}\r\n{"a":2}\n', "", 64, 10) == [{"a": 1}, {"a": 2}]
    assert read_body(b"a=1&b=&a=2&a=3&c=%00x+y", _FORM, 64, 10) == [{"a": ["1", "2", "3"], "b": "", "c": "x y"}]
    assert read_body(b"17", _FORM, 64, 10) == [17]


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"", "", Code.EMPTY_BODY),
        (b" \n", "", Code.EMPTY_BODY),
        (b"\xff", "", Code.INVALID_UTF8),
        (b"a=%ff", _FORM, Code.INVALID_UTF8),
        (b"x", "", Code.MALFORMED_JSON),
        (b"x", _FORM, Code.INVALID_FORM),
        (b"&".join(b"a=1" for _ in range(1_001)), _FORM, Code.INVALID_FORM),
        (b"[" * 100 + b"]" * 100, "", Code.TOO_DEEP),
        (b"{}\n" * 11, "", Code.BATCH_TOO_LONG),
    ],
)
def test_bodies_that_are_refused(body: bytes, content_type: str, code: Code) -> None:
    with pytest.raises(Refused) as caught:
        read_body(body, content_type, 64, 10)
    assert caught.value.code == code


def test_message_ids_of_a_sender_are_made_unique() -> None:
    assert own_message_id("crm", "1") == "crm:1"
    long = own_message_id("crm", "x" * 200)
    assert len(long) <= 100 and long != own_message_id("crm", "x" * 201)
    assert own_message_id("crm", "a\nb").isprintable()
    assert len(own_message_id("s" * 63, "x" * 100)) <= 100


def _source(*origins: str) -> Source:
    return now_source(
        "shop", "web", display_name="x", kind="website", allowed_origins=origins, mapping="", disabled=False, sealed=""
    )


def test_origins() -> None:
    source = _source("https://shop.example", "https://*.shop.example", "http://localhost:3000")
    for origin in ("https://shop.example", "https://a.b.shop.example", "HTTPS://SHOP.EXAMPLE", "http://localhost:3000"):
        assert source.allows_origin(origin), origin
    for origin in (
        "http://shop.example",
        "https://evilshop.example",
        "https://shop.example.evil",
        "null",
        "http://localhost",
    ):
        assert not source.allows_origin(origin), origin
    assert _source().allows_origin("https://anything.example")
    assert is_origin("https://*.shop.example") and is_origin("http://127.0.0.1:8080")
    for wrong in (
        "shop.example",
        "https://",
        "https://a.example/path",
        "https://*",
        "ftp://a.example",
        "*",
        "https://a*.b",
    ):
        assert not is_origin(wrong), wrong
