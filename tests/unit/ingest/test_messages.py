"""Messages alone: what each becomes, without any store. What is refused is in tests/cases/bad_requests.json too."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from headrace_ingest.events import as_json, check_event, from_json
from headrace_ingest.limits import Limits
from headrace_ingest.messages import Arrival, read_message
from headrace_ingest.refusal import Code, Refused

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.domain import event_names
from headrace.domain.times import MINUTE_US, parse_time_us

_NOW = parse_time_us("2026-01-01T00:00:00Z")
_ARRIVAL = Arrival("shop", "web", _NOW)


def _read(arrival: Arrival = _ARRIVAL, **message: Any) -> Event:
    return read_message(json.dumps({"type": "track", "userId": "u", "event": "A", **message}).encode(), arrival)


def _refusal(**message: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        _read(**message)
    return caught.value


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("Product Viewed", "Product viewed"),
        ("product_viewed", "Product viewed"),
        ("PRODUCT-VIEWED", "Product viewed"),
        ("productViewed", "Product viewed"),
        ("Order Completed", "Purchased"),
        ("add_to_cart", "Added to cart"),
        ("payment_info_submitted", "AddPaymentInfo"),
        ("Added Payment Info", "AddPaymentInfo"),
        ("products_searched", "Search made"),
        ("collection_viewed", "Category viewed"),
        ("checkout_started", "Checkout made"),
        ("  Signed Up ", "Signed Up"),
        ("signed_up", "signed_up"),
        (17, "17"),
    ],
)
def test_names_of_events(given: Any, stored: str) -> None:
    assert _read(event=given).name == stored


@pytest.mark.parametrize(
    ("message", "online"),
    [
        ({}, False),
        ({"type": "page"}, True),
        ({"type": "screen"}, True),
        ({"type": "identify"}, False),
        ({"channel": "web"}, True),
        ({"channel": " Mobile "}, True),
        ({"context": {"channel": "browser"}}, True),
        ({"channel": "server", "context": {"channel": "server"}}, False),
        ({"channel": {"web": True}, "context": {"channel": 7}}, False),
        ({"channel": None}, False),
    ],
)
def test_events_of_websites_and_apps_are_online(message: dict[str, Any], online: bool) -> None:
    assert _read(**message).online is online
    website = dataclasses.replace(_ARRIVAL, online=True)
    assert _read(website, **message).online
    given = Event(
        kind=EventKind.EVENT_KIND_TRACK, name="A", identifiers=[Identifier(namespace="user_id", value="u")],
        context=json.dumps(message.get("context", {})).encode(),
    )  # fmt: skip
    assert check_event(given, _ARRIVAL).online is (message.get("context", {}).get("channel") == "browser")
    assert check_event(given, website).online
    given.online = True
    assert check_event(given, _ARRIVAL).online


def test_every_canonical_name_is_itself_and_no_alias_is_ambiguous() -> None:
    for name in event_names.CANONICAL_NAMES:
        assert event_names.canonical(name) == name
        assert event_names.canonical(name.upper().replace(" ", "_")) == name
    assert not any(event_names.is_reserved(name) for name in event_names.CANONICAL_NAMES)
    assert event_names.is_reserved("Added To Segment") and not event_names.is_reserved("segment")


def test_a_name_is_only_that_of_a_track_page_or_screen() -> None:
    assert _read(type="identify", name="x").name == ""
    assert _read(type="page", name=" Product Viewed ").name == "Product Viewed", "a title is no event name"
    assert _read(type="screen", name=None).name == ""


@pytest.mark.parametrize(
    ("given", "stored"), [("u", "u"), (" u ", "u"), (12, "12"), (12.0, "12"), (12.5, "12.5"), (10**17, "1" + "0" * 17)]
)
def test_identifiers_are_trimmed_text(given: Any, stored: str) -> None:
    assert [i.value for i in _read(userId=given).identifiers] == [stored]


def test_null_and_empty_ids_are_absent() -> None:
    event = _read(userId=None, anonymousId="a", messageId=None, groupId=None)
    assert [(i.namespace, i.value) for i in event.identifiers] == [("anonymous_id", "a")]
    assert len(event.message_id) == 32
    assert _read(messageId="").message_id != _read(messageId="").message_id


def test_values_that_identify_nobody_are_left_to_the_identity_rules() -> None:
    assert [i.value for i in _read(userId="null").identifiers] == ["null"]


def test_each_identifier_comes_once() -> None:
    event = _read(traits={"email": "a@b.example"}, context={"traits": {"email": "a@b.example", "phone": None}})
    assert [(i.namespace, i.value) for i in event.identifiers] == [("user_id", "u"), ("email", "a@b.example")]


def test_odd_values_in_free_form_parts_identify_nobody() -> None:
    odd = {"page": {"url": "http://[?gclid="}, "clickIds": [], "traits": "x", "gclid": {}, "fbc": "", "fbp": "x" * 600}
    event = _read(context=odd, traits={"email": ["a"], "phone": True})
    assert [(i.namespace, i.value) for i in event.identifiers] == [("user_id", "u")]
    assert json.loads(event.context) == odd, "the parts stay as they came"


def test_parts_stay_as_they_came_byte_by_byte() -> None:
    raw = b'{"type":"page","userId":"u","properties":{ "a" : 1.50, "b":"\\u00e9" },"context":{},"traits":null}'
    event = read_message(raw, _ARRIVAL)
    assert event.properties == b'{ "a" : 1.50, "b":"\\u00e9" }'
    assert event.context == b"" == event.traits


def test_numbers_beyond_double_precision_become_null() -> None:
    for number in ("1e999", "-1e999", "9" * 400):
        raw = '{"type":"page","userId":"u","anonymousId":NUMBER,"properties":{"a":NUMBER}}'.replace("NUMBER", number)
        event = read_message(raw.encode(), _ARRIVAL)
        assert event.properties == b'{"a":null}' and event.corrections
        assert [i.value for i in event.identifiers] == ["u"]


def test_the_context_of_a_batch_fills_what_the_message_does_not_say() -> None:
    arrival = Arrival("shop", "web", _NOW, context={"ip": "1.1.1.1", "locale": "de"})
    assert json.loads(_read(arrival, context={"locale": "en"}).context) == {"ip": "1.1.1.1", "locale": "en"}


def test_the_path_decides_the_kind() -> None:
    arrival = Arrival("shop", "web", _NOW, kind="identify")
    assert _read(arrival, type="track").kind == EventKind.EVENT_KIND_IDENTIFY
    assert _read(type="TRACK").kind == EventKind.EVENT_KIND_TRACK


@pytest.mark.parametrize(
    ("timestamp", "sent_at", "expected"),
    [
        (None, None, _NOW),
        ("2025-12-31T23:00:00Z", None, _NOW - 60 * MINUTE_US),
        ("2025-12-31T23:00:00Z", "2025-12-31T23:10:00Z", _NOW - 10 * MINUTE_US),
        ("2025-12-31T23:00:00+01:00", "2025-12-31T22:10:00", _NOW - 10 * MINUTE_US),
        ("2026-01-01T00:05:00Z", None, _NOW + 5 * MINUTE_US),
        ("2026-01-01T00:05:00.000001Z", None, _NOW + 5 * MINUTE_US + 1),
        (1767225600000, None, _NOW),
        (1767225600, None, _NOW),
        (None, "2020-01-01T00:00:00Z", _NOW),
        ("", None, _NOW),
    ],
)
def test_event_time(timestamp: Any, sent_at: Any, expected: int) -> None:
    event = _read(timestamp=timestamp, sentAt=sent_at)
    assert event.timestamp_us == expected
    assert event.future == (expected > _NOW + 5 * MINUTE_US)


def test_the_limits_can_be_set() -> None:
    small = Limits(message_bytes=100, depth=4)
    raw = b'{"type":"page","userId":"u","properties":{"a":[[1]]}}'
    assert read_message(raw, _ARRIVAL, small).properties
    with pytest.raises(Refused) as caught:
        read_message(raw.replace(b"[[1]]", b"[[[1]]]"), _ARRIVAL, small)
    assert caught.value.code == Code.TOO_DEEP
    with pytest.raises(Refused) as caught:
        read_message(raw + b" " * 100, _ARRIVAL, small)
    assert caught.value.code == Code.MESSAGE_TOO_LARGE


def test_brackets_in_text_are_no_depth() -> None:
    assert _read(properties={"a": "[{" * 200}).properties


def test_a_reason_never_quotes_what_was_sent() -> None:
    secret = "jane@example.com"
    for message in (
        {"userId": {secret: 1}},
        {"timestamp": secret},
        {"event": secret * 20},
        {"userId": secret + "\x00"},
        {"context": {"externalIds": [{"type": secret * 20, "id": 1}]}},
        {"type": secret},
        {"properties": [secret]},
    ):
        refused = _refusal(**message)
        assert secret not in refused.reason and secret not in refused.field


def test_an_event_of_grpc_survives_being_kept() -> None:
    event = Event(
        kind=EventKind.EVENT_KIND_TRACK,
        name="A",
        identifiers=[Identifier(namespace="user_id", value="u")],
        properties=b'{"a": \xff',
        original_timestamp_us=2**60,
    )
    assert from_json(as_json(event)) == event
    for broken in (b"", b"{", b'{"nme": 1}', b"\xff", b'{"kind": "X"}'):
        with pytest.raises(Refused):
            from_json(broken)


def test_a_checked_event_checks_again_as_itself() -> None:
    first = check_event(
        Event(
            message_id="m",
            kind=EventKind.EVENT_KIND_TRACK,
            name="order_completed",
            identifiers=[Identifier(namespace=" user_id ", value=" u ")],
            traits=b'{"email": "a@b.example", "n": NaN}',
            original_timestamp_us=_NOW - MINUTE_US,
        ),
        _ARRIVAL,
    )
    assert [(i.namespace, i.value) for i in first.identifiers] == [("user_id", "u"), ("email", "a@b.example")]
    second = check_event(first, _ARRIVAL)
    del first.corrections[:]
    assert second == first


@pytest.mark.parametrize(
    ("message", "group"),
    [
        ({"context": {"groupId": " acme "}}, "acme"),
        ({"context": {"groupId": 12.0}}, "12"),
        ({"groupId": "acme", "context": {"groupId": "other"}}, "acme"),
        ({"type": "page", "context": {"groupId": "acme"}}, "acme"),
        ({"type": "group", "groupId": "acme", "context": {"groupId": "other"}}, "acme"),
        ({"type": "group", "context": {"groupId": "acme"}}, "acme"),
        ({"groupId": "", "context": {"groupId": None}}, ""),
        ({"context": {"groupId": True}}, ""),
    ],
)
def test_every_kind_of_event_may_name_a_group(message: dict[str, Any], group: str) -> None:
    event = _read(**message)
    assert event.group_id == group
    assert not event.corrections
    assert check_event(event, _ARRIVAL).group_id == group


@pytest.mark.parametrize("odd", [{"id": "acme"}, ["acme"], "x" * 600, "a\x01b"])
def test_a_group_that_cannot_be_an_id_costs_only_the_group(odd: Any) -> None:
    event = _read(context={"groupId": odd})
    assert event.group_id == ""
    assert len(event.corrections) == 1
    assert "groupId" in event.corrections[0]
    assert isinstance(_refusal(type="group", context={"groupId": odd}), Refused)


def test_a_purpose_without_a_known_status_is_noted() -> None:
    properties = {"ad_storage": "granted", "adUserData": "maybe", "banner": "v2"}
    note = ["properties.ad_user_data: says neither granted nor denied, so it says nothing"]
    event = _read(type="track", event="trackConsent", properties=properties)
    assert event.corrections == note
    del event.corrections[:]
    assert check_event(event, _ARRIVAL).corrections == note
    assert not _read(type="track", event="Other", properties=properties).corrections
