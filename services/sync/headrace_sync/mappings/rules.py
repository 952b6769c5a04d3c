"""Judging mappings by real people: types, names that nobody has, and what could fill a field. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from headrace.domain.times import parse_time_us
from headrace_sdk import Field, FieldType, Profile

_REFERENCE = re.compile(r"profile\.(traits|identifiers|consents)\.(?:([A-Za-z_]\w*)|\"([^\"]+)\")", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d+)?\s*", re.ASCII)
_LIKELY = 0.85
_NEAR = 0.6
_DEEPEST = 2

_ALSO: Mapping[str, tuple[str, ...]] = {
    "city": ("town", "locality"),
    "country": ("countrycode",),
    "date_of_birth": ("birthday", "birthdate", "dob", "born"),
    "email": ("mail", "emailaddress"),
    "first_name": ("givenname", "forename", "fname"),
    "gender": ("sex",),
    "last_name": ("surname", "familyname", "lname"),
    "phone": ("mobile", "telephone", "phonenumber", "cell", "msisdn"),
    "state": ("region", "province"),
    "street": ("address1", "addressline1"),
    "zip": ("postalcode", "postcode", "zipcode", "plz"),
}
"""Other names of common fields, as `_bare` writes them."""


def fits(kind: FieldType, value: Any) -> bool:
    """Whether a value, as an expression gives it, is of a field's type; text that says the same counts."""
    if kind is FieldType.OBJECT:
        return isinstance(value, Mapping)
    if kind is FieldType.LIST:
        return isinstance(value, list)
    values = value if isinstance(value, list) else [value]
    return all(_fits_one(kind, one) for one in values if one is not None)


def _fits_one(kind: FieldType, value: Any) -> bool:
    if kind is FieldType.NUMBER:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number or (isinstance(value, str) and _NUMBER.fullmatch(value) is not None)
    if kind is FieldType.BOOLEAN:
        return isinstance(value, bool) or value in ("true", "false")
    if kind is FieldType.TIME:
        if isinstance(value, str):
            try:
                parse_time_us(value)
            except (ValueError, OverflowError):
                return False
            return True
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str | int | float | bool)


def known_names(people: Iterable[Profile]) -> dict[str, dict[str, int]]:
    """How many people have each trait (also inside objects) and each identifier: "traits" and "identifiers"."""
    traits: dict[str, int] = {}
    identifiers: dict[str, int] = {}
    for person in people:
        for path in _paths(person.traits, "", 0):
            traits[path] = traits.get(path, 0) + 1
        for namespace, values in person.identifiers.items():
            if values:
                identifiers[namespace] = identifiers.get(namespace, 0) + 1
    return {"traits": traits, "identifiers": identifiers}


def remarks_on(expression: str, known: Mapping[str, Collection[str]]) -> list[str]:
    """Names in an expression that nobody has, with the nearest one that somebody has."""
    found = []
    for match in _REFERENCE.finditer(expression):
        place, name = match[1], match[2] or match[3]
        names = known.get(place)
        if names is None or name in names or any(path.startswith(f"{name}.") for path in names):
            continue
        near = difflib.get_close_matches(name, names, n=1, cutoff=_NEAR)
        hint = f"; did you mean {near[0]}?" if near else ""
        found.append(f"nobody of those looked at has {place}.{name}{hint}")
    return found


def propose(field: Field, known: Mapping[str, Mapping[str, int]]) -> str:
    """An expression that could fill a field, by what people have; empty when nothing fits.

    Args:
        field: The field.
        known: As `known_names` gives it.
    """
    parts = []
    if field.name in known["identifiers"]:
        parts.append(f"profile.identifiers.{_quoted(field.name)}")
    wanted = {_bare(field.name), *_ALSO.get(field.name, ())}
    traits = known["traits"]
    fitting = [path for path in traits if _bare(path.rpartition(".")[2]) in wanted]
    if not fitting and not parts:
        by_bare = {_bare(path): path for path in traits}
        near = difflib.get_close_matches(_bare(field.name), by_bare, n=1, cutoff=_LIKELY)
        fitting = [by_bare[name] for name in near]
    # Who has it at the top before who has it inside an object, and the commonest first.
    fitting.sort(key=lambda path: (path.count("."), -traits[path], path))
    parts += [f"profile.traits.{'.'.join(map(_quoted, path.split('.')))}" for path in fitting[:1]]
    return " || ".join(parts)


def _paths(value: Mapping[str, Any], above: str, depth: int) -> Iterable[str]:
    for name, inner in value.items():
        if inner is None or inner == "" or "." in name or '"' in name:
            continue
        yield f"{above}{name}"
        if isinstance(inner, Mapping) and depth + 1 < _DEEPEST:
            yield from _paths(inner, f"{above}{name}.", depth + 1)


def _bare(name: str) -> str:
    """A name without what different spellings differ in."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _quoted(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else f'"{name}"'
