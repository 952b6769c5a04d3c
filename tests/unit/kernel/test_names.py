from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.rpc import names
from headrace.rpc.errors import ApiError


def test_a_name_and_its_ids() -> None:
    name = names.format(names.AUDIENCE, "acme", "buyers")
    assert name == "workspaces/acme/audiences/buyers"
    assert names.parse(names.AUDIENCE, name) == ("acme", "buyers")
    assert names.workspace_of(name) == "acme"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "workspaces/",
        "workspaces/acme",
        "workspaces/acme/audiences/",
        "workspaces/acme/audiences/a/b",
        "workspaces/ACME/audiences/a",
        "workspaces/acme/syncs/a",
        "workspaces/acme/audiences/a\n",
        "workspaces/a/workspaces/b/audiences/c",
    ],
)
def test_other_forms_are_refused_on_their_field(name: str) -> None:
    with pytest.raises(ApiError) as refused:
        names.parse(names.AUDIENCE, name, "audience")
    assert refused.value.violations[0][0] == "audience"


@given(text=st.text())
def test_a_workspace_is_found_only_where_every_pattern_finds_it(text: str) -> None:
    name = f"workspaces/{text}"
    try:
        workspace = names.workspace_of(name)
    except ApiError:
        return
    assert name == f"workspaces/{workspace}" or name.startswith(f"workspaces/{workspace}/")


@pytest.mark.parametrize("value", ["a", "a-b-9", "x" * 63])
def test_good_ids(value: str) -> None:
    assert names.check_id("source_id", value) == value


@pytest.mark.parametrize("value", ["", "A", "a_b", "a/b", "x" * 64, "ü", "a b", "a\n"])
def test_bad_ids(value: str) -> None:
    with pytest.raises(ApiError):
        names.check_id("source_id", value)
