"""From the text form of a definition to its JSON, or an error that says at which place of the text and what to do."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args
from lark.exceptions import VisitError

from headrace.domain.definitions import DefinitionError
from headrace_audience.language.parser import MAX_DEFINITION_BYTES, MAX_DEPTH, parse_definition
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

Json = dict[str, Any]


class TextError(DefinitionError):
    """A definition in text form is wrong at a place; `path` says the line and the column, both from 1."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__(f"line {line}, column {column}", reason)
        self.line = line
        self.column = column


def definition_json(source: str) -> str:
    """The JSON of a definition that is given as JSON or in text form; JSON is returned as it is, unread.

    Raises:
        TextError: It is neither.
    """
    return source if source.lstrip().startswith("{") else json.dumps(from_text(source), ensure_ascii=False)


def from_text(text: str) -> Json:
    """The JSON of a definition in text form; parse_definition() takes it.

    Raises:
        TextError: It is no definition.
    """
    if len(text) > MAX_DEFINITION_BYTES:
        raise TextError(1, 1, f"the definition is longer than {MAX_DEFINITION_BYTES // 1024} KiB")
    _check_depth(text)
    try:
        tree = _grammar().parse(text)
    except UnexpectedInput as error:
        raise _unexpected(text, error) from None
    reader = _Reader()
    try:
        definition: Json = reader.transform(tree)
    except RecursionError:  # "notnotnot a": words that are written as one are no words to _check_depth()
        raise TextError(1, 1, f"is nested more than {MAX_DEPTH} deep; flatten it or use another audience") from None
    except VisitError as error:
        if isinstance(error.orig_exc, TextError):
            raise error.orig_exc from None
        raise
    try:
        parse_definition(definition)
    except DefinitionError as error:
        line, column = _place_of(definition, error.path, reader.places)
        raise TextError(line, column, _reason(error)) from None
    return definition


def _check_depth(text: str) -> None:
    """Refuse what would be nested too deep before anything recursive reads it."""
    depths = [0]
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|#[^\n]*|[()]|[^\s"()#]+', text):
        word = found[0]
        if word.startswith("#"):
            continue
        if word == ")":
            if len(depths) > 1:
                depths.pop()
        elif word == "(":
            depths.append(depths[-1] + 1)
        elif word.lower() == "not":
            depths[-1] += 1
        else:
            depths[-1] = depths[-2] + 1 if len(depths) > 1 else 0
        if depths[-1] > 2 * MAX_DEPTH:
            line, column = _line_and_column(text, found.start())
            raise TextError(line, column, f"is nested more than {MAX_DEPTH} deep; flatten it or use another audience")


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
    hint = "; a name of several words stands in double quotes" if is_two else ""
    return TextError(line, column, f"{found}; expected {', '.join(expected)}{hint}")


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


