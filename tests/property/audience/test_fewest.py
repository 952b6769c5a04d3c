"""The fewest conditions whose change is enough: they are enough, and no smaller set is, as trying all sets shows."""

from __future__ import annotations

from itertools import combinations
from random import Random
from typing import Any

from headrace_audience.offline.fewest import Fewest, fewest, holds, leaves_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

NAMES = "ABCDEF"


def leaf(name: str, *, true: bool = False) -> dict[str, Any]:
    return {"kind": "event", "text": name, "holds": true}


def combined(kind: str, *parts: dict[str, Any]) -> dict[str, Any]:
    found = {"kind": kind, "text": "", "parts": list(parts)}
    return {**found, "holds": holds(found, ())}


def tree(r: Random, truths: dict[str, bool], depth: int) -> dict[str, Any]:
    """A condition over some of six leaves, so that many are named several times."""
    kind = r.choice(("leaf", "all", "any", "not")) if depth else "leaf"
    if kind == "leaf":
        name = r.choice(NAMES)
        return leaf(name, true=truths[name])
    number = 1 if kind == "not" else r.randint(0, 3)
    return combined(kind, *(tree(r, truths, depth - 1) for _ in range(number)))


def some_tree(r: Random) -> dict[str, Any]:
    return tree(r, {name: r.random() < 0.5 for name in NAMES}, depth=4)


def smallest_number(found: dict[str, Any]) -> int | None:
    """How many must change at least, of all sets that there are; None when no set is enough."""
    names = sorted({one["text"] for one in leaves_of(found)})
    for size in range(len(names) + 1):
        if any(holds(found, changed) is not found["holds"] for changed in combinations(names, size)):
            return size
    return None


def changed_of(enough: Fewest) -> set[str]:
    assert all(change.must_hold is not change.found["holds"] for change in enough.changes)
    return {change.found["text"] for change in enough.changes}


trees = st.randoms(use_true_random=False).map(some_tree)
SHARED = combined("all", combined("any", leaf("A"), leaf("B")), combined("any", leaf("C"), leaf("B")))
NEVER = combined("all", leaf("A"), combined("not", leaf("A")))


@settings(max_examples=120, deadline=None)
@given(found=trees)
@example(found=SHARED)
@example(found=NEVER)
def test_they_are_enough_and_no_smaller_set_is(found: dict[str, Any]) -> None:
    enough = fewest(found)
    number = smallest_number(found)
    assert enough.is_certain
    assert len(enough.changes) == (number or 0)
    if number is not None:
        assert holds(found, changed_of(enough)) is not found["holds"]


@settings(max_examples=100, deadline=None)
@given(found=trees)
def test_a_search_that_ends_early_says_so_and_what_it_names_is_enough(found: dict[str, Any]) -> None:
    enough = fewest(found, most_looked_at=0)
    if enough.changes:
        assert holds(found, changed_of(enough)) is not found["holds"]
    if enough.is_certain:
        assert len(enough.changes) == (smallest_number(found) or 0)


def test_one_that_two_parts_share_is_enough() -> None:
    assert changed_of(fewest(SHARED)) == {"B"}


def test_of_too_many_shared_ones_none_is_named_without_need() -> None:
    """A ring of pairs: every second one is enough, which is not proved."""
    names = [f"E{n}" for n in range(150)]
    pairs = [combined("any", leaf(a), leaf(b)) for a, b in zip(names, names[1:] + names[:1], strict=True)]
    ring = combined("all", *pairs)
    enough = fewest(ring)
    assert (len(enough.changes), enough.is_certain) == (75, False)
    assert holds(ring, changed_of(enough))
