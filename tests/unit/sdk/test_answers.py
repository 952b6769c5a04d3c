"""Words of vendors that can be shown, and what a status means where no body says it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    Outcomes,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    Retry,
    TransientError,
)
from headrace_sdk.answers import is_passing, raise_for_status, remark, words


def test_words_hold_nothing_of_people() -> None:
    digest = "a" * 64
    said = words(f"ada@example.org,\n {digest} and 4915112345678 are bad at place 12")
    assert said == "..., ... and ... are bad at place 12"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("+49 (171) 123-45 67 is no mobile", "... is no mobile"),
        ("phone=0171/1234567, or 030.123456", "phone=..., or ..."),
        ("'ada@example.org' <b@x.de>", "'...' <...>"),
        ("device 6D92078A-8246-4BA4-AE5B-76104861E7DC", "device ..."),
        ("status 400 at place 12 of 1000", "status 400 at place 12 of 1000"),
    ],
)
def test_telephone_numbers_are_known_as_people_write_them(said: str, shown: str) -> None:
    assert words(said) == shown


@pytest.mark.parametrize("said", [None, 7, {}, [], "", "  \n "])
def test_what_is_no_text_says_nothing(said: object) -> None:
    assert (words(said), remark(said)) == ("", "")


def test_a_remark_stands_in_brackets_and_is_cut() -> None:
    assert remark("no such list") == " (no such list)"
    assert len(words("word " * 1_000)) == 200


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b"", AuthError), (403, b"{}", AuthError), (429, b"", RateLimited),
        (302, b"", ConfigError), (404, b"", ConfigError), (405, b"", ConfigError), (410, b"", ConfigError),
        (408, b"", TransientError), (423, b"", TransientError), (425, b"", TransientError),
        (500, b"", TransientError), (503, b"{}", TransientError),
        (200, b"<html>", TransientError), (204, b"", TransientError), (200, b'{"x": 1}', TransientError),
        (400, b"<html>", TransientError), (422, b"", TransientError),
        (400, b'{"x": 1}', RecordRejected), (422, b'{"x": 1}', RecordRejected),
        (413, b"", RecordRejected), (409, b"", RecordRejected), (418, b"", RecordRejected),
    ],
)  # fmt: skip
def test_each_status_means_one_thing(status: int, body: bytes, kind: type[ConnectorError]) -> None:
    with pytest.raises(ConnectorError) as raised:
        raise_for_status(Response(status=status, body=body), "Vendor answered")
    assert type(raised.value) is kind
    assert raised.value.reason.startswith("Vendor answered")


def test_waiting_is_as_long_as_the_vendor_asks() -> None:
    for status in (429, 503):
        with pytest.raises((RateLimited, TransientError)) as raised:
            raise_for_status(Response(status=status, headers={"retry-after": "7"}), "Vendor answered")
        assert getattr(raised.value, "after_s", None) == 7.0


def test_a_wrong_address_names_the_setting() -> None:
    with pytest.raises(ConfigError) as raised:
        raise_for_status(Response(status=404), "Vendor answered", address="host")
    assert raised.value.field == "host"


def test_what_passes_is_not_what_is_refused() -> None:
    assert [s for s in (200, 400, 401, 404, 408, 409, 423, 425, 429, 500, 599) if is_passing(s)] == [
        408, 423, 425, 429, 500, 599,
    ]  # fmt: skip


@given(size=st.integers(1, 20), places=st.sets(st.integers(-3, 25)))
def test_refused_requests_name_those_at_fault_or_all(size: int, places: set[int]) -> None:
    request = Request(method="POST", url="https://a.example", items=tuple(range(100, 100 + size)))
    found = Outcomes.refused(request, "bad", places)
    named = {place for place in places if 0 <= place < size} or set(range(size))
    assert found.refused_whole
    assert len(found.items) == size
    assert [isinstance(one, Rejected) for one in found.items] == [place in named for place in range(size)]
    assert all(isinstance(one, Rejected | Retry) for one in found.items)