def _place_of(definition: Json, path: str, places: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Where in the text the innermost thing of a path of the JSON stands."""
    place = (1, 1)
    found: Any = definition
    for key, index in re.findall(r"([A-Za-z_]+)|\[(\d+)\]", path):
        try:
            found = found[key] if key else found[int(index)]
        except (KeyError, IndexError, TypeError):
            break
        place = places.get(id(found), place)
    return place


def _reason(error: DefinitionError) -> str:
    last = error.path.rpartition(".")[2]
    return f"{last}: {error.reason}" if last and last != "where" else error.reason


@v_args(meta=True)
class _Reader(Transformer[Token, Any]):
    """Makes JSON of a tree, and remembers where its objects stand in the text."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[int, tuple[int, int]] = {}

    def _placed(self, meta: Any, found: Json) -> Json:
        self.places[id(found)] = (meta.line, meta.column)
        return found

    def start(self, meta: Any, children: list[Any]) -> Json:
        where, *options = children
        found: Json = {}
        for option in options:
            for key in option:
                if key in found:
                    raise TextError(meta.line, meta.column, f"{key} stands twice")
            found |= option
        return {**found, "where": where}

    def kind(self, meta: Any, children: list[Token]) -> Json:
        return {"kind": str(children[0])}

    def of(self, meta: Any, children: list[Token]) -> Json:
        return {"of": str(children[0])}

    def refresh(self, meta: Any, children: list[Token]) -> Json:
        return {"refresh": str(children[0])}

    def time_zone(self, meta: Any, children: list[str]) -> Json:
        return {"time_zone": children[0]}

    def any(self, meta: Any, children: list[Json]) -> Json:
        return children[0] if len(children) == 1 else self._placed(meta, {"any": children})

    def all(self, meta: Any, children: list[Json]) -> Json:
        return children[0] if len(children) == 1 else self._placed(meta, {"all": children})

    def any_listed(self, meta: Any, children: list[Json]) -> Json:
        return self._placed(meta, {"any": children})

    def all_listed(self, meta: Any, children: list[Json]) -> Json:
        return self._placed(meta, {"all": children})

    def not_(self, meta: Any, children: list[Json]) -> Json:
        return self._placed(meta, {"not": children[0]})

    def _leaf(self, meta: Any, key: str, children: list[Any]) -> Json:
        first, *rest = children
        found = {key: first}
        for part in rest:
            found |= part
        return self._placed(meta, found)

    def event(self, meta: Any, children: list[Any]) -> Json:
        return self._leaf(meta, "event", children)

    def first_time(self, meta: Any, children: list[Any]) -> Json:
        return self._leaf(meta, "first_time", children)

    def last_time(self, meta: Any, children: list[Any]) -> Json:
        return self._leaf(meta, "last_time", children)

    def stopped(self, meta: Any, children: list[Any]) -> Json:
        names, active, inactive = children
        return self._placed(meta, {"stopped": names, "active_within": active, "inactive_for": inactive})

    def restarted(self, meta: Any, children: list[Any]) -> Json:
        names, inactive, active = children
        return self._placed(meta, {"restarted": names, "inactive_for": inactive, "active_within": active})

    def regularly(self, meta: Any, children: list[Any]) -> Json:
        names, at_least, periods, period, *counts = children
        found = {
            "regularly": names,
            "period": period,
            "periods": _number(periods),
            "at_least": _number(at_least),
        }
        for one in counts:
            found |= one
        return self._placed(meta, found)

    def sequence(self, meta: Any, children: list[Any]) -> Json:
        steps = [child for child in children if "event" in child]
        found: Json = {"sequence": steps}
        for window in children[len(steps) :]:
            found |= window
        return self._placed(meta, found)

    def step(self, meta: Any, children: list[Any]) -> Json:
        negated = children[0] == "negated"
        names, *parts = children[1:] if negated else children
        found: Json = {"event": names}
        for part in parts:
            found |= part
        if negated:
            found["negated"] = True
        return self._placed(meta, found)

    def negated(self, meta: Any, children: list[Any]) -> str:
        return "negated"

    def step_within(self, meta: Any, children: list[str]) -> Json:
        return {"within": children[0]}

    def step_same(self, meta: Any, children: list[str]) -> Json:
        return {"same": children[0] if len(children) == 1 else children}

    def names(self, meta: Any, children: list[str]) -> str | list[str]:
        return children[0]

    def names_listed(self, meta: Any, children: list[str]) -> list[str]:
        return children

    def where(self, meta: Any, children: list[Json]) -> Json:
        return {"where": children}

    def predicate(self, meta: Any, children: list[Any]) -> Json:
        name, test = children
        return self._placed(meta, {"property": name, **test})

    def last(self, meta: Any, children: list[str]) -> Json:
        return {"within": children[0], **({"older_than": children[1]} if len(children) > 1 else {})}

    def since(self, meta: Any, children: list[str]) -> Json:
        return {"since": children[0]}

    def between(self, meta: Any, children: list[str]) -> Json:
        return {"between": children}

    def aggregate(self, meta: Any, children: list[Json]) -> Json:
        return children[0]

    def count(self, meta: Any, children: list[Json]) -> Json:
        return {"count": children[0]}

    def function(self, meta: Any, children: list[Any]) -> Json:
        function, name, comparison = children
        return {str(function).lower(): {"of": name, **comparison}}

    def trait(self, meta: Any, children: list[Any]) -> Json:
        return self._placed(meta, {"trait": children[0], **children[1]})

    def any_member(self, meta: Any, children: list[Any]) -> Json:
        return self._placed(meta, {"members": "any", "where": children[0]})

    def all_members(self, meta: Any, children: list[Any]) -> Json:
        return self._placed(meta, {"members": "all", "where": children[0]})

    def no_member(self, meta: Any, children: list[Any]) -> Json:
        return self._placed(meta, {"members": "none", "where": children[0]})

    def first_touch(self, meta: Any, children: list[Any]) -> Json:
        return self._placed(meta, {"first_touch": children[0], **children[1]})

    def last_touch(self, meta: Any, children: list[Any]) -> Json:
        return self._placed(meta, {"last_touch": children[0], **children[1]})

    def computed(self, meta: Any, children: list[Any]) -> Json:
        return self._placed(meta, {"computed": children[0], **children[1]})

    def consent(self, meta: Any, children: list[Any]) -> Json:
        return self._placed(meta, {"consent": children[0], **children[1]})

    def identifier(self, meta: Any, children: list[Any]) -> Json:
        return self._placed(meta, {"identifier": children[0], **children[1]})

    def audience(self, meta: Any, children: list[str]) -> Json:
        return self._placed(meta, {"audience": children[0]})

    def test(self, meta: Any, children: list[Any]) -> Json:
        return {**children[0], **({"ignore_case": True} if len(children) > 1 else {})}

    def ignoring(self, meta: Any, children: list[Any]) -> bool:
        return True

    def compare(self, meta: Any, children: list[Any]) -> Json:
        return {_OPERATORS[str(children[0])]: children[1]}

    def compare_between(self, meta: Any, children: list[Any]) -> Json:
        return {"between": children}

    def compare_in(self, meta: Any, children: list[Any]) -> Json:
        return {"in": children}

    def compare_not_in(self, meta: Any, children: list[Any]) -> Json:
        return {"not_in": children}

    def exists(self, meta: Any, children: list[Any]) -> Json:
        return {"exists": True}

    def not_exists(self, meta: Any, children: list[Any]) -> Json:
        return {"exists": False}

    def __default__(self, data: Any, children: list[Any], meta: Any) -> Any:
        """Comparisons with one operand are called as in the JSON."""
        if len(children) == 1:
            return {str(data): children[0]}
        return Tree(data, children, meta)

    def span(self, meta: Any, children: list[Token]) -> str:
        return str(children[0]).lower()

    def time(self, meta: Any, children: list[Any]) -> str:
        return str(children[0])

    def name(self, meta: Any, children: list[Any]) -> str:
        return str(children[0])

    def value(self, meta: Any, children: list[Any]) -> Any:
        (found,) = children
        if not isinstance(found, Token):
            return found
        if found.type == "NUMBER":
            return _number(found)
        if str(found).lower() == "null":
            reason = 'null is no value to compare with: write "not exists", or "null" in quotes for a text'
            raise TextError(meta.line, meta.column, reason)
        return {"true": True, "false": False}.get(str(found).lower(), str(found))

    def string(self, meta: Any, children: list[Token]) -> str:
        try:
            return str(json.loads(children[0]))
        except ValueError:
            raise TextError(meta.line, meta.column, "is no text as JSON writes it: look at its backslashes") from None


def _number(token: Token) -> int | float:
    found = json.loads(_as_json(str(token)))
    assert isinstance(found, int | float)
    return found


def _as_json(text: str) -> str:
    """A number without zeros in front, which JSON does not take."""
    return re.sub(r"^(-?)0+(?=\d)", r"\1", text)
