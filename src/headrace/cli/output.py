"""What commands write to standard output: tables and sheets for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

JSON_TEXTS = frozenset({"definition", "settings", "mapping", "settings_schema"})
"""Fields whose strings are JSON: they are shown as JSON, not as a string of it."""
JSON_BYTES = frozenset({"traits", "properties", "context", "value", "rules", "definition", "kept", "computed"})
"""Fields whose bytes are JSON, likewise; other bytes are shown as text, or in Base64 when they are none."""

_GAP = "  "
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


class Output:
    """Writes what a command found, in the form that was asked for."""

    def __init__(self, *, as_json: bool) -> None:
        """Write JSON, or text for people."""
        self.as_json = as_json

    def rows(self, items: Sequence[Any], columns: Sequence[str]) -> None:
        """Write a table, or an array of objects.

        Args:
            items: Messages or dictionaries.
            columns: Their fields to show in a table; a heading other than the field is written "HEADING=field".
        """
        plain = [plain_of(item) for item in items]
        if self.as_json:
            write_json(plain)
            return
        headings = [c.partition("=")[0].upper().replace("_", " ") for c in columns]
        fields = [c.rpartition("=")[2] for c in columns]
        write(table(headings, [[cell(row.get(f)) for f in fields] for row in plain]))

    def item(self, item: Any) -> None:
        """Write all fields of one thing."""
        plain = plain_of(item)
        if self.as_json:
            write_json(plain)
        else:
            write(sheet(plain))

    def done(self, sentence: str, result: Any) -> None:
        """Say what was done; JSON shows the result instead."""
        if self.as_json:
            write_json(plain_of(result))
        else:
            write(sentence)


def write(text: str) -> None:
    """Write a text and a line end."""
    sys.stdout.write(text + "\n")


def write_json(value: Any) -> None:
    """Write a value as indented JSON."""
    write(json.dumps(value, indent=2, ensure_ascii=False))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with aligned columns; nothing is cut, so that it can be searched and copied."""
    lines = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    texts = [_GAP.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if sys.stdout.isatty():
        texts[0] = f"{_BOLD}{texts[0]}{_PLAIN}"
    return "\n".join(texts)


def sheet(fields: Mapping[str, Any]) -> str:
    """One thing with a line per field; nested values as YAML below their name."""
    import yaml

    width = max((len(name) for name in fields), default=0)
    lines = []
    for name, value in fields.items():
        if isinstance(value, dict | list) and value:
            nested = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110).rstrip()
            lines.append(f"{name}:")
            lines += [f"  {line}" for line in nested.splitlines()]
        else:
            lines.append(f"{name.ljust(width)}  {cell(value)}".rstrip())
    return "\n".join(lines)


def cell(value: Any) -> str:
    """A value in a cell of a table."""
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return ", ".join(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    # One row is one line, whatever control characters a value holds.
    return "".join(c if c.isprintable() else " " for c in str(value))


def plain_of(item: Any) -> Any:
    """A message as dictionaries, lists, numbers and texts, with proto field names; other values as they are.

    Unlike protobuf's JSON mapping: 64-bit numbers are numbers, bytes and texts that hold JSON are JSON, enum values
    lose the prefix of their type, and every field is there, unset messages as null.
    """
    from google.protobuf.message import Message

    if isinstance(item, Message):
        return _plain_message(item)
    if isinstance(item, list | tuple):
        return [plain_of(i) for i in item]
    if isinstance(item, dict):
        return {name: plain_of(value) for name, value in item.items()}
    return item


def _plain_message(message: Any) -> Any:
    from google.protobuf.timestamp_pb2 import Timestamp

    if isinstance(message, Timestamp):
        return message.ToJsonString()
    plain: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
            plain[field.name] = dict(value) if is_map else [_plain_value(field, v) for v in value]
        elif field.message_type is not None and not message.HasField(field.name):
            plain[field.name] = None
        else:
            plain[field.name] = _plain_value(field, value)
    return plain


def _plain_value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _plain_message(value)
    if field.enum_type is not None:
        return _enum_name(field.enum_type, value)
    if isinstance(value, bytes):
        return _plain_bytes(field.name, value)
    if isinstance(value, str) and field.name in JSON_TEXTS and value:
        return _json_or(value, value)
    return value


def _plain_bytes(name: str, value: bytes) -> Any:
    import base64

    if name in JSON_BYTES:
        return _json_or(value, base64.b64encode(value).decode()) if value else None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _json_or(text: str | bytes, otherwise: Any) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return otherwise


def _enum_name(enum: Any, number: int) -> str:
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = "".join("_" + c if c.isupper() else c.upper() for c in enum.name).lstrip("_") + "_"
    return str(value.name.removeprefix(prefix)).lower()


def time_of(moment_us: int) -> str:
    """Microseconds since 1970 as text."""
    from headrace.domain.times import format_time_us

    return format_time_us(moment_us) if moment_us else ""
