"""What may be kept of a request and its answer: no personal data, digests shortened, everything cut. Pure.

What is personal is known in two ways: the values of the people whose items a request carries, wherever they stand in
it, and the names and shapes that personal data has in any vendor's API. Text without a structure that names its parts
is kept only where it is the vendor's own words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import msgspec

from headrace_sdk import EventItem, Row, Subject

LONGEST_BODY = 8_000
"""Characters that are kept of a request's body."""
LONGEST_ANSWER = 4_000
"""Characters that are kept of an answer's body."""

_LONGEST_TEXT = 200
_MOST_ELEMENTS = 20
_DEEPEST = 32
_SHORTEST_VALUE = 3
_MOST_LOOKED_FOR = 1_000
"""Values that are looked for inside of texts: a request with more people than that names none in its address."""

_SHAPES = re.compile(
    r"(?P<email>[^\s@\"'<>,;=/?&]+(?:@|%40)[^\s@\"'<>,;=/?&]+)"
    r"|(?P<digest>(?<![0-9a-zA-Z])[0-9a-fA-F]{32,}(?![0-9a-zA-Z]))"
    r"|(?P<ip>(?<![0-9.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9.]))"
    r"|(?P<number>\+[0-9][0-9 ()./-]{5,}[0-9]|(?<![0-9.a-zA-Z])[0-9]{7,}(?![0-9a-zA-Z]))"
)
_PERSONAL = frozenset(
    name
    for names in (
        "address address1 address2 addressline1 addressline2 city ct postalcode st state street streetaddress zip",
        "zipcode zp birthday birthdate dateofbirth db dob ge gender",
        "email em emailaddress emails mobile ph phone phonenumber phones sms",
        "firstname fn fullname familyname givenname lastname ln surname username",
        "anonymousid clientid externalid fbc fbp gbraid gclid identifier lifatid ttclid ttp userid wbraid",
        "clientipaddress clientuseragent ip ipaddress latitude longitude useragent",
    )
    for name in names.split()
)
"""Names of members that hold personal data, without case and signs."""


def personal_values(items: Iterable[EventItem | Row | Subject]) -> frozenset[str]:
    """What is personal of the people whose items a request carries, in the form in which values are compared."""
    found: set[str] = set()
    for item in items:
        if isinstance(item, EventItem):
            _collect([item.identifiers, item.traits, item.previous_id], found)
            _collect([item.context.get("ip"), item.context.get("userAgent"), item.context.get("traits")], found)
            if item.profile is not None:
                _collect([item.profile.id, item.profile.identifiers, item.profile.traits], found)
        elif isinstance(item, Row):
            _collect(item.data, found)
        else:
            _collect([item.profile_id, item.identifiers, item.merged_ids], found)
    return frozenset(found)


def shown_url(url: str, personal: Set[str]) -> str:
    """An address; its host is the vendor's."""
    host = re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*", url)
    end = host.end() if host else 0
    return _cut(url[:end] + _words(url[end:], personal), _LONGEST_TEXT * 2)


def shown_headers(headers: Mapping[str, str], personal: Set[str]) -> dict[str, str]:
    """Headers by name."""
    return {name: _text("", value, personal) for name, value in headers.items()}


def shown_body(body: str, content_type: str, personal: Set[str]) -> str:
    """The body of a request, secrets masked before."""
    if not body:
        return ""
    found = _document(body)
    if found is not None:
        return _cut(_dump(_masked("", found, personal, 0)), LONGEST_BODY)
    lines = [_document(line) for line in body.splitlines()[: _MOST_ELEMENTS + 1]]
    if len(lines) > 1 and all(line is not None for line in lines):
        shown = [_dump(_masked("", line, personal, 0)) for line in lines[:_MOST_ELEMENTS]]
        return _cut("\n".join([*shown, *(["..."] if len(lines) > _MOST_ELEMENTS else [])]), LONGEST_BODY)
    if "form-urlencoded" in content_type:
        pairs = parse_qsl(body, keep_blank_values=True)[:_MOST_ELEMENTS]
        return _cut(
            urlencode([(name, _text(name, value, personal)) for name, value in pairs], safe="()*."), LONGEST_BODY
        )
    return f"({len(body):,} characters)"


def shown_answer(body: bytes, personal: Set[str]) -> str:
    """The body of an answer, secrets masked before: its structure, or the vendor's words."""
    text = body.decode("utf-8", "replace")
    found = _document(text)
    if found is not None:
        return _cut(_dump(_masked("", found, personal, 0)), LONGEST_ANSWER)
    return _cut(_words(" ".join(text[: 2 * LONGEST_ANSWER].split()), personal), LONGEST_ANSWER)


def _document(text: str) -> Any:
    """The object or array in a text; None when it is something else."""
    try:
        found = msgspec.json.decode(text.encode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def _masked(name: str, value: Any, personal: Set[str], depth: int) -> Any:
    if depth > _DEEPEST:
        return "..."
    if isinstance(value, dict):
        return {_words(key, personal): _masked(key, inner, personal, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        shown = [_masked(name, inner, personal, depth + 1) for inner in value[:_MOST_ELEMENTS]]
        return [*shown, f"... and {len(value) - _MOST_ELEMENTS:,} more"] if len(value) > _MOST_ELEMENTS else shown
    if isinstance(value, str):
        return _text(name, value, personal)
    if value is None or isinstance(value, bool):
        return value
    return _kind(name) if _is_personal(name) or _compared(value) in personal else value


def _text(name: str, value: str, personal: Set[str]) -> str:
    """A text at a name."""
    if not value:
        return value
    whole = _SHAPES.fullmatch(value)
    if whole is not None:
        return _shape(whole)
    if _is_personal(name) or _compared(value) in personal:
        return _kind(name)
    if len(value) > _LONGEST_TEXT:
        return f"({len(value):,} characters)"
    return _words(value, personal)


def _words(text: str, personal: Set[str]) -> str:
    """A text that may name people anywhere in it."""
    text = _SHAPES.sub(_shape, text)
    if len(personal) <= _MOST_LOOKED_FOR:
        lower = text.lower()
        for form in _forms(frozenset(personal)):
            if form in lower:
                text = re.sub(rf"(?<![0-9a-zA-Z]){re.escape(form)}(?![0-9a-zA-Z])", "(personal)", text, flags=re.I)
                lower = text.lower()
    return text


@lru_cache(maxsize=1)  # a request has many texts, and the same people in all of them
def _forms(personal: frozenset[str]) -> tuple[str, ...]:
    """What is looked for inside of texts: values as they are, and as addresses have them, the longest first."""
    forms = {form for one in personal if len(one) >= _SHORTEST_VALUE for form in (one, quote(one, safe="").lower())}
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))


def _shape(found: re.Match[str]) -> str:
    kind = found.lastgroup or "personal"
    return f"{found.group()[:8]}..." if kind == "digest" else f"({kind})"


def _is_personal(name: str) -> bool:
    return re.sub(r"[^a-z0-9]", "", name.lower()) in _PERSONAL


def _kind(name: str) -> str:
    return f"({name})" if re.fullmatch(r"[A-Za-z0-9_.$-]{1,40}", name) else "(personal)"


def _collect(value: Any, found: set[str]) -> None:
    if isinstance(value, Mapping):
        for inner in value.values():
            _collect(inner, found)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            _collect(inner, found)
    elif value is not None and not isinstance(value, bool):
        found.add(_compared(value))
    found.discard("")


def _compared(value: Any) -> str:
    return str(value).strip().lower()


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."
