"""Batches that strict JSON cannot read are taken apart all the same."""

from __future__ import annotations

import pytest
from headrace_ingest.batches import message_id_in, read_batch, write_key_in
from headrace_ingest.limits import Limits
from headrace_ingest.refusal import Code, Refused

_LIMITS = Limits(batch_messages=5)


@pytest.mark.parametrize(
    "body",
    [
        b'{"batch": [{"a": 1}, {"b": "]},{["}], "sentAt": "x", "writeKey": "k", "context": {"c": 1}}',
        b'{"writeKey": "k", "context": {"c": 1}, "sentAt": "x", "batch": [{"a": 1},{"b": "]},{["}], "n": NaN}',
        b' {"batch":[{"a": 1}\n,\n{"b": "]},{["} ],"n":Infinity,"writeKey":"k","sentAt":"x","context":{"c":1}}\n',
        b'\xef\xbb\xbf{"bat\\u0063h": [{"a": 1}, {"b": "]},{["}], "sentAt": "x", "writeKey": "k", "context": {"c": 1}}',
    ],
)
def test_the_parts_of_a_batch(body: bytes) -> None:
    batch = read_batch(body, _LIMITS)
    assert batch.messages == [b'{"a": 1}', b'{"b": "]},{["}']
    assert (batch.sent_at, batch.write_key, batch.context) == ("x", "k", {"c": 1})
    assert write_key_in(body) == "k"


@pytest.mark.parametrize(
    "message",
    [
        b'{"a": NaN}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"[" * 3_000 + b"]" * 3_000,
        b"nonsense",
        b'{"a" 1}',
        b'"\\""',
    ],
)
def test_one_bad_message_leaves_the_others_as_they_are(message: bytes) -> None:
    batch = read_batch(b'{"batch":[{"a":1},' + message + b',{"b":"\\"x"}],"sentAt":1}', _LIMITS)
    assert batch.messages == [b'{"a":1}', message, b'{"b":"\\"x"}']
    assert batch.sent_at == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", Code.MALFORMED_JSON),
        (b"{", Code.MALFORMED_JSON),
        (b'{"batch": [}', Code.MALFORMED_JSON),
        (b'{"batch": [NaN}}', Code.MALFORMED_JSON),
        (b'{"batch": [NaN,,1]}', Code.MALFORMED_JSON),
        (b'{"batch": [NaN,]}', Code.MALFORMED_JSON),
        (b'{"batch": [NaN]} x', Code.MALFORMED_JSON),
        (b'{"batch": [NaN], "a}', Code.MALFORMED_JSON),
        (b"{batch: [NaN]}", Code.MALFORMED_JSON),
        (b"[]", Code.NOT_AN_OBJECT),
        (b"{}", Code.INVALID_TYPE),
        (b'{"batch": NaN}', Code.INVALID_TYPE),
        (b'{"batch": null}', Code.INVALID_TYPE),
        (b'{"batch": []}', Code.EMPTY_BATCH),
        (b'{"batch": [ ], "a": NaN}', Code.EMPTY_BATCH),
        (b'{"batch": [1,2,3,4,5,6]}', Code.BATCH_TOO_LONG),
        (b'{"batch": [1], "context": 1}', Code.INVALID_TYPE),
        (b'{"batch": [1], "sentAt": {}}', Code.INVALID_TYPE),
        (b'{"batch": [1], "context": {"a": ' + b"[" * 99 + b"]" * 99 + b"}}", Code.TOO_DEEP),
    ],
)
def test_bodies_that_are_no_batch(body: bytes, code: Code) -> None:
    with pytest.raises(Refused) as caught:
        read_batch(body, _LIMITS)
    assert caught.value.code == code


def test_ids_of_what_was_refused() -> None:
    assert message_id_in(b'{"messageId": "m", "a": NaN}') == "m"
    assert message_id_in(b'{"a": "\xff", "messageId": "m"}') == "m"
    for nothing in (b"x", b"[]", b'{"messageId": 1}', b'{"messageId": "' + b"m" * 101 + b'"}', b'{"messageId": "\\n"}'):
        assert message_id_in(nothing) == ""
