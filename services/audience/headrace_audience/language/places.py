"""Where in the JSON of a definition something is named."""

from __future__ import annotations

from collections.abc import Iterator


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
