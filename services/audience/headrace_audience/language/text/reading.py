"""From the text form of a definition to its JSON, or an error that says at which place of the text and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from lark import Lark, Token, Transformer, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args
from lark.exceptions import VisitError

from headrace.domain.definitions import DefinitionError, load_json
from headrace_audience.language.parser import (
    MAX_CONDITIONS,
    MAX_DEFINITION_BYTES,
    MAX_DEPTH,
    TOO_MANY_CONDITIONS,
    parse_definition,
)
from headrace_audience.language.text.printing import KEYWORDS

_OPERATORS = {"=": "eq", "!=": "neq", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_NAMED = {
    "WORD": "a name",
    "STRING": 'a text in quotes such as "Product viewed"',
    "NUMBER": "a number",
    "DURATION": "a duration such as 30d",
    "TIME": "a date such as 2026-01-31",
    "OPERATOR": "one of = != > >= < <=",
    "FUNCTION": "sum(...), avg(...), min(...), max(...) or distinct(...)",
    "$END": "the end",
}
_MOST_EXPECTED = 20
_MOST_JOINTS = 5 * MAX_CONDITIONS
"""More words "and", "or" and "then" than the most conditions have: some stand in a "between" of them."""
_MOST_WORDS = 25_000
"""A list of 10,000 entries has 20,000 words and commas; more than this takes the parser seconds."""

Json = dict[str, Any]


class TextError(DefinitionError):
    """A definition in text form is wrong at a place; `path` says the line and the column, both from 1."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__(f"line {line}, column {column}", reason)
        self.line = line
        self.column = column


@dataclass(frozen=True)
class ReadText:
    """A definition that was read from text."""

    definition: Json
    places: Mapping[str, tuple[int, int]]
    """Line and column, both from 1, of each part of it, by its path as in errors of parse_definition()."""

    def place_of(self, path: str) -> tuple[int, int]:
        """Where the innermost thing of a path of the JSON stands in the text."""
        return _place_of(path, self.places)


Check = Callable[[Json], object]
"""Refuses a definition by a DefinitionError, whose place is told in the text."""


def definition_json(source: str, check: Check = parse_definition) -> str:
    """The JSON of a definition that is given as JSON or in text form; JSON is returned as it is, unread.

    A byte order mark in front, which files of some editors begin with, is left out.

    Raises:
        TextError: It is neither.
    """
    source = source.removeprefix("\ufeff")
    return source if is_json(source) else json.dumps(from_text(source, check), ensure_ascii=False)


def is_json(source: str) -> bool:
    """Whether a definition is given as JSON rather than in text form. Raises TextError, a JSON array is neither."""
    if source.lstrip().startswith("["):
        line, column = _line_and_column(source, source.index("["))
        raise TextError(line, column, 'a JSON array is no definition, which is an object such as {"where": ...}')
    return source.lstrip().startswith("{")


def from_text(text: str, check: Check = parse_definition) -> Json:
    """The JSON of a definition in text form; parse_definition() takes it, and `check`.

    Raises:
        TextError: It is no definition.
    """
    return read_text(text, check).definition


def read_text(text: str, check: Check = parse_definition) -> ReadText:
    """The JSON of a definition in text form, and where each part of it stands; as from_text()."""
    if len(text) > MAX_DEFINITION_BYTES:
        raise TextError(1, 1, f"the definition is longer than {MAX_DEFINITION_BYTES // 1024} KiB")
    _check_size(text)
    try:
        tree = _grammar().parse(text)
    except UnexpectedInput as error:
        raise _unexpected(text, error) from None
    places: dict[str, tuple[int, int]] = {}
    try:
        definition: Json = _unwrapped(_Reader().transform(tree), "", places)
    except RecursionError:  # "notnotnot a": words that are written as one are no words to _check_size()
        raise TextError(1, 1, f"is nested more than {MAX_DEPTH} deep; flatten it or use another audience") from None
    except VisitError as error:
        if isinstance(error.orig_exc, TextError):
            raise error.orig_exc from None
        raise
    try:
        check(definition)
    except DefinitionError as error:
        line, column = _place_of(error.path, places)
        raise TextError(line, column, _reason(error)) from None
    return ReadText(definition, places)


def _check_size(text: str) -> None:
    """Refuse what is nested too deep for anything recursive to read, or so much that reading it takes seconds."""
    depths = [0]
    words = joints = 0
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|#[^\n]*|[(),]|[<>=!]+|[^\s"(),#<>=!]+', text):
        word = found[0]
        if word.startswith("#"):
            continue
        words += 1
        if word == ")":
            if len(depths) > 1:
                depths.pop()
        elif word == "(":
            depths.append(depths[-1] + 1)
        elif word.lower() == "not":
            depths[-1] += 1
        else:
            depths[-1] = depths[-2] + 1 if len(depths) > 1 else 0
            joints += word.lower() in ("and", "or", "then")
        reason = ""
        if depths[-1] > 2 * MAX_DEPTH:
            reason = f"is nested more than {MAX_DEPTH} deep; flatten it or use another audience"
        elif joints > _MOST_JOINTS:
            reason = TOO_MANY_CONDITIONS
        elif words > _MOST_WORDS:
            reason = f"there are more than {_MOST_WORDS} words and signs; give so long a definition as JSON"
        if reason:
            raise TextError(*_line_and_column(text, found.start()), reason)


