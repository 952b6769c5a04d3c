"""Templates of bodies: JSON in which ${path} stands for a value. Data in, data out: nothing is ever run.

A text that is exactly "${path}" becomes the value with its type (a number stays a number, an object an object; a
missing value is null). Elsewhere in a text a value is written in: text as it is, null as nothing, everything else as
JSON. The path is JMESPath over {"event": ..., "profile": ...}. "$${" stands for "${". Keys are taken as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

_PLACE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_DEEPEST = 50
_MOST_PLACES = 500

Render = Callable[[Mapping[str, Any]], Any]


class TemplateError(ValueError):
    """A template that cannot be used, or a value that it cannot take; the text quotes the template, never a value."""


class Template:
    """A compiled template."""

    def __init__(self, template: Any) -> None:
        """Compile a JSON value.

        Raises:
            TemplateError: A path is not valid, or the template is too deep or has too many places.
        """
        self._places = 0
        self._render = self._compile(template, 0)

    def render(self, document: Mapping[str, Any]) -> Any:
        """The JSON value for a document of the form {"event": ..., "profile": ...}.

        Raises:
            TemplateError: A function in a path is given a value of a type that it cannot take.
        """
        return self._render(document)

    def _compile(self, node: Any, depth: int) -> Render:
        if depth > _DEEPEST:
            raise TemplateError(f"nested deeper than {_DEEPEST} levels")
        if isinstance(node, dict):
            members = {str(name): self._compile(inner, depth + 1) for name, inner in node.items()}
            return lambda document: {name: inner(document) for name, inner in members.items()}
        if isinstance(node, list):
            elements = [self._compile(inner, depth + 1) for inner in node]
            return lambda document: [inner(document) for inner in elements]
        if isinstance(node, str) and "${" in node:
            return self._compile_text(node)
        return lambda document: node

    def _compile_text(self, text: str) -> Render:
        whole = _PLACE.fullmatch(text)
        if whole is not None and whole[1] is not None:
            return self._compile_path(whole[1])
        pieces: list[str | Render] = []
        end = 0
        for match in _PLACE.finditer(text):
            pieces.append(_checked(text[end : match.start()]))
            pieces.append("${" if match[1] is None else self._compile_path(match[1]))
            end = match.end()
        pieces.append(_checked(text[end:]))
        return lambda document: "".join(
            piece if isinstance(piece, str) else _written(piece(document)) for piece in pieces
        )

    def _compile_path(self, path: str) -> Render:
        self._places += 1
        if self._places > _MOST_PLACES:
            raise TemplateError(f"more than {_MOST_PLACES} places")
        try:
            parsed = jmespath.compile(path)
        except JMESPathError:
            raise TemplateError(f"${{{path}}} is not a valid path") from None

        def find(document: Mapping[str, Any]) -> Any:
            try:
                return parsed.search(document)
            except (JMESPathError, ArithmeticError, TypeError, ValueError):
                raise TemplateError(f"${{{path}}} cannot take the value that it is given") from None

        return find


def _checked(text: str) -> str:
    """A piece of text between places."""
    if "${" in text:
        raise TemplateError("a ${ is not closed by a }, or has braces inside")
    return text


def _written(value: Any) -> str:
    """A value in the middle of a text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
