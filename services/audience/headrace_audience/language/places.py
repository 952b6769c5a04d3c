"""Where in the JSON of a definition something is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def places_of(raw: object, key: str, path: str = "") -> Iterator[tuple[str, str]]:
    """(place, id) of each condition that names something by a key such as "audience".

    Args:
        raw: The definition, decoded; one that parse_definition() takes.
        key: The key.
        path: The place of `raw`.
    """
    if isinstance(raw, dict):
        for name, value in raw.items():
            place = f"{path}.{name}" if path else str(name)
            if name == key and isinstance(value, str):
                yield place, value
            elif name in ("where", "all", "any", "not"):
                yield from places_of(value, key, place)
    elif isinstance(raw, list):
        for index, item in enumerate(raw):
            yield from places_of(item, key, f"{path}[{index}]")


def conditions_of(raw: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, condition) of a condition and of all that are inside of it.

    Args:
        raw: The condition, decoded, of a definition that parse_definition() takes.
        path: Its place.
    """
    yield path, raw
    for word in ("all", "any"):
        for index, part in enumerate(raw.get(word, ())):
            yield from conditions_of(part, f"{path}.{word}[{index}]")
    if "not" in raw:
        yield from conditions_of(raw["not"], f"{path}.not")
    if "members" in raw:
        yield from conditions_of(raw["where"], f"{path}.where")
