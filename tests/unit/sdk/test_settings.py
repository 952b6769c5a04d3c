"""Settings that most connectors have: what can go into a header, and where an API is."""

from __future__ import annotations

import pytest
from pydantic import Field, ValidationError

from headrace_sdk.settings import Address, Settings, Token, Word


class Mine(Settings):
    token: Token = Field(title="Token")
    client: Word = Field("me", title="Client")
    extra: Token | None = Field(None, title="More")
    base_url: Address = Field("https://api.example", title="Address")


def test_usable_values_are_taken() -> None:
    mine = Mine.model_validate({"token": "t-1", "base_url": "http://127.0.0.1:80/v1/"})
    assert mine.token.get_secret_value() == "t-1"
    assert mine.base_url == "http://127.0.0.1:80/v1"


@pytest.mark.parametrize("word", ["", "two words", "line\nbreak", "tök", "tab\t", "nul\0"])
@pytest.mark.parametrize("name", ["token", "client", "extra"])
def test_what_cannot_go_into_a_header_is_refused_without_being_shown(name: str, word: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Mine.model_validate({"token": "fine", name: word})
    assert not word or word not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["", "/v1", "api.example", "ftp://api.example", "https://", "https://a.example?x=1", "https://a.example#x",
     "https://user:secret@a.example", "https://[::1", "https://a example", "https://a.example/\n",
     "http://127。0。0。1", "http://１２７.0.0.1", "http://%31.example", "http://[::1%25lo]", "http://a.example\\b"],
)  # fmt: skip
def test_what_is_no_address_of_an_api_is_refused(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Mine.model_validate({"token": "t", "base_url": url})
    assert "secret" not in str(refused.value)


def test_settings_do_not_change_and_know_their_names() -> None:
    mine = Mine.model_validate({"token": "t"})
    with pytest.raises(ValidationError):
        mine.client = "other"  # type: ignore[misc]  # what must fail
    with pytest.raises(ValidationError, match="tokn"):
        Mine.model_validate({"token": "t", "tokn": "t"})


def test_secrets_are_told_apart_in_the_form() -> None:
    schema = Mine.model_json_schema()["properties"]
    assert schema["token"]["format"] == "password"
    assert schema["token"]["writeOnly"] is True
    assert "format" not in schema["client"]
