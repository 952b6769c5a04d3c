"""Items: stable keys, times, documents."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import EventItem, Profile, Row, digest_key, iso_time


def test_equal_data_has_equal_keys_whatever_the_order_of_its_members() -> None:
    assert digest_key({"a": 1, "b": [{"c": 2, "d": 3}]}) == digest_key({"b": [{"d": 3, "c": 2}], "a": 1})
    assert digest_key({"a": 1}) != digest_key({"a": "1"})
    # The key is stored for each row on a list: it may never change.
    assert Row.of({"EMAIL": "x"}).key == "4309e70e9fef2342e0f6620957fc7f67"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_keys_are_of_the_canonical_json_that_other_encoders_write_too(data: object) -> None:
    """Rows are stored with their keys, so another encoder, or another language, must be able to make the same ones."""
    canonical = msgspec.json.encode(data, order="deterministic")
    assert digest_key(data) == hashlib.blake2b(canonical, digest_size=16).hexdigest()


@pytest.mark.parametrize("data", [float("nan"), {"a": float("inf")}, {"a": b"x"}, {1, 2}])
def test_data_that_is_no_json_has_no_key(data: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        digest_key(data)


@pytest.mark.parametrize(
    ("moment_us", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_800_000_000_123_999, "2027-01-15T08:00:00.123Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (-(10**18), "0001-01-01T00:00:00.000Z"),
        (10**18, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_written_in_utc_and_never_fail(moment_us: int, text: str) -> None:
    assert iso_time(moment_us) == text


def test_documents_are_json() -> None:
    event = EventItem(message_id="m", kind="track", name="Bought", properties={"n": 1}, profile=Profile(id="p"))
    document = event.document()
    assert json.loads(json.dumps(document))["type"] == "track"
    assert "profile" not in document
    assert Profile(id="p", traits={"a": None}).document() == {"id": "p", "identifiers": {}, "traits": {"a": None}}
