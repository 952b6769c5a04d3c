"""From the JSON of a definition to its text form; reading it gives the same definition again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.domain.definitions import OPS

WIDTH = 100
"""Longer texts are broken after "and" and "or" of the outermost level."""

KEYWORDS = frozenset(
    """
    active after ago all and any at audience avg before between case computed consent contains count distinct ends
    exists first for identifier ignoring in inactive kind last least matches max member members min next no not of
    or performed periods refresh regularly restarted same sequence since starts stopped sum then time touch trait
    until where with within zone
    """.split()  # noqa: SIM905  # as a list of literals it would be forty lines
)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+)?(Z|[+-][0-9]{2}:?[0-9]{2})?")
_SIGNS = {"eq": "=", "neq": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_WORDS = {
    "contains": "contains",
    "not_contains": "not contains",
    "starts_with": "starts with",
    "ends_with": "ends with",
    "matches": "matches",
}
_QUANTIFIERS = {"any": "any member", "all": "all members", "none": "no member"}
_TESTED = ("trait", "computed", "consent", "identifier", "first_touch", "last_touch")
_AGGREGATES = ("sum", "avg", "min", "max", "distinct")


def to_text(definition: Mapping[str, Any]) -> str:
    """The text form of a definition.

    Args:
        definition: Its JSON, decoded; one that parse_definition() takes.
    """
    options = []
    for key in ("kind", "of"):
        if key in definition:
            options.append(f"{key} {definition[key]}")
    if "refresh" in definition:
        options.append(f"refresh {definition['refresh']}")
    if "time_zone" in definition:
        options.append(f"time zone {_quoted(definition['time_zone'])}")
    text = _condition(definition["where"], 0)
    return f"{text}{_break(text)}with {', '.join(options)}" if options else text


def condition_text(condition: Mapping[str, Any]) -> str:
    """The text form of one condition, on one line."""
    return _condition(condition, 1)


def _break(text: str) -> str:
    return "\n" if "\n" in text else " "


def _condition(raw: Mapping[str, Any], depth: int) -> str:
    for word in ("all", "any"):
        if word in raw:
            return _listed(word, raw[word], depth)
    if "not" in raw:
        inner = raw["not"]
        text = _condition(inner, depth + 1)
        return f"not ({text})" if _is_list(inner) else f"not {text}"
    return _leaf(raw)


def _is_list(raw: Mapping[str, Any]) -> bool:
    return any(len(raw[word]) > 1 for word in ("all", "any") if word in raw)


def _listed(word: str, parts: Sequence[Mapping[str, Any]], depth: int) -> str:
    if len(parts) == 1:
        return f"{word} ({_condition(parts[0], depth + 1)})"
    joint = "and" if word == "all" else "or"
    texts = [f"({_condition(p, depth + 1)})" if _is_list(p) else _condition(p, depth + 1) for p in parts]
    line = f" {joint} ".join(texts)
    return line if len(line) <= WIDTH or depth else f"\n{joint} ".join(texts)


def _leaf(raw: Mapping[str, Any]) -> str:
    if "event" in raw:
        return _joined("performed", _names(raw["event"]), _where(raw), _window(raw), _aggregate(raw))
    if "first_time" in raw:
        return _joined("first performed", _names(raw["first_time"]), _window(raw))
    if "last_time" in raw:
        return _joined("last performed", _names(raw["last_time"]), _where(raw), _window(raw))
    if "stopped" in raw:
        spans = f"active within {raw['active_within']} inactive for {raw['inactive_for']}"
        return _joined("stopped", _names(raw["stopped"]), spans)
    if "restarted" in raw:
        spans = f"inactive for {raw['inactive_for']} active within {raw['active_within']}"
        return _joined("restarted", _names(raw["restarted"]), spans)
    if "regularly" in raw:
        periods = f"in at least {raw['at_least']} of {raw['periods']} periods of {raw['period']}"
        return _joined("regularly", _names(raw["regularly"]), periods, _count(raw))
    if "sequence" in raw:
        return _joined(f"sequence ({' then '.join(map(_step, raw['sequence']))})", _window(raw))
    if "members" in raw:
        return f"{_QUANTIFIERS[raw['members']]} ({_condition(raw['where'], 1)})"
    if "audience" in raw:
        return f"in audience {_name(raw['audience'])}"
    kind = next(key for key in _TESTED if key in raw)
    return f"{kind.replace('_', ' ')} {_name(raw[kind])} {_test(raw)}"


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _step(raw: Mapping[str, Any]) -> str:
    within = f"within {raw['within']}" if "within" in raw else ""
    same = raw.get("same", [])
    listed = [same] if isinstance(same, str) else same
    compared = f"same ({', '.join(map(_name, listed))})" if listed else ""
    return _joined("not" if raw.get("negated") else "", _names(raw["event"]), _where(raw), within, compared)


def _names(raw: str | Sequence[str]) -> str:
    return _name(raw) if isinstance(raw, str) else f"({', '.join(map(_name, raw))})"


def _name(name: str) -> str:
    return name if _WORD.fullmatch(name) and name.lower() not in KEYWORDS else _quoted(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _time(text: str) -> str:
    return text if _TIME.fullmatch(text) else _quoted(text)


def _where(raw: Mapping[str, Any]) -> str:
    predicates = [f"{_name(p['property'])} {_test(p)}" for p in raw.get("where", ())]
    return f"where ({', '.join(predicates)})" if predicates else ""


def _window(raw: Mapping[str, Any]) -> str:
    if "within" in raw:
        until = f" until {raw['older_than']} ago" if "older_than" in raw else ""
        return f"in last {raw['within']}{until}"
    if "since" in raw:
        return f"since {_time(raw['since'])}"
    if "between" in raw:
        first, last = raw["between"]
        return f"between {_time(first)} and {_time(last)}"
    return ""


def _aggregate(raw: Mapping[str, Any]) -> str:
    for function in _AGGREGATES:
        if function in raw:
            test = {key: value for key, value in raw[function].items() if key != "of"}
            return f"{function}({_name(raw[function]['of'])}) {_test(test)}"
    return _count(raw)


def _count(raw: Mapping[str, Any]) -> str:
    return f"count {_test(raw['count'])}" if "count" in raw else ""


def _test(raw: Mapping[str, Any]) -> str:
    op = next(key for key in raw if key in OPS)
    operand = raw[op]
    return _comparison(op, operand) + (" ignoring case" if raw.get("ignore_case") else "")


def _comparison(op: str, operand: Any) -> str:
    if op in _SIGNS:
        return f"{_SIGNS[op]} {_value(operand)}"
    if op in _WORDS:
        return f"{_WORDS[op]} {_value(operand)}"
    if op in ("in", "not_in"):
        return f"{op.replace('_', ' ')} ({', '.join(map(_value, operand))})"
    if op == "between":
        return f"between {_value(operand[0])} and {_value(operand[1])}"
    if op == "exists":
        return "exists" if operand else "not exists"
    if op in ("before", "after"):
        return f"{op} {_time(operand)}"
    return f"{op.replace('_', ' ')} {operand}"


def _value(value: Any) -> str:
    return _quoted(value) if isinstance(value, str) else json.dumps(value)
