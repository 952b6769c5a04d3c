"""The moment, or the moments, at which a statement asks, and the spans of time that reach back from them."""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

from collections.abc import Iterable

from headrace_audience.batch.values import Parameters
from headrace_audience.language.definition import Window
from headrace_audience.language.spans import Calendar, Span, midnights


class Moments:
    """One moment, or those of the relation `moments` (profile, at_us).

    Attributes:
        now_us: The moment; None when there are many.
        at: The moment as an expression beside the events of a profile.
        base_at: The same, beside the relation `base`.
    """

    def __init__(self, now_us: int | None, parameters: Parameters) -> None:
        self.now_us = now_us
        self._parameters = parameters
        self.at = str(now_us) if now_us is not None else "moments.at_us"
        self.base_at = str(now_us) if now_us is not None else "base.at_us"
        self._zones: dict[str, str] = {}
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

    def edges(self, table: str, spans: Iterable[Span | None]) -> list[str]:
        """Selects of (profile, at_us): when events of a table leave spans; None stands for their own time."""
        found = []
        for span in spans:
            if isinstance(span, Calendar):
                days = self._days(span.zone)
                found.append(
                    f"SELECT e.profile, later.begins AS at_us FROM {table} AS e ASOF JOIN {days} AS today"
                    f" ON e.timestamp_us >= today.begins JOIN {days} AS later ON later.day = today.day + {span.days}"
                )
            else:
                found.append(f"SELECT profile, timestamp_us + {0 if span is None else span.us} AS at_us FROM {table}")
        return found

    def sources(self) -> list[str]:
        """WITH entries of calendars."""
        for span in self._starts:
            self._days(span.zone)
        entries = []
        for zone, table in self._zones.items():
            begins = self._parameters.bind(midnights(zone).tolist())
            entries.append(
                f"{table} AS MATERIALIZED (SELECT unnest(CAST({begins} AS BIGINT[])) AS begins,"
                f" unnest(range(len({begins}))) AS day)"
            )
        return entries

    def with_starts(self, moments: str) -> str:
        """A relation of (profile, at_us) with the beginnings of the calendar spans beside each moment."""
        columns, joins = ["m.*"], []
        for span, name in self._starts.items():
            days = self._days(span.zone)
            columns.append(f"{name}_day.begins - 1 AS {name}")
            joins.append(
                f" ASOF LEFT JOIN {days} AS {name}_now ON m.at_us >= {name}_now.begins"
                f" LEFT JOIN {days} AS {name}_day ON {name}_day.day = {name}_now.day + {1 - span.days}"
            )
        return f"SELECT {', '.join(columns)} FROM ({moments}) AS m{''.join(joins)}"

    def _days(self, zone: str) -> str:
        return self._zones.setdefault(zone, f"days{len(self._zones)}")
