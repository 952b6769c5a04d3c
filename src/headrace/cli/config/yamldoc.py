"""YAML read as JSON-like values that remember where they stand, with variables of the environment filled in.

Only what JSON can hold: a date stays text, `yes` is a word and not a truth value, numbers are decimal. Keys that come
twice, tags and merge keys are refused, because each would change silently what a reader sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_DEPTH = 100
MAX_NODES = 200_000

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_STANDARD = "tag:yaml.org,2002:"
_SCALARS = {"str", "int", "float", "bool", "null", "timestamp", "merge", "value"}
_TRUTH = {"true": True, "True": True, "false": False, "False": False}
_NOTHING = {"", "~", "null", "Null", "NULL"}
_VARIABLE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")


@dataclass(frozen=True)
class Problem:
    """Something wrong in a file."""

    place: str
    """File and line."""
    text: str
    """What is wrong, and what to do."""

    def __str__(self) -> str:
        """As it is shown."""
        return f"{self.place}: {self.text}"


class ProblemsFound(Exception):
    """Files cannot be used; all that is wrong with them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass
class Document:
    """One document of a file."""

    place: str
    """File and line where it begins."""
    value: Any
    """Its value."""
    places: dict[str, str] = field(default_factory=dict)
    """File and line of each key of the first level."""


def read_documents(text: str, file: str, environment: Mapping[str, str]) -> list[Document]:
    """The documents of a file, empty ones left out.

    Args:
        text: The file's text.
        file: Its name, for errors.
        environment: Variables for `${NAME}`.

    Raises:
        ProblemsFound: It is no YAML, or holds what JSON cannot, or a variable is not set.
    """
    problems: list[Problem] = []
    documents: list[Document] = []
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            reader = _Reader(file, environment, problems)
            value = reader.value(node, 0)
            if value is not None:
                documents.append(Document(reader.place(node), value, dict(reader.key_places(node))))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        problems.append(Problem(f"{file}:{line}", f"no YAML: {error.problem or error.context}"))
    except yaml.YAMLError as error:  # of the reader: characters that YAML does not allow
        problems.append(Problem(f"{file}:1", f"no YAML: {str(error).splitlines()[0]}"))
    except RecursionError:
        problems.append(Problem(f"{file}:1", "nested too deeply"))
    if problems:
        raise ProblemsFound(problems)
    return documents


def write_document(value: Any) -> str:
    """A value as YAML that `read_documents` reads as the same value, without filling in variables."""
    return yaml.dump(_escaped(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110).rstrip("\n")


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub(r"\$(?=[${])", "$$", value)
    if isinstance(value, list):
        return [_escaped(v) for v in value]
    if isinstance(value, dict):
        return {k: _escaped(v) for k, v in value.items()}
    return value


class _Dumper(yaml.SafeDumper):
    """Writes each value where it is, without anchors, and quotes what other styles would change."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    if all(c.isprintable() or c == "\n" for c in text):
        return dumper.represent_str(text)
    # PyYAML's other styles fold separators such as U+0085 to spaces.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


_Dumper.add_representer(str, _represent_text)


class _Reader:
    """Turns nodes into values and notes problems."""

    def __init__(self, file: str, environment: Mapping[str, str], problems: list[Problem]) -> None:
        self._file = file
        self._environment = environment
        self._problems = problems
        self._nodes = 0

    def place(self, node: yaml.Node) -> str:
        return f"{self._file}:{node.start_mark.line + 1}"

    def key_places(self, node: yaml.Node) -> Iterator[tuple[str, str]]:
        if isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    yield key.value, self.place(key)

    def value(self, node: yaml.Node | None, depth: int) -> Any:
        if node is None:
            return None
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise ProblemsFound([Problem(self.place(node), "nested too deeply or too large")])
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        kind = node.tag.removeprefix(_STANDARD)
        if kind not in {"map", "seq"}:
            self._note(node, f"the tag {kind!r} is not allowed")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        return self._mapping(node, depth)

    def _mapping(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, inner in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                self._note(key, "a key must be a plain word")
                continue
            if key.value in found:
                self._note(key, f"the key {key.value!r} comes twice")
            found[key.value] = self.value(inner, depth + 1)
        return found

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_STANDARD)
        if kind not in _SCALARS:
            self._note(node, f"the tag {kind!r} is not allowed")
        if node.style is not None:  # quoted or a block: text, whatever it looks like
            return self._filled(node, text)
        if kind == "null" and text in _NOTHING:
            return None
        if kind == "bool" and text in _TRUTH:
            return _TRUTH[text]
        if kind == "int" and _INTEGER.fullmatch(text):
            return int(text)
        if kind == "float":
            if _NUMBER.fullmatch(text):
                return float(text)
            if text.lower().lstrip("+-") in {".inf", ".nan"}:
                self._note(node, f"{text} is no number that JSON can hold")
        return self._filled(node, text)

    def _filled(self, node: yaml.Node, text: str) -> str:
        if "$" not in text:
            return text

        def fill(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            if match[1] is None:
                self._note(node, "${ begins a variable: write ${NAME}, or $${ for the characters themselves")
                return ""
            if match[1] not in self._environment:
                self._note(node, f"the variable {match[1]} is not set in the environment")
                return ""
            return self._environment[match[1]]

        return _VARIABLE.sub(fill, text)

    def _note(self, node: yaml.Node, text: str) -> None:
        self._problems.append(Problem(self.place(node), text))
