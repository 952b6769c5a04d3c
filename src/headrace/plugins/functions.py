"""Functions of mapping expressions, on top of those of JMESPath itself. All of them pass null through."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import jmespath.functions

from headrace.domain.times import format_time_us, parse_time_us

_ANY: list[str] = []


def _signature(*arguments: list[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a function's arguments, typed for the checker (JMESPath's own decorator is not)."""
    declare: Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]] = jmespath.functions.signature
    return declare(*({"types": types} for types in arguments))


class MappingFunctions(jmespath.functions.Functions):
    """What an expression can call. The first line of each docstring is shown in the documentation."""

    @_signature(_ANY)
    def _func_lower(self, value: Any) -> Any:
        """lower(x): text in lower case."""
        return _each_text(value, str.lower)

    @_signature(_ANY)
    def _func_upper(self, value: Any) -> Any:
        """upper(x): text in upper case."""
        return _each_text(value, str.upper)

    @_signature(_ANY)
    def _func_trim(self, value: Any) -> Any:
        """trim(x): text without white space around it."""
        return _each_text(value, str.strip)

    @_signature(_ANY)
    def _func_digits(self, value: Any) -> Any:
        """digits(x): only the digits 0 to 9 of the text."""
        return _each_text(value, lambda text: re.sub(r"[^0-9]", "", text))

    @_signature(_ANY, ["string"], ["string"])
    def _func_replace(self, value: Any, old: str, new: str) -> Any:
        """replace(x, 'old', 'new'): text with every old replaced."""
        return _each_text(value, lambda text: text.replace(old, new) if old else text)

    @_signature(_ANY, ["string"])
    def _func_split(self, value: Any, separator: str) -> Any:
        """split(x, ','): list of the text's parts, trimmed, without empty ones."""
        if not isinstance(value, str) or not separator:
            return value
        return [part for part in (piece.strip() for piece in value.split(separator)) if part]

    @_signature(_ANY)
    def _func_first(self, value: Any) -> Any:
        """first(x): first element of a list; anything else as it is."""
        return (value[0] if value else None) if isinstance(value, list) else value

    @_signature(_ANY)
    def _func_text(self, value: Any) -> Any:
        """text(x): numbers and booleans as text."""
        return [as_text(item) for item in value] if isinstance(value, list) else as_text(value)

    @_signature(_ANY)
    def _func_number(self, value: Any) -> Any:
        """number(x): text as a number; null when it is none."""
        return _number(value)

    @_signature(_ANY)
    def _func_sha256(self, value: Any) -> Any:
        """sha256(x): SHA-256 of the text in UTF-8, as lower-case hex."""
        return _each_text(value, lambda text: hashlib.sha256(text.encode("utf-8", "replace")).hexdigest())

    @_signature(_ANY)
    def _func_iso_time(self, value: Any) -> Any:
        """iso_time(x): a time (ISO text, or seconds since 1970) as ISO 8601 in UTC; null when it is none."""
        moment_us = _time_us(value)
        return None if moment_us is None else format_time_us(moment_us)

    @_signature(_ANY)
    def _func_unix_time(self, value: Any) -> Any:
        """unix_time(x): a time (ISO text, or seconds since 1970) in whole seconds since 1970; null when it is none."""
        moment_us = _time_us(value)
        return None if moment_us is None else moment_us // 1_000_000

    @_signature(_ANY, ["string"])
    def _func_date(self, value: Any, pattern: str) -> Any:
        """date(x, 'YYYY-MM-DD'): a time in UTC, with YYYY, MM, DD, hh, mm and ss filled in; null when it is none."""
        moment_us = _time_us(value)
        if moment_us is None:
            return None
        moment = datetime.fromtimestamp(moment_us // 1_000_000, UTC)
        parts = {"YYYY": f"{moment.year:04}", "MM": f"{moment.month:02}", "DD": f"{moment.day:02}"}
        parts |= {"hh": f"{moment.hour:02}", "mm": f"{moment.minute:02}", "ss": f"{moment.second:02}"}
        return re.sub("YYYY|MM|DD|hh|mm|ss", lambda match: parts[match[0]], pattern)


def function_help() -> dict[str, str]:
    """What each function does, by name, as the documentation and the console show it."""
    return {
        name.removeprefix("_func_"): (member.__doc__ or "").partition("\n")[0]
        for name, member in sorted(vars(MappingFunctions).items())
        if name.startswith("_func_")
    }


def as_text(value: Any) -> Any:
    """A number or boolean as text (3.0 is "3"); other values as they are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Change a text, or each text of a list; other values stay as they are."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [change(item) if isinstance(item, str) else item for item in value]
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if not isinstance(value, str):
        return value
    text = value.strip()
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"[+-]?[0-9]{1,18}\.[0-9]{1,18}", text):
        return float(text)
    return None


def _time_us(value: Any) -> int | None:
    if isinstance(value, str):
        try:
            return parse_time_us(value)
        except (ValueError, OverflowError):
            return None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e11:
        return int(value * 1_000_000)
    return None
