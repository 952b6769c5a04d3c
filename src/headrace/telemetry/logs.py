"""Logs: one line of JSON each, on standard error, without personal data, secrets or request bodies.

A message is a constant sentence; what varies goes into fields. Fields whose names say that they
hold a secret or a personal datum are written as "[redacted]", and an exception is written as its
type and the places it came through, never its text: texts quote values.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from opentelemetry import trace

REDACTED = "[redacted]"

_SECRET_OR_PERSONAL = frozenset(
    {
        "address", "anonymous_id", "anonymousid", "api_key", "api_token", "authorization", "body", "birthday",
        "city", "cookie", "credentials", "date_of_birth", "email", "first_name", "firstname", "gender", "headers",
        "identifier", "identifiers", "ip", "last_name", "lastname", "master_key", "password", "payload", "phone",
        "properties", "request", "response", "secret", "settings", "street", "token", "traits", "user_id",
        "userid", "value", "webhook_token", "write_key", "writekey", "zip",
    }
)  # fmt: skip
_SECRET_ENDINGS = ("_token", "_secret", "_password", "_key", "_email", "_phone")
_HARMLESS = frozenset({"partition_key", "idempotency_key"})

_STANDARD_FIELDS = ("ts", "level", "logger", "msg", "service", "trace_id", "span_id", "error")


class Logger:
    """A logger that takes a sentence and fields."""

    def __init__(self, name: str) -> None:
        """Log under a dotted name."""
        self._logger = logging.getLogger(name)

    def debug(self, message: str, **fields: Any) -> None:
        """Log what only matters while looking for a fault."""
        self._log(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """Log what an operator wants to know on a good day."""
        self._log(logging.INFO, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Log what went wrong and heals by itself."""
        self._log(logging.WARNING, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """Log what somebody must look at."""
        self._log(logging.ERROR, message, fields)

    def exception(self, message: str, **fields: Any) -> None:
        """Log the exception in hand, as its type and its path through the code."""
        self._log(logging.ERROR, message, fields, exc_info=True)

    def _log(self, level: int, message: str, fields: Mapping[str, Any], *, exc_info: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, message, exc_info=exc_info, extra={"fields": fields})


def get_logger(name: str) -> Logger:
    """A logger; name it by the module: `get_logger(__name__)`."""
    return Logger(name)


def redact(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as they may be logged: redacted by name, at any depth, plain JSON values only."""
    return {key: REDACTED if is_sensitive(key) else _plain(value) for key, value in fields.items()}


def is_sensitive(key: str) -> bool:
    """True when a field of this name may hold a secret or a personal datum."""
    name = key.lower().replace("-", "_")
    if name in _HARMLESS:
        return False
    return name in _SECRET_OR_PERSONAL or name.endswith(_SECRET_ENDINGS)


def describe_exception(error: BaseException) -> dict[str, Any]:
    """An exception as a log may show it: its types (with causes) and the lines it passed, without any text."""
    types: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(types) < 8:
        types.append(f"{type(seen).__module__}.{type(seen).__qualname__}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return {"types": types, "at": _frames(error.__traceback__)}


def configure(service_name: str, level: str, stream: TextIO | None = None) -> logging.Handler:
    """Send all logs of the process through the JSON formatter; replaces an earlier configuration.

    Args:
        service_name: Written on each line.
        level: Least severe level that is written.
        stream: Where to; standard error when None.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service_name))
    root = logging.getLogger()
    for other in list(root.handlers):
        if isinstance(other.formatter, JsonFormatter):
            root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(level)
    # These speak of every request at INFO, in texts of their own that we cannot redact.
    for chatty in ("pymongo", "uvicorn.access", "grpc", "asyncio", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return handler


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    def __init__(self, service_name: str) -> None:
        """Write lines of one service."""
        super().__init__()
        self._service_name = service_name

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "msg": record.getMessage(),
            "service": self._service_name,
        }
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"] = f"{context.trace_id:032x}"
            line["span_id"] = f"{context.span_id:016x}"
        fields = getattr(record, "fields", None)
        if fields:
            # A field never hides a standard one.
            line.update({f"{k}_" if k in _STANDARD_FIELDS else k: v for k, v in redact(fields).items()})
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe_exception(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return redact({str(k): v for k, v in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, BaseException):
        return describe_exception(value)
    return f"<{type(value).__name__}>"  # messages and documents may hold anything


def _frames(start: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(start)[-12:]
    return [f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
