"""Finding people in raw bodies: whatever the form, and not more than them."""

from __future__ import annotations

import gzip
import json
from urllib.parse import urlencode

import pytest
from headrace_ingest.mentions import Mentions, possible_identifiers

ANNE = Mentions(
    [
        ("email", "anne@shop.example"),
        ("email", "Anne+news@Shop.example"),
        ("phone", "+447400123456"),
        ("user_id", "u7"),
        ("crm_id", "Müller & Söhne 9"),
    ]
)


@pytest.mark.parametrize(
    "body",
    [
        b'{"email": "ANNE@shop.example"}',
        b'{"note": "call anne@shop.example, please"}',
        b'{"email": "anne\\u0040shop.example"}',
        b'{"link": "mailto:anne@shop.example"}',
        b"anne@shop.example",
        b'{"email": "anne@shop.example',
        b'\xff{"email": "anne@shop.example"}',
        urlencode({"mail": "anne@shop.example", "x": "1"}).encode(),
        urlencode({"mail": "Anne+news@Shop.example"}).encode(),
        gzip.compress(b'{"email": "anne@shop.example"}', mtime=0),
        gzip.compress(b'{"email": "anne@shop.example"}', mtime=0)[:-4],
        b'{"phone": "07400 123456"}',
        b'{"phone": "+44 (0) 7400-123.456"}',
        b"tel=%2B44+7400+123456",
        b'{"userId": "u7", "event": ""}',
        b"user_id=u7&x=1",
        json.dumps({"name": "Müller & Söhne 9"}).encode(),
        json.dumps({"name": "Müller & Söhne 9"}, ensure_ascii=False).encode(),
        b'[{"a": 1}]\n{"who": "anne@shop.example"}',
    ],
)
def test_a_person_is_found(body: bytes) -> None:
    assert ANNE.in_body(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"email": "joanne@shop.example"}',
        b'{"email": "anne@shop.example.org"}',
        b'{"phone": "+447400123457"}',
        b'{"model": "u7", "count": 7}',
        b'{"userId": "u77"}',
        b'{"userId": "xu7"}',
        b"\x1f\x8b no gzip at all",
    ],
)
def test_others_are_not(body: bytes) -> None:
    assert not ANNE.in_body(body)


def test_nobody_is_looked_for_without_identifiers() -> None:
    assert not Mentions([])
    assert not Mentions([("email", "  ")])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"userId": "u7"}', ("user_id", "u7")),
        (b'{"anonymousId":"d-1"}', ("anonymous_id", "d-1")),
        (b'{"traits": {"email": "a@b.example"}}', ("email", "a@b.example")),
        (b'{"crm_id": 81}', ("crm_id", "81")),
        (b"crm_id=81&x=2", ("crm_id", "81")),
        (b'{"x": "write to a@b.example."}', ("email", "a@b.example")),
        (b'{"x": "+44 7400 123456"}', ("phone", "+44 7400 123456")),
        (b'{"userId": "someone"', ("user_id", "someone")),
    ],
)
def test_what_may_be_an_identifier(body: bytes, expected: tuple[str, str]) -> None:
    assert expected in possible_identifiers(body, 100)


def test_a_body_is_not_looked_through_for_ever() -> None:
    body = " ".join(f"word-{i}" for i in range(50_000)).encode()
    assert len(possible_identifiers(body, 1_000)) < 1_100
