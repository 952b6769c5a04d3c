"""The fewest conditions of a definition whose change is enough for somebody to enter, or to leave.

A condition is taken by itself: whether it holds may change whatever the others do. One that a definition names several
times is one condition, and changes everywhere at once. Conditions named once are counted in one walk through the tree;
of those named several times, sets are tried from the smallest on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

MOST_LOOKED_AT = 300_000
"""So many conditions are looked at, each as often as it is, before the search ends: a fraction of a second."""

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """A condition that would have to change.

    Attributes:
        found: What `explain` found of it.
        must_hold: Whether it does not hold and would have to; else it holds and would have to hold no longer.
    """

    found: Found
    must_hold: bool


@dataclass(frozen=True, slots=True)
class Fewest:
    """What is enough.

    Attributes:
        changes: The conditions, in the order of the definition; empty when nothing is enough, or nothing was found.
        is_certain: Whether no fewer are enough; else the definition is too large to try them all.
    """

    changes: tuple[Change, ...]
    is_certain: bool


def fewest(found: Found, *, most_looked_at: int = MOST_LOOKED_AT) -> Fewest:
    """The fewest conditions whose change turns what the whole is.

    Args:
        found: What `explain` found of the whole: "kind" and "holds", with "parts" for all, any and not, and "text",
            which is equal for equal conditions.
        most_looked_at: When to end the search.
    """
    leaves = list(leaves_of(found))
    times = Counter(leaf["text"] for leaf in leaves)
    shared = [text for text, number in times.items() if number > 1]
    target = not found["holds"]
    # To begin with, the fewest of each part by itself: not the fewest, or even wrong, where parts share some.
    best = _chosen(found, target, (), {})
    if best is not None:
        best = _trimmed(found, best, target, times)
    left, is_certain = most_looked_at, True
    for changed in _sets(shared):
        if best is not None and len(best) <= max(1, len(changed)):
            break
        left -= len(leaves)
        if left < 0:
            is_certain = False
            break
        others = _chosen(found, target, changed, times)
        if others is not None and (best is None or len(changed) + len(others) < len(best)):
            best = {*changed, *others}
    wanted = best or set()
    first = {leaf["text"]: leaf for leaf in reversed(leaves)}
    changes = tuple(Change(first[text], not first[text]["holds"]) for text in times if text in wanted)
    return Fewest(changes, is_certain)


def leaves_of(found: Found) -> Iterator[Found]:
    """The conditions that all, any and not combine, each as often as it is named."""
    if found["kind"] not in ("all", "any", "not"):
        yield found
        return
    for part in found["parts"]:
        yield from leaves_of(part)


def holds(found: Found, changed: Collection[str]) -> bool:
    """Whether a condition holds once those of these texts have changed."""
    kind = found["kind"]
    if kind == "not":
        return not holds(found["parts"][0], changed)
    if kind in ("all", "any"):
        parts = (holds(part, changed) for part in found["parts"])
        return all(parts) if kind == "all" else any(parts)
    return bool(found["holds"]) is not (found["text"] in changed)


def _trimmed(found: Found, chosen: set[str], target: bool, texts: Iterable[str]) -> set[str] | None:
    """Those of a set that are needed to reach the target, looked at in the order of `texts`; None: it is not enough."""
    if holds(found, chosen) is not target:
        return None
    needed = set(chosen)
    for text in texts:
        if text in needed and holds(found, needed - {text}) is target:
            needed.remove(text)
    return needed


def _sets(texts: Collection[str]) -> Iterator[tuple[str, ...]]:
    """All sets, from the smallest on."""
    for size in range(len(texts) + 1):
        yield from combinations(texts, size)


def _chosen(found: Found, target: bool, changed: Collection[str], times: Mapping[str, int]) -> set[str] | None:
    """The fewest that have to change beside `changed`, none of those named several times; None: none are enough."""
    kind = found["kind"]
    if kind == "not":
        return _chosen(found["parts"][0], not target, changed, times)
    if kind in ("all", "any"):
        parts = [_chosen(part, target, changed, times) for part in found["parts"]]
        possible = [part for part in parts if part is not None]
        if (kind == "all") is not target:
            return min(possible, key=len, default=None)
        return set[str]().union(*possible) if len(possible) == len(parts) else None
    text = found["text"]
    if (found["holds"] is not (text in changed)) is target:
        return set()
    return None if times.get(text, 0) > 1 else {text}
