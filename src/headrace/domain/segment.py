"""Who a message in the form of the Segment spec is about: identifiers in its free-form parts.

External ids, email and phone, click ids: what ingest takes from a message, and what offline commands read from a file.

Click ids name a click, not a person; they travel as identifiers of their own namespaces, and the
identity service sets them aside when it resolves the event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from headrace.domain.identifiers import CLICK_ID_NAMESPACES, EMAIL, MAX_NAMESPACE_LENGTH, MAX_VALUE_LENGTH, PHONE

BROWSER_ID_NAMESPACES = frozenset({"fbp", "ga_client_id", "ttp"})
"""Ids that a platform's own script gave the browser: they identify it, so they may join people."""

_IN_CONTEXT = CLICK_ID_NAMESPACES | BROWSER_ID_NAMESPACES
_IN_URL = CLICK_ID_NAMESPACES - {"fbc", "ga_session_id"}
_CLICK_ID = re.compile(rf"[?&](?:{'|'.join(sorted(_IN_URL))})=")
_MAX_URL = 8_192
_PEOPLE = "users"

Found = dict[tuple[str, str], None]
"""Different (namespace, value) pairs in order of appearance."""


class InvalidIdentifier(ValueError):
    """Something that a sender gives as an identifier on purpose, and that is none.

    Attributes:
        code: INVALID_TYPE, INVALID_NAMESPACE or TOO_LONG.
        reason: A sentence that never quotes what was sent.
        field: The field at fault.
    """

    def __init__(self, code: str, reason: str, field: str) -> None:
        """Say why."""
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.field = field


INVALID_TYPE = "invalid_type"
INVALID_NAMESPACE = "invalid_namespace"
TOO_LONG = "identifier_too_long"


def of_traits(traits: Mapping[str, Any], found: Found) -> None:
    """Add email and phone of a person's traits; values that are no text or number, or too long, identify nobody."""
    for name in (EMAIL, PHONE):
        value = traits.get(name)
        if value is not None:
            _add(name, value, found)


def of_context(context: Mapping[str, Any], found: Found) -> None:
    """Add external ids, traits, click ids and browser ids in a context.

    Raises:
        InvalidIdentifier: INVALID_TYPE, INVALID_NAMESPACE or TOO_LONG, for external ids, which a sender gives on
            purpose; everything else that is odd identifies nobody.
    """
    get = context.get
    external = get("externalIds")
    if external is not None:
        _external(external, found)
    traits = get("traits")
    if isinstance(traits, dict):
        of_traits(traits, found)
    click_ids = get("clickIds")
    if isinstance(click_ids, dict):
        _known(click_ids, found)
    if not _IN_CONTEXT.isdisjoint(context):
        _known(context, found)
    page = get("page")
    if isinstance(page, dict):
        for name in ("url", "search"):
            text = page.get(name)
            if isinstance(text, str) and "?" in text:
                _of_url(text, found)
                break


def as_text(value: Any) -> str:
    """A text or number as an identifier's trimmed value; "" for anything else."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _external(entries: Any, found: Found) -> None:
    if not isinstance(entries, list):
        raise InvalidIdentifier(INVALID_TYPE, "context.externalIds must be an array.", "context.externalIds")
    for entry in entries:
        namespace = entry.get("type") if isinstance(entry, dict) else None
        if not isinstance(namespace, str):
            raise InvalidIdentifier(
                INVALID_TYPE,
                'Each entry of context.externalIds must be an object with "type" and "id".',
                "context.externalIds",
            )
        if entry.get("collection", _PEOPLE) not in {_PEOPLE, None}:
            continue  # ids of accounts identify companies
        value = as_text(entry.get("id"))
        if not value:
            continue
        namespace = namespace.strip()
        check_namespace(namespace, "context.externalIds")
        if len(value) > MAX_VALUE_LENGTH:
            raise InvalidIdentifier(
                TOO_LONG,
                f"An identifier has at most {MAX_VALUE_LENGTH} characters.",
                "context.externalIds",
            )
        found[namespace, value] = None


def check_namespace(namespace: str, field: str) -> None:
    """Refuse what is no namespace: empty, too long, or with control characters.

    Raises:
        InvalidIdentifier: INVALID_NAMESPACE.
    """
    if not 1 <= len(namespace) <= MAX_NAMESPACE_LENGTH or has_control(namespace):
        raise InvalidIdentifier(
            INVALID_NAMESPACE,
            f"The type of an identifier has 1 to {MAX_NAMESPACE_LENGTH} characters and no control characters.",
            field,
        )


def has_control(text: str) -> bool:
    """True when a text holds a control character (below U+0020, or U+007F)."""
    return not text.isprintable() and any(c < " " or c == "\x7f" for c in text)


def _known(values: Mapping[str, Any], found: Found) -> None:
    for name in sorted(_IN_CONTEXT & values.keys()):
        _add(name, values[name], found)


def _of_url(url: str, found: Found) -> None:
    if _CLICK_ID.search(url) is None or len(url) > _MAX_URL:
        return
    try:
        pairs = parse_qsl(urlsplit(url).query, max_num_fields=100)
    except ValueError:
        return  # an address that is none, or one with hundreds of parameters
    for name, value in pairs:
        if name in _IN_URL:
            _add(name, value, found)


def _add(namespace: str, value: Any, found: Found) -> None:
    text = as_text(value)
    if text and len(text) <= MAX_VALUE_LENGTH:
        found[namespace, text] = None
