"""Secrets of settings: found by the JSON Schema, masked wherever shown, kept when a form sends the mask back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

MASK = "********"
"""What stands for a secret wherever settings and requests are shown."""

_SHORTEST_MASKED = 4
_MOST_SECRET_DEPTH = 32
T = TypeVar("T", str, bytes)


def mask_settings(schema: Mapping[str, Any], settings: Any) -> Any:
    """The settings for display: each secret that has a value is replaced by MASK.

    Args:
        schema: JSON Schema of the settings (`ConnectorInfo.settings_schema`).
        settings: The settings; left as they are.
    """
    return _map_secrets(schema, settings, lambda path, value: value if value in (None, "") else MASK)


def merge_masked(schema: Mapping[str, Any], new: Any, old: Any) -> Any:
    """New settings in which each secret that is given as MASK keeps its old value.

    Args:
        schema: JSON Schema of the settings.
        new: The settings as they came from someone who saw them masked.
        old: The settings as stored; None when there are none.

    Raises:
        ValueError: A secret is given as MASK and there is no old value to keep; the text names the setting.
    """

    def keep(path: tuple[str | int, ...], value: Any) -> Any:
        if value != MASK:
            return value
        found = old
        for step in path:
            found = _inner(found, step)
        if not isinstance(found, str) or not found:
            raise ValueError(f"{'.'.join(map(str, path))}: there is no earlier value that {MASK} could stand for")
        return found

    return _map_secrets(schema, new, keep)


def secrets_of(schema: Mapping[str, Any], settings: Any) -> list[str]:
    """All secrets in the settings, longest first, without empty ones."""
    found: set[str] = set()

    def collect(path: tuple[str | int, ...], value: Any) -> Any:
        if isinstance(value, str) and value:
            found.add(value)
        return value

    _map_secrets(schema, settings, collect)
    return sorted(found, key=lambda secret: (-len(secret), secret))


def mask(text: T, secrets: Iterable[str]) -> T:
    """The text with every secret replaced by MASK, also where it stands in Base64, percent-encoded or JSON-escaped.

    Secrets shorter than four characters are not looked for: they would tear holes into everything.
    """
    return Masker(secrets).mask(text)


class Masker:
    """Masks the same secrets in many texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Prepare the forms in which the secrets may appear."""
        self._texts = sorted(_forms(secrets), key=lambda form: (-len(form), form))
        self._bytes = [form.encode() for form in self._texts]

    @property
    def longest(self) -> int:
        """Bytes of the longest form, 0 when there is no secret."""
        return max(map(len, self._bytes), default=0)

    def mask(self, text: T) -> T:
        """The text with MASK in place of every secret."""
        if isinstance(text, str):
            for form in self._texts:
                text = text.replace(form, MASK)
            return text
        for raw in self._bytes:
            text = text.replace(raw, MASK.encode())
        return text


def _forms(secrets: Iterable[str]) -> set[str]:
    """The shapes in which secrets appear in requests and output."""
    forms: set[str] = set()
    for secret in secrets:
        if len(secret) >= _SHORTEST_MASKED:
            encoded = secret.encode("utf-8", "surrogatepass")
            forms |= {secret, quote(secret, safe="", errors="replace"), quote_plus(secret, errors="replace")}
            forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
            forms |= {base64.b64encode(encoded).decode(), base64.urlsafe_b64encode(encoded).decode()}
    return {form for form in forms if _encodable(form)}


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _map_secrets(schema: Mapping[str, Any], value: Any, change: Callable[[tuple[str | int, ...], Any], Any]) -> Any:
    """A copy of the value in which `change(path, value)` was applied to each place that the schema calls a secret."""
    definitions = schema.get("$defs", {})

    def walk(nodes: list[Mapping[str, Any]], item: Any, path: tuple[str | int, ...]) -> Any:
        flat = _alternatives(nodes, definitions)
        if any(_is_secret(node) for node in flat) and not isinstance(item, Mapping | list):
            return change(path, item)
        if isinstance(item, Mapping):
            return {name: walk(_members(flat, name), inner, (*path, name)) for name, inner in item.items()}
        if isinstance(item, list):
            return [walk(_elements(flat, at), inner, (*path, at)) for at, inner in enumerate(item)]
        return item

    return walk([schema], value, ())


def _inner(value: Any, step: str | int) -> Any:
    """A member of an object or an element of an array; None when it is not there."""
    if isinstance(value, Mapping):
        return value.get(step)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def _is_secret(node: Mapping[str, Any]) -> bool:
    return bool(node.get("writeOnly")) or node.get("format") == "password"


def _alternatives(nodes: list[Mapping[str, Any]], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The nodes with references followed and unions taken apart: what any of them may say holds."""
    flat: list[Mapping[str, Any]] = []
    waiting = [(node, 0) for node in nodes]
    while waiting:
        node, depth = waiting.pop()
        if not isinstance(node, Mapping) or depth > _MOST_SECRET_DEPTH:
            continue
        flat.append(node)
        reference = node.get("$ref")
        if isinstance(reference, str):
            waiting.append((definitions.get(reference.rpartition("/")[2], {}), depth + 1))
        for kind in ("anyOf", "oneOf", "allOf"):
            waiting += [(inner, depth + 1) for inner in node.get(kind, ())]
    return flat


def _members(nodes: list[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """What the nodes say about a member of an object."""
    found = []
    for node in nodes:
        if name in node.get("properties", {}):
            found.append(node["properties"][name])
        elif isinstance(node.get("additionalProperties"), Mapping):
            found.append(node["additionalProperties"])
    return found


def _elements(nodes: list[Mapping[str, Any]], at: int) -> list[Mapping[str, Any]]:
    """What the nodes say about an element of an array."""
    found = []
    for node in nodes:
        fixed = node.get("prefixItems", ())
        if at < len(fixed):
            found.append(fixed[at])
        elif isinstance(node.get("items"), Mapping):
            found.append(node["items"])
    return found
