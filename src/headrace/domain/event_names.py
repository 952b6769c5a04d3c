"""Names of events: the standard e-commerce names in one spelling, and those that only Headrace may send.

The table is data: event_names.json lists, for each canonical name, the other names that mean it. Case,
spaces, underscores, dashes and dots never matter, so `product_viewed` and `Product Viewed` need no entry.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources

import msgspec

RESERVED = frozenset({"addedtosegment", "removedfromsegment"})
"""Folded names of the events that Headrace sends itself; refused from sources."""

_SEPARATORS = re.compile(r"[\s_.\-]+")


def fold(name: str) -> str:
    """A name without what does not matter: case, spaces, underscores, dashes, dots."""
    return _SEPARATORS.sub("", name).casefold()


def _load() -> dict[str, str]:
    table = msgspec.json.decode(
        resources.files("headrace.domain").joinpath("event_names.json").read_bytes(), type=dict[str, list[str]]
    )
    return {fold(name): canonical for canonical, others in table.items() for name in (canonical, *others)}


_CANONICAL = _load()
CANONICAL_NAMES = frozenset(_CANONICAL.values())
"""The standard e-commerce names."""


@lru_cache(maxsize=4_096)  # a workspace has some hundred names, and each comes millions of times
def canonical(name: str) -> str:
    """The stored spelling of a name: the canonical one of a standard e-commerce name, any other as it is."""
    return _CANONICAL.get(fold(name), name)


@lru_cache(maxsize=4_096)
def is_reserved(name: str) -> bool:
    """True for names that only Headrace may send."""
    return fold(name) in RESERVED
