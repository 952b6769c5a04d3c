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


@pytest.mark.parametrize("value", ["", "A", "a_b", "a/b", "x" * 64, "ü", "a b", "a\n", "-a", "--help", "-"])
def test_bad_ids(value: str) -> None:
    with pytest.raises(ApiError):
        names.check_id("source_id", value)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (" VIP\t", "VIP"),
        ("Käufer & Söhne", "Käufer & Söhne"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
        ("x" * 200, "x" * 200),
    ],
)
def test_names_for_people(name: str, kept: str) -> None:
    assert names.display_name("audience.display_name", name) == kept


@pytest.mark.parametrize(
    "name", ["", "  ", "x" * 201, "a\nb", "a\x00b", "a\x1b[2Jb", "a\x85b", "a\u2028b", "a\u202eb", "a\ud800b"]
)
def test_names_for_people_that_are_refused(name: str) -> None:
    with pytest.raises(ApiError) as refused:
        names.display_name("audience.display_name", name)
    assert refused.value.violations[0][0] == "audience.display_name"
