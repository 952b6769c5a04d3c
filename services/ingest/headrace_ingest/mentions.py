"""Whether a raw body speaks of a person: looks for identifiers in whatever was sent. Pure functions.

Bodies may be JSON, NDJSON, forms, or nothing that can be read at all, and packed; so they are taken as text and looked
through word by word. A message too many is better removed than a deleted person's kept, but a short id such as "7" must
not take everything with it: it counts only where it stands as an id.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from urllib.parse import unquote_plus

from headrace.domain.identifiers import ANONYMOUS_ID, EMAIL, PHONE, USER_ID

_SHORT = 5
_MAX_UNPACKED = 16 * 1024 * 1024
_PHONE_DIGITS = 9
"""So many last digits of two phone numbers are the same: then they are taken as the same number."""

_WORD = re.compile(r"[^\s\"'`,;&=<>{}\[\]()|\\]+")
_NUMBER = re.compile(r"\+?\d[\d\s().\-/]{5,24}\d")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_NO_DIGIT = re.compile(r"\D")
_NAMED = re.compile(r"[\"']?([A-Za-z_][\w.-]{0,99})[\"']?\s*[:=]\s*[\"']?([^\"',;&{}\[\]\s]{1,512})")

_NAMESPACES = {"userid": USER_ID, "anonymousid": ANONYMOUS_ID, "previousid": USER_ID}
"""Namespaces of what has another name in messages."""


class Mentions:
    """Looks for the identifiers of one person."""

    def __init__(self, identifiers: Iterable[tuple[str, str]]) -> None:
        """Look for these.

        Args:
            identifiers: (namespace, value) pairs, normalised and as they came.
        """
        self._words: set[str] = set()
        self._phrases: set[str] = set()
        self._numbers: set[str] = set()
        short: set[tuple[str, str]] = set()
        for namespace, value in identifiers:
            text = value.strip().lower()
            if not text:
                continue
            if namespace == PHONE:
                digits = _NO_DIGIT.sub("", text)
                if len(digits) >= _PHONE_DIGITS:
                    self._numbers.add(digits[-_PHONE_DIGITS:])
            if len(text) < _SHORT and namespace != EMAIL:
                short.add((namespace.lower(), text))
            elif _WORD.fullmatch(text):
                self._words.add(text)
            else:
                self._phrases.add(text)
        self._short = _as_ids(short) if short else None

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._words or self._phrases or self._numbers or self._short)

    def in_body(self, body: bytes) -> bool:
        """Whether a body, as it came, holds any of them."""
        return any(self._in_text(text.lower()) for text in _texts(body))

    def _in_text(self, text: str) -> bool:
        if self._words:
            for word in _WORD.findall(text):
                if word in self._words or word.strip(".:!?/") in self._words:
                    return True
                if ":" in word or "/" in word or "?" in word:
                    parts = re.split(r"[:/?#]", word)
                    if not self._words.isdisjoint(parts):
                        return True
        if any(phrase in text for phrase in self._phrases):
            return True
        if self._numbers:
            for number in _NUMBER.findall(text):
                digits = _NO_DIGIT.sub("", number)
                if digits[-_PHONE_DIGITS:] in self._numbers:
                    return True
        return self._short is not None and self._short.search(text) is not None


def possible_identifiers(body: bytes, most: int) -> set[tuple[str, str]]:
    """What in a body, as it came, may be an identifier of somebody: (namespace, value) pairs.

    Args:
        body: The body.
        most: At most about so many; a body with more is not looked through to its end.
    """
    found: set[tuple[str, str]] = set()
    for text in _texts(body):
        for match in _NAMED.finditer(text):
            name = match[1].strip()
            found.add((_NAMESPACES.get(name.lower(), name), match[2]))
        for number in _NUMBER.findall(text):
            found.add((PHONE, number))
        for word in _WORD.findall(text):
            if len(found) >= most:
                return found
            if "@" in word:
                found.add((EMAIL, word.strip(".:!?/")))
            elif len(word) >= _SHORT:
                found.update({(USER_ID, word), (ANONYMOUS_ID, word)})
    return found


def _texts(body: bytes) -> set[str]:
    """A body as text, unpacked, without what hides letters in JSON and in forms."""
    text = _unpacked(body).decode(errors="replace")
    plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).replace("\\/", "/")
    return {plain, unquote_plus(plain)} if "%" in plain or "+" in plain else {plain}


def _as_ids(short: Iterable[tuple[str, str]]) -> re.Pattern[str]:
    """A pattern of short values where a name that ends like an id's stands before them."""
    alternatives = (
        rf"(?:id|{re.escape(namespace)})[\"']?\s*[:=]\s*[\"']?{re.escape(value)}(?!\w)" for namespace, value in short
    )
    return re.compile("|".join(sorted(alternatives)))


def _unpacked(body: bytes) -> bytes:
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        return zlib.decompressobj(wbits=31).decompress(body, _MAX_UNPACKED)
    except zlib.error:
        return body
