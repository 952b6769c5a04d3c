from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.rpc.errors import ApiError
from headrace.rpc.page_tokens import Pager, page_size

PAGER = Pager("a secret that all replicas share")
POSITIONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner, max_size=4)
)


@given(position=POSITIONS, arguments=st.lists(st.text(), max_size=3))
def test_a_token_gives_its_position_back(position: object, arguments: list[str]) -> None:
    token = PAGER.encode("ListSources", arguments, position)
    assert PAGER.decode("ListSources", arguments, token) == position


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("ListSyncs", ["workspaces/a"]), ("ListSources", ["workspaces/b"]), ("ListSources", ["workspaces/a", ""])],
)
def test_a_token_is_bound_to_method_and_arguments(method: str, arguments: list[str]) -> None:
    token = PAGER.encode("ListSources", ["workspaces/a"], "x")
    with pytest.raises(ApiError) as refused:
        PAGER.decode(method, arguments, token)
    assert refused.value.reason == "INVALID_PAGE_TOKEN"


@given(junk=st.text(min_size=1))
def test_junk_is_refused_and_never_crashes(junk: str) -> None:
    with pytest.raises(ApiError):
        PAGER.decode("ListSources", [], junk)


@given(at=st.integers(0, 39), flip=st.integers(1, 255))
def test_a_changed_token_is_refused(at: int, flip: int) -> None:
    import base64

    token = PAGER.encode("ListSources", [], "0123456789012345678901")
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[at % len(raw)] ^= flip
    with pytest.raises(ApiError):
        PAGER.decode("ListSources", [], base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("="))


def test_another_secret_makes_other_tokens() -> None:
    with pytest.raises(ApiError):
        Pager("another").decode("ListSources", [], PAGER.encode("ListSources", [], 1))


@pytest.mark.parametrize(("asked", "given_"), [(0, 100), (1, 1), (1000, 1000), (1001, 1000)])
def test_page_sizes_are_coerced(asked: int, given_: int) -> None:
    assert page_size(asked) == given_


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(ApiError) as refused:
        page_size(-1)
    assert refused.value.violations == (("page_size", "must not be negative"),)