@lru_cache(maxsize=1)
def _grammar() -> Lark:
    grammar = files(__package__).joinpath("grammar.lark").read_text()
    return Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=False)


def _line_and_column(text: str, place: int) -> tuple[int, int]:
    return text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)


def _unexpected(text: str, error: UnexpectedInput) -> TextError:
    place = error.pos_in_stream or 0
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    if at_end:
        line, column = _line_and_column(text, len(text.rstrip()))
        found = "the text ends here"
    else:
        line, column = error.line, error.column
        found = f"{_shown(text, place)} is not expected here"
    accepted = _accepted(text, place, error)
    expected = sorted({_NAMED.get(name) or _written(name) for name in accepted})
    if len(expected) > _MOST_EXPECTED:
        expected = [*expected[:_MOST_EXPECTED], "..."]
    before = re.search(r"([\w.\-]+)\s+$", text[:place])
    is_word = isinstance(error, UnexpectedToken) and error.token.type == "WORD"
    is_two = is_word and before is not None and before[1].lower() not in KEYWORDS
    hint = _hint(text[place:], accepted) or ("a name of several words stands in double quotes" if is_two else "")
    return TextError(line, column, f"{found}; expected {', '.join(expected)}{f'; {hint}' if hint else ''}")


_HINTS = (
    (r"where\b", "where comes right after the event, ahead of its window"),
    (r"(within|last|past|during)\b", "a window is written as in last 7d"),
    (r"\d+ *(second|minute|hour|day|week)s?\b", "a duration is a number and one letter: 7d, 12h, 2w"),
    (r"\d+ *(month|year)s?\b", "months and years are written in days: 30d, 365d"),
    (r"(in|since|between|until)\b", "a window comes ahead of count, sum and the like"),
    (r"=|is\b|equals?\b", "one = compares"),
)
"""What people write, and what to write instead."""


def _hint(rest: str, accepted: set[str]) -> str:
    """What to write instead of what a rest of a text begins with, where that is often written; else empty."""
    if "END" in accepted or "$END" in accepted or re.match(r"[\d=]|is\b|equals?\b", rest):
        return next((hint for pattern, hint in _HINTS if re.match(pattern, rest, re.IGNORECASE)), "")
    return ""


def _accepted(text: str, place: int, error: UnexpectedInput) -> set[str]:
    """The terminals that could stand at a place where something else stands."""
    if isinstance(error, UnexpectedToken):
        return set(error.accepts or error.expected)
    parser = _grammar().parse_interactive(text[:place])
    try:
        parser.exhaust_lexer()
    except UnexpectedInput:  # what ends here is another word than with what follows
        return set(error.allowed or ()) if isinstance(error, UnexpectedCharacters) else set()
    return set(parser.accepts())  # type: ignore[no-untyped-call]  # lark has no types there


def _written(terminal: str) -> str:
    """A word or sign of the grammar as it is written."""
    text = str(_grammar().get_terminal(terminal).pattern.value)
    return text if text.isalpha() else f'"{text}"'


def _shown(text: str, place: int) -> str:
    word = re.match(r'"[^"\n]{0,40}"?|[\w.\-]{1,40}|.', text[place:], re.DOTALL)
    return repr(word[0]) if word else "this"


