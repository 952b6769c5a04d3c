"""Secrets of settings: found, masked, kept."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from headrace.plugins import MASK, mask, mask_settings, merge_masked, secrets_of


class Inner(BaseModel):
    key: SecretStr
    name: str = ""


class Settings(BaseModel):
    token: SecretStr
    maybe: SecretStr | None = None
    headers: dict[str, SecretStr] = {}
    plain: dict[str, str] = {}
    inner: Inner | None = None
    many: list[Inner] = []
    pair: tuple[str, SecretStr] | None = None


SCHEMA = Settings.model_json_schema()
GIVEN: dict[str, Any] = {
    "token": "tok-1",
    "maybe": None,
    "headers": {"X-Key": "key-2"},
    "plain": {"X": "open"},
    "inner": {"key": "key-3", "name": "n"},
    "many": [{"key": "key-4"}, {"key": "key-55"}],
    "pair": ["user", "key-6"],
}


def test_all_secrets_are_found_wherever_they_nest() -> None:
    assert secrets_of(SCHEMA, GIVEN) == ["key-55", "key-2", "key-3", "key-4", "key-6", "tok-1"]


def test_the_display_shows_that_there_is_a_secret_but_not_which() -> None:
    shown = mask_settings(SCHEMA, GIVEN)
    assert shown == {
        "token": MASK,
        "maybe": None,
        "headers": {"X-Key": MASK},
        "plain": {"X": "open"},
        "inner": {"key": MASK, "name": "n"},
        "many": [{"key": MASK}, {"key": MASK}],
        "pair": ["user", MASK],
    }
    assert GIVEN["token"] == "tok-1"
    assert mask_settings(SCHEMA, {"token": ""}) == {"token": ""}


def test_a_masked_secret_keeps_its_value_and_a_new_one_replaces_it() -> None:
    shown = mask_settings(SCHEMA, GIVEN)
    shown["headers"]["X-Key"] = "new"
    shown["plain"] = {"X": MASK}  # no secret: taken as it is
    merged = merge_masked(SCHEMA, shown, GIVEN)
    assert merged == {**GIVEN, "headers": {"X-Key": "new"}, "plain": {"X": MASK}}


@pytest.mark.parametrize(
    ("new", "old", "place"),
    [
        ({"token": MASK}, None, "token"),
        ({"token": "t", "headers": {"Other": MASK}}, GIVEN, "headers.Other"),
        ({"token": "t", "many": [{"key": MASK}] * 3}, GIVEN, "many.2.key"),
    ],
)
def test_a_mask_with_nothing_behind_it_is_refused(new: Any, old: Any, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        merge_masked(SCHEMA, new, old)


@pytest.mark.parametrize(
    "text",
    [
        "Bearer s3cr/t+key",
        "?token=s3cr%2Ft%2Bkey",
        base64.b64encode(b"s3cr/t+key").decode(),
        '{"a": "s3cr/t+key"}',
        repr("s3cr/t+key"),
    ],
)
def test_secrets_are_masked_in_every_usual_form(text: str) -> None:
    masked = mask(text, ["s3cr/t+key"])
    assert MASK in masked and "s3cr" not in masked and "czNjci90K2tleQ" not in masked
    assert mask(text.encode(), ["s3cr/t+key"]) == masked.encode()


def test_a_secret_with_marks_is_masked_in_json() -> None:
    import json

    secret = 'pa"ss\\wörd\n'
    assert "pa" not in mask(json.dumps({"x": secret}), [secret])
    assert "pa" not in mask(json.dumps({"x": secret}, ensure_ascii=False), [secret])


def test_very_short_secrets_tear_no_holes() -> None:
    assert mask("abcabc", ["a", "", "abc"]) == "abcabc"


def test_odd_schemas_do_no_harm() -> None:
    assert mask_settings({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, {"a": 1}) == {"a": 1}
    assert secrets_of({}, {"a": "b"}) == []
