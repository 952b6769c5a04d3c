"""What people are found by: the beginnings of their identifiers, and traits as text. Pure functions.

Each part of a person keeps a term per trait that can be searched, in an index. The traits of the person are those of
all parts, so a term only says who may be found: whoever reads checks the person.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import phonenumbers

from headrace.domain.identifiers import EMAIL, PHONE
from headrace_identity.resolving.graph import Profile, TraitValue
from headrace_identity.resolving.rules import Identifier

SEPARATOR = "\x1f"
MAX_TEXT = 256
"""Longer values of traits cannot be searched."""

_MAX_RAW = 6 * MAX_TEXT + 2
"""A JSON text of so many bytes or more is longer than MAX_TEXT, whatever is escaped in it."""

_PUNCTUATION = re.compile(r"[\s().\-/]")
_decode = msgspec.json.Decoder().decode


def text_of(value: bytes) -> str | None:
    """A trait's value as text: of a text, a number, true or false; None for everything else, and for long texts.

    Args:
        value: The value as JSON.
    """
    if len(value) > _MAX_RAW or value[:1] in (b"{", b"[", b"n", b""):
        return None
    decoded = _decode(value)
    if isinstance(decoded, bool):
        return "true" if decoded else "false"
    if isinstance(decoded, float) and decoded.is_integer():
        decoded = int(decoded)
    text = str(decoded).casefold()
    return text if len(text) <= MAX_TEXT else None


def trait_term(name: str, text: str) -> str:
    """What stands in the index for a trait with a value as text."""
    return f"{name}{SEPARATOR}{text}"


def trait_terms(traits: Mapping[str, TraitValue]) -> list[str]:
    """The terms of a part's traits."""
    terms: list[str] = []
    for name, trait in traits.items():
        text = text_of(trait.value)
        if text is not None:
            terms.append(trait_term(name, text))
    return terms


class TraitQuery(NamedTuple):
    """A search by trait: its name, the value as text or its beginning, and which of the two."""

    name: str
    text: str
    prefix: bool

    @classmethod
    def of(cls, name: str, value: str, *, prefix: bool) -> TraitQuery:
        """A search for a value as it was typed."""
        return cls(name, value.casefold(), prefix)

    @property
    def bounds(self) -> tuple[str, str]:
        """First term, and the one after the last."""
        term = trait_term(self.name, self.text)
        return term, after_beginning(term) if self.prefix else f"{term}\0"

    def finds(self, traits: Mapping[str, TraitValue]) -> bool:
        """Whether a person with these traits is found."""
        trait = traits.get(self.name)
        text = text_of(trait.value) if trait is not None else None
        if text is None:
            return False
        return text.startswith(self.text) if self.prefix else text == self.text


def after_beginning(text: str) -> str:
    """A text greater than all that begin with another, and than hardly anything else."""
    return f"{text}\U0010ffff"


def beginnings(namespace: str, typed: str, default_country: str | None) -> list[str]:
    """How an identifier that begins as typed may begin as it is stored; in order, none the beginning of another.

    An email is stored in lower case. A phone number is stored with plus and country: without a plus the digits may
    begin with the country, or they are a number of the workspace's own.

    Args:
        namespace: Namespace of the identifier.
        typed: The beginning, as typed.
        default_country: Two capital letters, the country of phone numbers without one.
    """
    text = typed.strip()
    if not text:
        return []
    if namespace == EMAIL:
        return [text.lower()]
    if namespace != PHONE:
        return [text]
    digits = _PUNCTUATION.sub("", text)
    if digits.startswith("00"):
        return [f"+{digits[2:]}"]
    if digits.startswith("+") or not digits.isdecimal():
        return [digits] if digits else []
    found = {f"+{digits}"}
    if default_country is not None:
        found.add(f"+{phonenumbers.country_code_for_region(default_country)}{digits.removeprefix('0')}")
    return _apart(sorted(found))


def _apart(texts: Sequence[str]) -> list[str]:
    """Sorted texts without those that begin with another of them."""
    kept: list[str] = []
    for text in texts:
        if not kept or not text.startswith(kept[-1]):
            kept.append(text)
    return kept


def first_identifier(
    identifiers: Iterable[Identifier], namespace: str, typed: str, default_country: str | None
) -> Identifier | None:
    """Of a person's identifiers that a search finds the one that it comes to first: there the person is shown.

    Args:
        identifiers: The person's identifiers.
        namespace: Namespace that is searched, "" for all.
        typed: The beginning, as typed.
        default_country: The workspace's.
    """
    found = (
        (n, value)
        for n, value in identifiers
        if namespace in ("", n) and value.startswith(tuple(beginnings(n, typed, default_country)))
    )
    return min(found, default=None)


def first_term(query: TraitQuery, parts: Iterable[Profile]) -> tuple[str, str] | None:
    """Of the terms of a person's parts that a search finds the one that it comes to first, with the part's id."""
    start, end = query.bounds
    found = ((term, part.id) for part in parts for term in trait_terms(part.traits) if start <= term < end)
    return min(found, default=None)