def _place_of(path: str, places: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """Where in the text the innermost thing of a path of the JSON stands."""
    while path and path not in places:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return places.get(path, (1, 1))


def _reason(error: DefinitionError) -> str:
    last = error.path.rpartition(".")[2]
    return f"{last}: {error.reason}" if last and last != "where" else error.reason


class _Placed(NamedTuple):
    """Something of the JSON, and where it begins in the text; what is inside of it is placed itself."""

    value: Any
    line: int
    column: int


Fields = dict[str, _Placed]
"""Keys of an object with what they hold."""


def _unwrapped(placed: _Placed, path: str, places: dict[str, tuple[int, int]]) -> Any:
    """The JSON; `places` gets where each part of it stands, by its path as in errors of parse_definition()."""
    places[path] = placed.line, placed.column
    if isinstance(placed.value, dict):
        return {k: _unwrapped(v, f"{path}.{k}" if path else k, places) for k, v in placed.value.items()}
    if isinstance(placed.value, list):
        return [_unwrapped(v, f"{path}[{i}]", places) for i, v in enumerate(placed.value)]
    return placed.value


def _listed(children: list[_Placed]) -> _Placed:
    return children[0]._replace(value=children)


@v_args(meta=True)
class _Reader(Transformer[Token, Any]):
    """Makes JSON of a tree, with the place of each part of it."""

    def _placed(self, meta: Any, found: Any) -> _Placed:
        return _Placed(found, meta.line, meta.column)

    def start(self, meta: Any, children: list[Any]) -> _Placed:
        where, *options = children
        found: Fields = {}
        for option in options:
            for key, value in option.items():
                if key in found:
                    raise TextError(value.line, value.column, f"{key} stands twice")
            found |= option
        return self._placed(meta, {**found, "where": where})

    def kind(self, meta: Any, children: list[Token]) -> Fields:
        return {"kind": _text_of(children[0])}

    def of(self, meta: Any, children: list[Token]) -> Fields:
        return {"of": _text_of(children[0])}

    def refresh(self, meta: Any, children: list[Token]) -> Fields:
        return {"refresh": _text_of(children[0])}

    def time_zone(self, meta: Any, children: list[_Placed]) -> Fields:
        return {"time_zone": children[0]}

    def any(self, meta: Any, children: list[_Placed]) -> _Placed:
        return children[0] if len(children) == 1 else self.any_listed(meta, children)

    def all(self, meta: Any, children: list[_Placed]) -> _Placed:
        return children[0] if len(children) == 1 else self.all_listed(meta, children)

    def any_listed(self, meta: Any, children: list[_Placed]) -> _Placed:
        return self._placed(meta, {"any": _listed(children)})

    def all_listed(self, meta: Any, children: list[_Placed]) -> _Placed:
        return self._placed(meta, {"all": _listed(children)})

    def not_(self, meta: Any, children: list[_Placed]) -> _Placed:
        return self._placed(meta, {"not": children[0]})

    def _leaf(self, meta: Any, key: str, children: list[Any]) -> _Placed:
        first, *rest = children
        found: Fields = {key: first}
        for part in rest:
            found |= part
        return self._placed(meta, found)

    def event(self, meta: Any, children: list[Any]) -> _Placed:
        return self._leaf(meta, "event", children)

    def first_time(self, meta: Any, children: list[Any]) -> _Placed:
        return self._leaf(meta, "first_time", children)

    def last_time(self, meta: Any, children: list[Any]) -> _Placed:
        return self._leaf(meta, "last_time", children)

    def stopped(self, meta: Any, children: list[_Placed]) -> _Placed:
        names, active, inactive = children
        return self._placed(meta, {"stopped": names, "active_within": active, "inactive_for": inactive})

    def restarted(self, meta: Any, children: list[_Placed]) -> _Placed:
        names, inactive, active = children
        return self._placed(meta, {"restarted": names, "inactive_for": inactive, "active_within": active})

    def regularly(self, meta: Any, children: list[Any]) -> _Placed:
        names, at_least, periods, period, *counts = children
        found: Fields = {
            "regularly": names,
            "period": period,
            "periods": _number_of(periods),
            "at_least": _number_of(at_least),
        }
        for one in counts:
            found |= one
        return self._placed(meta, found)

    def sequence(self, meta: Any, children: list[Any]) -> _Placed:
        steps = [child for child in children if isinstance(child, _Placed)]
        return self._leaf(meta, "sequence", [_listed(steps), *children[len(steps) :]])

    def step(self, meta: Any, children: list[Any]) -> _Placed:
        negated = [part for part in children if isinstance(part, dict) and "negated" in part]
        return self._leaf(meta, "event", [part for part in children if part not in negated] + negated)

    def negated(self, meta: Any, children: list[Any]) -> Fields:
        return {"negated": self._placed(meta, True)}

    def step_within(self, meta: Any, children: list[_Placed]) -> Fields:
        return {"within": children[0]}

    def step_same(self, meta: Any, children: list[_Placed]) -> Fields:
        return {"same": children[0] if len(children) == 1 else _listed(children)}

    def names(self, meta: Any, children: list[_Placed]) -> _Placed:
        return children[0]

    def names_listed(self, meta: Any, children: list[_Placed]) -> _Placed:
        return self._placed(meta, children)

    def where(self, meta: Any, children: list[_Placed]) -> Fields:
        return {"where": _listed(children)}

    def predicate(self, meta: Any, children: list[Any]) -> _Placed:
        return self._leaf(meta, "property", children)

    def last(self, meta: Any, children: list[_Placed]) -> Fields:
        return {"within": children[0], **({"older_than": children[1]} if len(children) > 1 else {})}

    def since(self, meta: Any, children: list[_Placed]) -> Fields:
        return {"since": children[0]}

    def between(self, meta: Any, children: list[_Placed]) -> Fields:
        return {"between": _listed(children)}

    def aggregate(self, meta: Any, children: list[Fields]) -> Fields:
        return children[0]

    def count(self, meta: Any, children: list[Fields]) -> Fields:
        return {"count": self._placed(meta, children[0])}

    def function(self, meta: Any, children: list[Any]) -> Fields:
        function, name, comparison = children
        return {str(function).lower(): self._placed(meta, {"of": name, **comparison})}

    def trait(self, meta: Any, children: list[Any]) -> _Placed:
        return self._leaf(meta, "trait", children)

    def any_member(self, meta: Any, children: list[_Placed]) -> _Placed:
        return self._members(meta, "any", children[0])

    def all_members(self, meta: Any, children: list[_Placed]) -> _Placed:
        return self._members(meta, "all", children[0])

    def no_member(self, meta: Any, children: list[_Placed]) -> _Placed:
        return self._members(meta, "none", children[0])

    def _members(self, meta: Any, quantifier: str, where: _Placed) -> _Placed:
        return self._placed(meta, {"members": self._placed(meta, quantifier), "where": where})

    def first_touch(self, meta: Any, children: list[Any]) -> _Placed:
        return self._leaf(meta, "first_touch", children)

    def last_touch(self, meta: Any, children: list[Any]) -> _Placed:
        return self._leaf(meta, "last_touch", children)

    def computed(self, meta: Any, children: list[Any]) -> _Placed:
        return self._leaf(meta, "computed", children)

    def consent(self, meta: Any, children: list[Any]) -> _Placed:
        return self._leaf(meta, "consent", children)

    def identifier(self, meta: Any, children: list[Any]) -> _Placed:
        return self._leaf(meta, "identifier", children)

    def audience(self, meta: Any, children: list[_Placed]) -> _Placed:
        return self._placed(meta, {"audience": children[0]})

    def test(self, meta: Any, children: list[Fields]) -> Fields:
        comparison, *ignoring = children
        return comparison | ignoring[0] if ignoring else comparison

    def ignoring(self, meta: Any, children: list[Any]) -> Fields:
        return {"ignore_case": self._placed(meta, True)}

    def compare(self, meta: Any, children: list[Any]) -> Fields:
        return {_OPERATORS[str(children[0])]: children[1]}

    def compare_between(self, meta: Any, children: list[_Placed]) -> Fields:
        return {"between": _listed(children)}

    def compare_in(self, meta: Any, children: list[_Placed]) -> Fields:
        return {"in": _listed(children)}

    def compare_not_in(self, meta: Any, children: list[_Placed]) -> Fields:
        return {"not_in": _listed(children)}

    def exists(self, meta: Any, children: list[Any]) -> Fields:
        return {"exists": self._placed(meta, True)}

    def not_exists(self, meta: Any, children: list[Any]) -> Fields:
        return {"exists": self._placed(meta, False)}

    def __default__(self, data: Any, children: list[Any], meta: Any) -> Any:
        """Comparisons with one operand are called as in the JSON."""
        if len(children) == 1:
            return {str(data): children[0]}
        return Tree(data, children, meta)

    def span(self, meta: Any, children: list[Token]) -> _Placed:
        return self._placed(meta, str(children[0]).lower())

    def time(self, meta: Any, children: list[Any]) -> _Placed:
        return _text_of(children[0])

    def name(self, meta: Any, children: list[Any]) -> _Placed:
        return _text_of(children[0])

    def value(self, meta: Any, children: list[Any]) -> _Placed:
        (found,) = children
        if isinstance(found, _Placed):
            return found
        if found.type == "NUMBER":
            return _number_of(found)
        if str(found).lower() == "null":
            reason = 'null is no value to compare with: write "not exists", or "null" in quotes for a text'
            raise TextError(meta.line, meta.column, reason)
        return self._placed(meta, {"true": True, "false": False}.get(str(found).lower(), str(found)))

    def string(self, meta: Any, children: list[Token]) -> _Placed:
        try:
            return self._placed(meta, str(json.loads(children[0])))
        except ValueError:
            raise TextError(meta.line, meta.column, "is no text as JSON writes it: look at its backslashes") from None


def _text_of(found: Token | _Placed) -> _Placed:
    """A word, or a text in quotes that is read already."""
    return found if isinstance(found, _Placed) else _Placed(str(found), found.line or 1, found.column or 1)


def _number_of(token: Token) -> _Placed:
    found = load_json(_as_json(str(token)), MAX_DEFINITION_BYTES)
    assert isinstance(found, int | float)
    return _Placed(found, token.line or 1, token.column or 1)


def _as_json(text: str) -> str:
    """A number without zeros in front, which JSON does not take."""
    return re.sub(r"^(-?)0+(?=\d)", r"\1", text)
