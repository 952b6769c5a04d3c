"""What documents of audiences get when they are changed: members that others rely on never move without a version."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_audience.calls.transitions import (
    activated,
    defined,
    discarded,
    followed,
    naming,
    stopped,
    warnings,
    was_live,
)
from headrace_audience.definitions.stored import keeps_members
from headrace_audience.filling.versions import switched
from headrace_audience.language.parser import parse_definition

BOUGHT = json.dumps({"where": {"event": "Purchased"}})
VIEWED = json.dumps({"where": {"event": "Viewed"}})
SPENT = json.dumps({"where": {"computed": "spent", "gte": 1}})
SUM = json.dumps({"event": "Purchased", "compute": {"sum": "value"}})
OTHER_SUM = json.dumps({"event": "Purchased", "compute": {"sum": "price"}})
NONE: dict[str, Any] = {"traits": [], "computed": {}}


def document(state: str, definition: str = BOUGHT, **fields: Any) -> dict[str, Any]:
    made = {
        "_id": "w-a",
        "w": "w",
        "a": "a",
        "state": state,
        "def": definition,
        "gen": 3,
        "rev": 7,
        "at": 1,
        "done": [],
    }
    return {**made, **NONE, "open": False, "refreshed": 0, **fields}


def over_traits(state: str, **fields: Any) -> dict[str, Any]:
    return document(state, SPENT, **{"traits": ["spent"], "computed": {"spent": SUM}, **fields})


def given(old: dict[str, Any], definition: str) -> dict[str, Any]:
    return {**old, **defined(old, definition, parse_definition(definition), NONE), "rev": old["rev"] + 1}


def version(found: dict[str, Any]) -> tuple[str, bool, bool]:
    return found["pending"]["def"], found["pending"]["ready"], found["pending"]["held"]


@pytest.mark.parametrize(
    "old",
    [document("ACTIVE"), document("PAUSED", refreshed=5), document("FILLING", refreshed=5, open=True)],
    ids=lambda d: d["state"],
)
def test_what_was_live_gets_a_version_beside(old: dict[str, Any]) -> None:
    found = given(old, VIEWED)
    assert version(found) == (VIEWED, False, False)
    assert (found["def"], found["gen"], found["state"]) == (BOUGHT, old["gen"], old["state"])
    # Giving another one again is a newer version, and giving the present one forgets it.
    again = given(found, BOUGHT.replace("Purchased", "Rented"))
    assert again["pending"]["gen"] > found["pending"]["gen"]
    assert given(found, BOUGHT)["pending"] is None


@pytest.mark.parametrize("state", ["DRAFT", "FILLING", "PAUSED", "ARCHIVED"])
def test_what_never_was_live_has_nothing_to_confirm(state: str) -> None:
    old = document(state)
    found = given(old, VIEWED)
    assert found["pending"] is None and found["def"] == VIEWED and found["state"] == state
    assert found["gen"] == old["gen"] + (state == "FILLING")
    begun = {**found, **activated(found, NONE)}
    assert begun["pending"] is None and begun["def"] == VIEWED and not keeps_members(begun)


def test_members_of_an_edited_one_stay_from_pausing_to_switching() -> None:
    old = document("ACTIVE", refreshed=5)
    paused = {**old, **stopped(old, "PAUSED")}
    edited = given(paused, VIEWED)
    begun = {**edited, **activated(edited, NONE)}
    assert begun["state"] == "FILLING" and keeps_members(begun) and version(begun) == (VIEWED, False, False)
    assert begun["pending"]["gen"] != edited["pending"]["gen"], "what was counted for the one is nothing to the other"
    placed = {**begun, **switched(begun)}
    assert (placed["state"], placed["def"], placed["open"]) == ("ACTIVE", VIEWED, True) and not keeps_members(placed)
    back = {**begun, **discarded(begun)}
    assert (back["state"], back["def"], back["pending"]) == ("FILLING", BOUGHT, None)
    assert back["gen"] == begun["gen"] + 1 and not keeps_members(back)


def test_pausing_keeps_what_somebody_gave_and_archiving_forgets_it() -> None:
    old = given(document("ACTIVE"), VIEWED)
    old["pending"] |= {"ready": True, "held": True}
    assert version(stopped(old, "PAUSED")) == (VIEWED, False, False)
    assert stopped(old, "ARCHIVED")["pending"] is None and stopped(old, "DELETING")["pending"] is None


def test_activating_with_the_same_meaning_catches_up() -> None:
    old = document("PAUSED", refreshed=5)
    assert activated(old, NONE)["pending"] is None
    old = over_traits("PAUSED", refreshed=5)
    parsed = parse_definition(SPENT)
    assert activated(old, naming(parsed, {"spent": json.dumps(json.loads(SUM), indent=1)}))["pending"] is None
    assert version(activated(old, naming(parsed, {"spent": OTHER_SUM}))) == (SPENT, False, False)


def test_computed_traits_are_followed_by_versions() -> None:
    old = over_traits("ACTIVE")
    assert followed(old, {"spent": SUM}) is None
    change = followed(old, {"spent": OTHER_SUM})
    assert change is not None and change["pending"]["computed"] == {"spent": OTHER_SUM} and "computed" not in change
    waits = {**old, **change}
    assert followed(waits, {"spent": OTHER_SUM}) is None
    assert followed(waits, {"spent": SUM}) == {"pending": None}
    newer = followed(waits, {})
    assert newer is not None and newer["pending"]["computed"] == {}

    declined = {**waits, **discarded(waits)}
    assert followed(declined, {"spent": OTHER_SUM}) is None
    assert "another one now" in warnings(declined)[0]
    assert followed(declined, {}) is not None
    again = defined(declined, SPENT, parse_definition(SPENT), {"traits": ["spent"], "computed": {"spent": OTHER_SUM}})
    assert version(again) == (SPENT, False, False)


def test_what_somebody_gave_comes_before_computed_traits() -> None:
    old = given(over_traits("ACTIVE"), VIEWED)
    assert followed(old, {"spent": OTHER_SUM}) is None
    discarded_it = {**old, **discarded(old)}
    assert followed(discarded_it, {"spent": OTHER_SUM}) is not None


def test_the_first_filling_begins_anew_when_traits_change_and_static_ones_stay() -> None:
    begun = followed(over_traits("FILLING", open=True), {"spent": OTHER_SUM})
    assert begun is not None and begun["pending"] is None and begun["computed"] == {"spent": OTHER_SUM}
    assert begun["gen"] == 4 and begun["cause"] == "definition"
    static = json.dumps({"kind": "static", **json.loads(SPENT)})
    assert followed(over_traits("ACTIVE") | {"def": static}, {"spent": OTHER_SUM}) is None


def test_was_live() -> None:
    assert was_live(document("PAUSED", refreshed=1)) and was_live(document("ACTIVE"))
    assert not was_live(document("FILLING")) and not was_live(document("PAUSED"))
