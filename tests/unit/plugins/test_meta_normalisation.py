"""Meta's normalisation: the recorded cases, and what they leave open."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from headrace_destination_meta_audience.people import FIELDS, normalise, rows_of

from headrace_sdk import RecordRejected

CASES = json.loads((Path(__file__).parents[2] / "cases" / "normalisation_meta.json").read_text())
AUDIENCE = [case for case in CASES if case["platform"] == "meta_custom_audience"]
CONVERSIONS = [case for case in CASES if case["platform"] == "meta_capi"]
DIFFERENT = {("dob", "19970216"), ("dobd", "0"), ("dobm", "13")}
"""Where Custom Audiences differ from the Conversions API: birth goes in three parts, days and months unchecked."""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("case", AUDIENCE, ids=lambda case: f"{case['field']}:{case['raw']}")
def test_cases_of_custom_audiences(case: dict[str, Any]) -> None:
    found = normalise(case["field"], case["raw"])
    assert (found.normalised, found.sent) == (case["normalised"], case["sha256"])


@pytest.mark.parametrize("case", CONVERSIONS, ids=lambda case: f"{case['field']}:{case['raw']}")
def test_the_same_value_hashes_as_in_the_conversions_api(case: dict[str, Any]) -> None:
    if (case["field"], case["raw"]) in DIFFERENT:
        return
    if case["expect"] == "reject":
        with pytest.raises(RecordRejected) as caught:
            normalise(case["field"], case["raw"])
        assert case["raw"] not in caught.value.reason
        return
    found = normalise(case["field"], case["raw"])
    assert (found.normalised, found.sent) == (case["normalised"], case["sha256"])


@pytest.mark.parametrize(
    ("field", "raw", "normalised"),
    [
        ("email", "\tA.B+c@GMAIL.com\n", "a.b+c@gmail.com"),
        ("phone", "٠٠٤٩ ١٧١ ١٢٣٤٥٦٧", "491711234567"),
        ("first_name", "Jean-Luc 2", "jeanluc"),
        ("first_name", "Jose\u0301", "jos\u00e9"),
        ("last_name", "O'Brien", "obrien"),
        ("last_name", "王", "王"),
        ("city", "São Paulo", "sãopaulo"),
        ("zip", "SW1A 1AA", "sw1a1aa"),
        ("zip", "94301-1234", "94301"),
        ("gender", "F", "f"),
        ("madid", " AEBE52E7-03EE-455A-B3C4-E57283966239", "aebe52e7-03ee-455a-b3c4-e57283966239"),
        ("user_id", " Ab ", "Ab"),
        ("external_id", "x", "x"),
    ],
)
def test_values_beyond_the_cases(field: str, raw: str, normalised: str) -> None:
    found = normalise(field, raw)
    assert found.normalised == normalised
    assert found.sent == (normalised if field in ("madid", "user_id", "external_id") else sha256(normalised))


@pytest.mark.parametrize(
    ("field", "raw"),
    [
        ("email", ""), ("email", "a b@c.de"), ("email", "a@b@c.de"), ("email", "a@.de"), ("email", "a@b."),
        ("email", "<a@b.de>"), ("email", "a@b.de,c@d.de"), ("phone", "n/a"), ("phone", "12345"),
        ("phone", "12345678901234567"), ("first_name", "123"), ("zip", "-"), ("country", "USA"), ("country", "Ü1"),
        ("gender", "x"), ("date_of_birth", "1990-02-30"), ("date_of_birth", "3.2.1990"),
        ("date_of_birth", "1890-01-01"),
        ("doby", "90"), ("dobm", "x"), ("madid", "00000000-0000-0000-0000-000000000000"), ("madid", "x"),
        ("user_id", "x" * 256), ("shoe_size", "42"),
    ],
)  # fmt: skip
def test_unusable_values_are_refused_without_being_quoted(field: str, raw: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        normalise(field, raw)
    assert len(raw) < 3 or raw not in caught.value.reason
    assert caught.value.field == field


def test_every_field_of_the_manifest_can_be_normalised() -> None:
    samples = {
        "email": "a@b.de", "phone": "+491711234567", "country": "de", "gender": "f", "date_of_birth": "1990-02-03",
        "doby": "1990", "dobm": "2", "dobd": "3", "madid": "aebe52e7-03ee-455a-b3c4-e57283966239", "zip": "10115",
    }  # fmt: skip
    for field in FIELDS:
        assert normalise(field.name, samples.get(field.name, "Abc")).sent


def test_a_date_of_birth_is_sent_in_three_parts() -> None:
    for value in ("1990-02-03", "19900203", "1990-02-03T00:00:00Z", "1990/02/03"):
        found = normalise("date_of_birth", value)
        assert (found.normalised, found.sent.split()) == ("19900203", [sha256("1990"), sha256("02"), sha256("03")])
    (row,) = rows_of({"email": "a@b.de", "date_of_birth": "1990-02-03"})
    assert (row.data["DOBY"], row.data["DOBM"], row.data["DOBD"]) == (sha256("1990"), sha256("02"), sha256("03"))


def test_states_and_zips_of_the_united_states_are_sent_in_their_short_form() -> None:
    (row,) = rows_of({"email": "a@b.de", "country": "US", "state": "New York", "zip": "100011234"})
    assert (row.data["ST"], row.data["ZIP"]) == (sha256("ny"), sha256("10001"))
    (row,) = rows_of({"email": "a@b.de", "country": "AU", "state": "Victoria", "zip": "100011234"})
    assert (row.data["ST"], row.data["ZIP"]) == (sha256("victoria"), sha256("100011234"))


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"email": ["b@x.de", "a@x.de"], "phone": "+491711234567"}, [{"EMAIL", "PHONE"}, {"EMAIL"}]),
        ({"email": ["bad", "a@x.de"]}, [{"EMAIL"}]),
        ({"email": ["A@x.de", "a@x.de "]}, [{"EMAIL"}]),
        ({"user_id": "u"}, [{"EXTERN_ID"}]),
        ({"first_name": "A", "last_name": "B", "city": "Ulm"}, [{"FN", "LN", "CT"}]),
        ({"email": "a@x.de", "gender": "?"}, [{"EMAIL"}]),
    ],
)
def test_rows_of_a_person(fields: dict[str, Any], keys: list[set[str]]) -> None:
    assert [set(row.data) for row in rows_of(fields)] == keys


def test_rows_pair_values_in_the_order_of_their_hashes() -> None:
    """An order that is the same in every process, whatever the order in the profile."""
    emails = [f"p{n}@example.com" for n in range(20)]
    rows = rows_of({"email": emails, "phone": ["+491711234567", "+491711234568"]})
    assert [row.data["EMAIL"] for row in rows] == sorted(map(sha256, emails))
    assert [row.data["PHONE"] for row in rows[:2]] == sorted(map(sha256, ["491711234567", "491711234568"]))


@pytest.mark.parametrize(
    ("fields", "field"),
    [({}, ""), ({"first_name": "A", "last_name": "B"}, ""), ({"email": "bad"}, "email"), ({"country": "de"}, "")],
)
def test_nobody_is_found_by_too_little(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        rows_of(fields)
    assert caught.value.field == field
