"""Answers and outcomes as connectors see them."""

from __future__ import annotations

import pytest

from headrace_sdk import Delivered, Outcomes, Request, Response

NOW_US = 1_794_000_000_000_000  # Fri, 06 Nov 2026 20:00:00 GMT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("99999999999", 86_400.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("Fri, 06 Nov 2026 21:21:00 GMT", 1_260.0),
        ("Fri, 06 Nov 2026 19:00:00 GMT", 0.0),
        ("Fri, 06 Nov 2036 19:00:00 GMT", 86_400.0),
        ("Fri, 06 Nov 2026 25:00:00 GMT", None),
    ],
)
def test_retry_after(header: str, seconds: float | None) -> None:
    response = Response(status=429, headers={"retry-after": header}, received_at_us=1_793_998_800_000_000)
    assert response.retry_after_s() == seconds


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"[1]", b'{"a":', b'{"a":NaN}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_reads_as_an_empty_one(body: bytes) -> None:
    assert Response(status=200, body=body).json_object() == {}


def test_a_body_in_json_is_read_with_and_without_a_byte_order_mark() -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        assert Response(status=200, body=mark + '{"ä": [1, 2.5, null]}'.encode()).json() == {"ä": [1, 2.5, None]}


def test_every_gives_one_outcome_per_item() -> None:
    request = Request(method="POST", url="https://a.example", items=(4, 7, 9))
    assert Outcomes.every(request, Delivered()).items == (Delivered(),) * 3
