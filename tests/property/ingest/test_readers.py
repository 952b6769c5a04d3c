"""Readers against anything: they answer with exact JSON or a reason, never otherwise."""

from __future__ import annotations

import json
import math
from typing import Any

from headrace_ingest import lenient
from headrace_ingest.batches import read_batch
from headrace_ingest.limits import DEFAULT_LIMITS, MAX_TIME_US
from headrace_ingest.messages import Arrival, read_message
from headrace_ingest.refusal import Refused
from headrace_ingest.webhook_bodies import read_body
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.common.v1.event_pb2 import Event

_ARRIVAL = Arrival("shop", "web", 1_767_225_600_000_000)
_KEYS = ["type", "userId", "anonymousId", "event", "name", "messageId", "properties", "traits", "context", "timestamp"]
_KEYS += ["sentAt", "originalTimestamp", "groupId", "previousId", "category", "externalIds", "email", "page", "url"]

_text = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(["u", "\x00b", "", "x\ud83d"])
_numbers = st.integers() | st.floats() | st.sampled_from([10**30, -(2**63), 2**63, 1e308])
_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _numbers | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_KEYS) | _text, inner, max_size=5),
    max_leaves=15,
)
_messages = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "identify", "page", "group", "alias"]), "userId": st.just("u") | _json},
    optional={
        **{key: _json for key in _KEYS if key not in {"type", "userId"}},
        **{key: st.dictionaries(_text, _json, max_size=4) for key in ("properties", "traits", "context")},
    },
)


def _strict(part: bytes) -> Any:
    """Decode a part as the strictest reader downstream would."""

    def refuse(text: str) -> Any:
        raise AssertionError(f"not strict: {text}")

    def whole(text: str) -> int:
        assert -(2**63) <= int(text) < 2**63
        return int(text)

    value = json.loads(part.decode(), parse_constant=refuse, parse_int=whole)
    _check(value, 0)
    return value


def _check(value: Any, depth: int) -> None:
    assert depth <= DEFAULT_LIMITS.depth
    if isinstance(value, dict):
        for key, item in value.items():
            _check(key, depth)
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, str):
        assert "\x00" not in value
        value.encode()


def _check_event(event: Event) -> None:
    Event.FromString(event.SerializeToString())
    for part in (event.properties, event.traits, event.context):
        if part:
            assert isinstance(_strict(part), dict)
    assert 1 <= len(event.message_id) <= 100 and event.workspace_id == "shop"
    assert 0 <= event.timestamp_us <= MAX_TIME_US
    assert 1 <= len(event.identifiers) <= 50
    for identifier in event.identifiers:
        assert 1 <= len(identifier.namespace) <= 100
        assert 1 <= len(identifier.value) <= 512 and identifier.value == identifier.value.strip()


@settings(derandomize=True, max_examples=60, deadline=None)
@given(_messages)
def test_any_message_becomes_an_exact_event_or_is_refused(message: dict[str, Any]) -> None:
    raw = json.dumps(message).encode()
    if len(raw) > DEFAULT_LIMITS.message_bytes:
        return
    try:
        event = read_message(raw, _ARRIVAL)
    except Refused as refused:
        assert refused.reason
        return
    _check_event(event)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.binary(max_size=200) | _json.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_are_a_message_or_refused(raw: bytes) -> None:
    for read in (
        lambda: read_message(raw, _ARRIVAL),
        lambda: read_batch(raw, DEFAULT_LIMITS),
        lambda: read_body(raw, "application/x-www-form-urlencoded", 64, 100),
        lambda: read_body(raw, "", 64, 100),
    ):
        try:
            read()
        except Refused as refused:
            assert refused.reason


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(_json.map(lambda v: json.dumps(v).encode()), min_size=1, max_size=6), st.integers(0, 5))
def test_a_batch_is_taken_apart_into_the_very_messages(messages: list[bytes], place: int) -> None:
    bad = b'{"a": "\xff", "b": NaN}'
    with_bad = [*messages[:place], bad, *messages[place:]]
    assert read_batch(b'{"batch":[' + b" , ".join(messages) + b"]}", DEFAULT_LIMITS).messages == messages
    assert read_batch(b'{"batch":[' + b",".join(with_bad) + b"]}", DEFAULT_LIMITS).messages == with_bad


@settings(derandomize=True, deadline=None)
@given(_json, st.integers(0, 6))
def test_depth_is_counted_as_recursion_would(value: Any, depth: int) -> None:
    def depth_of(item: Any) -> int:
        if isinstance(item, dict):
            return 1 + max(map(depth_of, item.values()), default=0)
        if isinstance(item, list):
            return 1 + max(map(depth_of, item), default=0)
        return 0

    assert lenient.depth_exceeds(value, depth) == (depth_of(value) > depth)


@settings(derandomize=True, deadline=None)
@given(_json)
def test_the_fast_path_takes_only_what_the_lenient_one_leaves_alone(value: Any) -> None:
    """What is not suspicious and strict needs no repair."""
    import msgspec

    raw = json.dumps(value).encode()
    try:
        fast = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    if lenient.suspicious(raw, 64):
        return
    slow, repairs = lenient.read(raw, 64)
    slow = lenient.clean_text(slow, repairs)
    assert repairs == [] and slow == fast
