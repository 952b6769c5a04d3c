from __future__ import annotations

from typing import Any

import pytest
from headrace_sync.mappings.rules import fits, known_names, propose, remarks_on

from headrace_sdk import Field, FieldType, Profile


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (FieldType.TEXT, ["a", 3, True, ["a", "b"], [None, "a"]], [{"a": 1}, [{"a": 1}]]),
        (FieldType.NUMBER, [3, 1.5, "19.90", "-2"], [True, "many", {"a": 1}, ["3", "x"]]),
        (FieldType.BOOLEAN, [True, "false"], ["yes", 1, {}]),
        (FieldType.TIME, ["2026-01-31T08:00:00Z", 1_700_000_000], ["soon", True, {"a": 1}]),
        (FieldType.OBJECT, [{}], ["a", [{}]]),
        (FieldType.LIST, [[1]], ["a", {}]),
    ],
)
def test_what_is_of_a_type(kind: FieldType, good: list[Any], bad: list[Any]) -> None:
    assert [fits(kind, value) for value in good] == [True] * len(good)
    assert [fits(kind, value) for value in bad] == [False] * len(bad)


PEOPLE = [
    Profile(
        id="p1",
        identifiers={"email": ["a@x.org"], "phone": []},
        traits={"firstName": "Ada", "Family name": "L", "address": {"postcode": "1", "town": "Pune"}, "empty": None},
    ),
    Profile(id="p2", traits={"mobile": "+91", "firstname": "Bo"}),
    Profile(id="p3", traits={"firstName": "Cy", "lifetime_valu": 3}),
]
KNOWN = known_names(PEOPLE)


def test_what_people_have_is_counted() -> None:
    assert KNOWN["identifiers"] == {"email": 1}
    assert KNOWN["traits"]["firstName"] == 2
    assert KNOWN["traits"]["address.town"] == 1
    assert "empty" not in KNOWN["traits"]


@pytest.mark.parametrize(
    ("field", "proposal"),
    [
        ("email", "profile.identifiers.email"),
        ("phone", "profile.traits.mobile"),
        ("first_name", "profile.traits.firstName"),
        ("last_name", 'profile.traits."Family name"'),
        ("zip", "profile.traits.address.postcode"),
        ("city", "profile.traits.address.town"),
        ("lifetime_value", "profile.traits.lifetime_valu"),
        ("gender", ""),
    ],
)
def test_what_could_fill_a_field(field: str, proposal: str) -> None:
    assert propose(Field(name=field, title=field), KNOWN) == proposal


def test_names_that_nobody_has_are_told_with_the_nearest() -> None:
    assert remarks_on("profile.traits.first_Name || profile.identifiers.email", KNOWN) == [
        "nobody of those looked at has traits.first_Name; did you mean firstName?"
    ]
    assert remarks_on("profile.identifiers.qqq", KNOWN) == ["nobody of those looked at has identifiers.qqq"]
    assert remarks_on("profile.traits.address.town || event.properties.x", KNOWN) == []
