"""What is kept of requests and answers names nobody, and still shows what was sent."""

from __future__ import annotations

import hashlib
import json

import pytest
from headrace_sync.exchanges.masking import (
    LONGEST_BODY,
    personal_values,
    shown_answer,
    shown_body,
    shown_headers,
    shown_url,
)
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import EventItem, Profile, Row, Subject

DIGEST = hashlib.sha256(b"ada@example.com").hexdigest()
ADA = Profile(
    id="profile-1",
    identifiers={"email": ["ada@example.com"], "user_id": ["u-17"], "crm": ["AB12"]},
    traits={"first_name": "Ada", "plan": "pro", "address": {"town": "Bath"}, "born": 1815, "vip": True},
)
ORDER = EventItem(
    message_id="m1",
    kind="track",
    name="Purchased",
    properties={"price": 19.9, "currency": "EUR", "note": "for Ada"},
    context={"ip": "203.0.113.9", "userAgent": "Browser/1"},
    profile=ADA,
)
JSON = "application/json"


def body_of(value: object, *items: EventItem | Row | Subject) -> object:
    return json.loads(shown_body(json.dumps(value), JSON, personal_values(items)))


def test_what_is_known_of_the_people_is_masked_wherever_it_stands() -> None:
    sent = {
        "event": "Purchased",
        "value": 19.9,
        "currency": "EUR",
        "user": {"email": "Ada@Example.com", "em": DIGEST, "given": "ada", "town": "Bath", "year": 1815, "tier": "pro"},
        "agent": "Browser/1",
        "from": "203.0.113.9",
        "crm": ["ab12", None, True],
        "note": "for Ada",
    }
    assert body_of(sent, ORDER) == {
        "event": "Purchased",
        "value": 19.9,
        "currency": "EUR",
        "user": {
            "email": "(email)",
            "em": f"{DIGEST[:8]}...",
            "given": "(given)",
            "town": "(town)",
            "year": "(year)",
            "tier": "(tier)",
        },
        "agent": "(agent)",
        "from": "(ip)",
        "crm": ["(crm)", None, True],
        "note": "for (personal)",
    }


def test_what_looks_personal_is_masked_of_whomever() -> None:
    sent = {
        "firstName": "Bo",
        "ZIP": 12345,
        "call": "+49 171 1234567",
        "text": "ask bo@example.com or 0171123456",
        "n": 7,
    }
    assert body_of(sent) == {
        "firstName": "(firstName)",
        "ZIP": "(ZIP)",
        "call": "(number)",
        "text": "ask (email) or (number)",
        "n": 7,
    }


def test_rows_of_lists_and_subjects_of_deletions_are_people() -> None:
    row = Row.of({"name": ["Ada Byron"], "member": 42})
    assert body_of({"data": [["ada byron", 42, 43]]}, row) == {"data": [["(data)", "(data)", 43]]}
    subject = Subject(profile_id="profile-1", identifiers={"user_id": ["u-17"]}, merged_ids=["profile-2"])
    assert body_of({"ids": ["u-17", "profile-2", "x-1"]}, subject) == {"ids": ["(ids)", "(ids)", "x-1"]}


def test_addresses_headers_forms_and_lines() -> None:
    personal = personal_values([ORDER])
    assert shown_url("https://v.example/c/ada%40example.com?u=u-17&p=1", personal) == (
        "https://v.example/c/(email)?u=(personal)&p=1"
    )
    assert shown_headers({"X-For": "203.0.113.9", "Accept": JSON}, personal) == {"X-For": "(ip)", "Accept": JSON}
    form = "email=ada%40example.com&price=19.9&who=Ada"
    assert shown_body(form, "application/x-www-form-urlencoded", personal) == "email=(email)&price=19.9&who=(who)"
    lines = '{"fn":"Ada"}\n{"price":19.9}'
    assert shown_body(lines, "application/x-ndjson", personal) == '{"fn":"(fn)"}\n{"price":19.9}'
    assert shown_body("EMAIL;NAME\nada@example.com;Ada", "text/csv", personal) == "(30 characters)"


def test_answers_keep_the_vendors_words() -> None:
    personal = personal_values([ORDER])
    answer = b'{"error":{"code":100,"message":"Invalid email ada@example.com for Ada"}}'
    assert shown_answer(answer, personal) == '{"error":{"code":100,"message":"Invalid email (email) for (personal)"}}'
    assert shown_answer(b"<h1>Bad  Gateway</h1>\xff", personal).startswith("<h1>Bad Gateway</h1>")


def test_everything_is_bounded() -> None:
    many = {"items": [{"n": n, "text": "x" * 150} for n in range(10_000)], "long": "y" * 5_000}
    shown = shown_body(json.dumps(many), JSON, frozenset())
    assert len(shown) <= LONGEST_BODY and "... and 9,980 more" in shown and "(5,000 characters)" in shown
    deep = "[" * 2_000 + "]" * 2_000
    assert len(shown_body(deep, JSON, frozenset())) < 200
    assert len(shown_answer(b"word " * 10_000, frozenset())) <= 4_000


@pytest.mark.parametrize("values", [1, 1_500])
def test_many_people_are_masked_too(values: int) -> None:
    rows = [Row.of({"who": f"person number {n}"}) for n in range(values)]
    assert body_of({"who": "Person number 0"}, *rows) == {"who": "(who)"}


@given(
    st.recursive(
        st.sampled_from(["Ada", "u-17", "ada@example.com", "AB12", 1815, DIGEST]) | st.booleans() | st.none(),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "email", "x"]), inner, max_size=3)
        ),
        max_leaves=20,
    ).filter(lambda value: isinstance(value, list | dict))
)
def test_no_structure_lets_a_person_through(value: object) -> None:
    shown = shown_body(json.dumps(value), JSON, personal_values([ORDER]))
    assert not any(datum in shown for datum in ("Ada", "u-17", "ada@example.com", "AB12", "1815", DIGEST))
