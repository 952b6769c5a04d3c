"""Settings from their JSON Schema, for `headrace_sdk.samples`: what is required, in any shape that pydantic writes."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

_DEEPEST = 16
_LENGTH = 12


class SampleError(ValueError):
    """No valid sample can be made; the text names the settings, and holds no value."""


def settings_by_schema(schema: Mapping[str, Any], chance: random.Random) -> dict[str, Any]:
    """Settings that hold to the schema: all that are required, no others.

    Args:
        schema: Of an object.
        chance: Where values come from.

    Raises:
        SampleError: A text has a pattern that no usual text meets, or the schema nests without an end.
    """
    made = _Maker(schema.get("$defs", {}), chance).value(schema, "", 0)
    if not isinstance(made, dict):
        raise SampleError("the schema of the settings is none of an object")
    return made


class _Maker:
    """Makes values that hold to the nodes of one schema."""

    def __init__(self, definitions: Mapping[str, Any], chance: random.Random) -> None:
        self._definitions = definitions
        self._chance = chance

    def value(self, node: Mapping[str, Any], name: str, depth: int) -> Any:
        """A value for a node.

        Args:
            node: Of the schema.
            name: Dotted path of the setting.
            depth: Nodes above it.
        """
        if depth > _DEEPEST:
            raise SampleError(f"{name} nests without an end: give it examples")
        if node.get("examples"):
            return self._chance.choice(node["examples"])
        if "const" in node:
            return node["const"]
        if "enum" in node:
            return self._chance.choice(node["enum"])
        if "$ref" in node:
            definition = self._definitions.get(node["$ref"].rpartition("/")[2], {})
            return self.value(definition, name, depth + 1)
        for kind in ("anyOf", "oneOf", "allOf"):
            if node.get(kind):
                return self.value(node[kind][0], name, depth + 1)
        match node.get("type"):
            case "object" | None if "properties" in node or "additionalProperties" in node:
                return self._object(node, name, depth)
            case "array":
                inner = node.get("items", {"type": "string"})
                return [self.value(inner, f"{name}.{at}", depth + 1) for at in range(node.get("minItems", 0))]
            case "boolean":
                return self._chance.choice((True, False))
            case "integer" | "number" as kind:
                return self._number(node, whole=kind == "integer")
            case "null":
                return None
            case "object":
                return {}
            case _:
                return self._text(node, name)

    def _object(self, node: Mapping[str, Any], name: str, depth: int) -> dict[str, Any]:
        required = set(node.get("required", ()))
        made = {
            key: self.value(inner, f"{name}.{key}".lstrip("."), depth + 1)
            for key, inner in node.get("properties", {}).items()
            if key in required
        }
        more = node.get("additionalProperties")
        for at in range(len(made), node.get("minProperties", 0)):
            inner = more if isinstance(more, Mapping) else {"type": "string"}
            made[f"sample {at}"] = self.value(inner, f"{name}.{at}".lstrip("."), depth + 1)
        return made

    def _number(self, node: Mapping[str, Any], *, whole: bool) -> float:
        low = node.get("minimum", node.get("exclusiveMinimum", 0) + (1 if "exclusiveMinimum" in node else 0))
        high = node.get("maximum", node.get("exclusiveMaximum", low + 101) - (1 if "exclusiveMaximum" in node else 0))
        if whole:
            return self._chance.randint(int(low), max(int(high), int(low)))
        return self._chance.uniform(low, max(high, low))

    def _text(self, node: Mapping[str, Any], name: str) -> str:
        least, most = node.get("minLength", 1), node.get("maxLength", 2_000)
        pattern = re.compile(node.get("pattern", ""))
        for text in self._candidates(node, name.rpartition(".")[2], max(least, min(most, _LENGTH))):
            if least <= len(text) <= most and pattern.search(text):
                return text
        raise SampleError(f"no usual text meets the pattern of {name}: give it examples")

    def _candidates(self, node: Mapping[str, Any], name: str, length: int) -> list[str]:
        """Texts of the usual kinds, the likeliest first; secrets can be told from everything else."""
        letters = "".join(self._chance.choices("abcdefghijklmnopqrstuvwxyz", k=length))
        digits = "".join(self._chance.choices("123456789", k=length))
        usual = [letters, digits, letters.upper(), digits[:6], digits[:1], letters.upper()[:3], letters.upper()[:2]]
        usual += [
            f"v{digits[:2]}.0",
            f"{digits[:1]}.0",
            f"2026{self._chance.randint(10, 12)}",
            f"{letters[:1]}-{digits}",
        ]
        if node.get("format") == "password":
            usual.insert(0, f"sample-secret-{letters}{digits}"[:2_000])
        if node.get("format") in ("uri", "uri-reference") or name == "url" or name.endswith("_url"):
            usual.insert(0, f"https://{letters}.example/v1")
        if node.get("format") == "email" or name == "email":
            usual.insert(0, f"{letters}@example.com")
        return usual
