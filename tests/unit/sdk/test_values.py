"""Rules for values against what the vendors' own code and pages give, and on what these leave open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import values
from headrace_sdk.values import Rule, Unusable

CASES = json.loads((Path(__file__).parents[2] / "cases" / "normalisation.json").read_text())
RULES: dict[tuple[str, str], Callable[[str], str]] = {
    ("google", "email"): values.email_google,
    ("google", "phone"): values.phone_e164,
    ("google", "first_name"): values.lower,
    ("google", "last_name"): values.lower,
    ("google", "city"): values.words,
    ("google", "state"): values.words,
    ("google", "country"): values.country_upper,
    ("ga4", "email"): values.email_google,
    ("ga4", "first_name"): values.lower,
    ("tiktok", "email"): values.email,
    ("tiktok", "phone"): values.phone_e164,
    ("linkedin", "email"): values.email,
    ("klaviyo_e164", "phone"): values.phone_e164,
    ("meta_capi", "email"): values.email,
    ("meta_capi", "phone"): values.phone_digits,
    ("meta_capi", "first_name"): values.letters,
    ("meta_capi", "city"): values.letters,
    ("meta_capi", "zip"): values.postal_code,
    ("meta_capi", "country"): values.country_lower,
    ("meta_capi", "gender"): values.gender,
}


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if (case["platform"], case["field"]) in RULES and "region='" not in case["made_by"]],
    ids=lambda case: f"{case['platform']}:{case['field']}:{case['raw']}",
)
def test_rules_agree_with_the_vendors(case: dict[str, Any]) -> None:
    rule = Rule(RULES[case["platform"], case["field"]])
    if case["expect"] == "reject":
        with pytest.raises(Unusable) as refused:
            rule.apply(case["raw"])
        assert case["raw"].strip() not in str(refused.value)
        return
    normalised, sent = rule.apply(case["raw"])
    if case["expect"] == "value":
        assert normalised == case["normalised"]
    assert sent == (case["sha256"] or values.sha256(normalised))


@given(st.sampled_from(sorted(RULES.values(), key=lambda rule: rule.__name__)), st.text())
def test_rules_never_fail_and_change_nothing_twice(clean: Callable[[str], str], value: str) -> None:
    rule = Rule(clean)
    try:
        normalised, sent = rule.apply(value)
    except Unusable as error:
        assert len(str(error)) < 80
        return
    assert sent == (normalised if values.is_sha256(normalised) else values.sha256(normalised))
    assert rule.apply(normalised)[0] == normalised


def test_a_hash_stays_one_only_where_hashes_are_sent() -> None:
    digest = "AB" * 32
    assert Rule(values.email).apply(f" {digest} ") == (digest.lower(), digest.lower())
    with pytest.raises(Unusable):
        Rule(values.email, hashed=False).apply(digest)


@pytest.mark.parametrize("value", ["1950-02-30", "1899-01-01", "01/02/1990", "", "199001011"])
def test_no_dates_of_birth(value: str) -> None:
    with pytest.raises(Unusable):
        values.birth(value)


def test_texts_have_a_longest() -> None:
    assert values.text(3)("abc") == "abc"
    with pytest.raises(Unusable, match="longer than 3"):
        values.text(3)("abcd")
