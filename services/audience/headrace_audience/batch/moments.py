"""The moment, or the moments, at which a statement asks, and the spans of time that reach back from them."""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa

from headrace_audience.language.definition import Window
from headrace_audience.language.spans import Calendar, Span, Times

_ARROW: Any = "arrow"
"""Whole columns at a time; the module that has the name for it is another one in each version of DuckDB."""


class Moments:
    """One moment, or those of the relation `moments` (profile, at_us).

    Attributes:
        now_us: The moment; None when there are many.
        at: The moment as an expression beside the events of a profile.
        base_at: The same, beside the relation `base`.
    """

    def __init__(self, now_us: int | None) -> None:
        self.now_us = now_us
        self.at = str(now_us) if now_us is not None else "moments.at_us"
        self.base_at = str(now_us) if now_us is not None else "base.at_us"
        self._functions: dict[str, tuple[Calendar, str]] = {}
        self._starts: dict[Calendar, str] = {}

    def join(self, table: str) -> str:
        """Joins a table of what holds at the moments to the relation `base`."""
        same_moment = "" if self.now_us is not None else f" AND {table}.at_us = base.at_us"
        return f"LEFT JOIN {table} ON {table}.profile = base.profile{same_moment}"

    def start(self, span: Span) -> str:
        """The moment after which an event counts."""
        if self.now_us is not None:
            return str(span.start(self.now_us))
        if not isinstance(span, Calendar):
            return f"({self.at} - {span.us})"
        return f"moments.{self._starts.setdefault(span, f'start{len(self._starts)}')}"

    def columns(self) -> list[str]:
        """The columns of the relation `moments`."""
        return ["moments.profile", "moments.at_us", *(f"moments.{name}" for name in self._starts.values())]

    def inside(self, window: Window, time: str) -> str:
        """Whether a time lies in a window."""
        bounds = [f"{time} <= {self.at if window.older_than is None else self.start(window.older_than)}"]
        if window.within is not None:
            bounds.append(f"{time} > {self.start(window.within)}")
        if window.from_us is not None:
            bounds.append(f"{time} >= {window.from_us}")
        if window.to_us is not None:
            bounds.append(f"{time} <= {window.to_us}")
        return " AND ".join(bounds)

    def passes(self, span: Span | None, time: str) -> str:
        """When a span has passed over a time; None stands for the time itself."""
        if span is None:
            return time
        return f"{self._function(span, 'passes')}({time})" if isinstance(span, Calendar) else f"{time} + {span.us}"

    def with_starts(self, moments: str) -> str:
        """A relation of (profile, at_us) with the beginnings of the calendar spans beside each moment."""
        columns = [f"{self._function(span, 'start')}(m.at_us) AS {name}" for span, name in self._starts.items()]
        return f"SELECT {', '.join(['m.*', *columns])} FROM ({moments}) AS m"

    def _function(self, span: Calendar, which: str) -> str:
        name = f"{which}_{span.days}_{span.zone.encode().hex()}"
        self._functions[name] = span, which
        return name

    def make_functions(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Teach a connection the calendars that the statement reads."""
        for name, (span, which) in self._functions.items():
            asked = {"name": name}
            known = connection.execute("SELECT 1 FROM duckdb_functions() WHERE function_name = $name", asked).fetchone()
            if known is None:
                connection.create_function(name, _over_columns(getattr(span, which)), ["BIGINT"], "BIGINT", type=_ARROW)


def _over_columns(function: Callable[[Times], Times]) -> Callable[[pa.Array], pa.Array]:
    return lambda column: pa.array(function(column.to_numpy(zero_copy_only=False)))
