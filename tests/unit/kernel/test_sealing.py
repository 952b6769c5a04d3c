from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.storage.sealing import Sealer, SealError

KEY = base64.b64encode(b"k" * 32).decode()
SEALER = Sealer(KEY)


@given(text=st.text(), place=st.text())
def test_a_sealed_text_opens_in_its_place(text: str, place: str) -> None:
    sealed = SEALER.seal(text, place)
    assert SEALER.open(sealed, place) == text
    assert SEALER.seal(text, place) != sealed


def test_it_opens_nowhere_else() -> None:
    sealed = SEALER.seal("secret", "destination\x1fa")
    with pytest.raises(SealError):
        SEALER.open(sealed, "destination\x1fb")
    with pytest.raises(SealError):
        Sealer(base64.b64encode(b"x" * 32).decode()).open(sealed, "destination\x1fa")


@given(junk=st.text())
def test_damaged_texts_are_refused(junk: str) -> None:
    for sealed in (junk, f"v1:{junk}"):
        with pytest.raises(SealError):
            SEALER.open(sealed, "place")


@pytest.mark.parametrize("key", ["", "short", base64.b64encode(b"k" * 31).decode(), "*" * 44])
def test_a_wrong_key_says_how_to_make_one(key: str) -> None:
    with pytest.raises(ValueError, match="openssl rand"):
        Sealer(key)
