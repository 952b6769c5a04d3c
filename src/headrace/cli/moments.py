"""Moments on the command line."""

from __future__ import annotations

from headrace.cli.problems import UsageProblem


def moment_us(text: str, option: str) -> int:
    """A moment as ISO 8601 text, in microseconds since 1970.

    Raises:
        UsageProblem: It is none; the sentence names the option.
    """
    from headrace.domain.times import parse_time_us

    try:
        return parse_time_us(text)
    except ValueError:
        raise UsageProblem(f"{option}: {text!r} is no time, such as 2026-03-31T12:00:00Z") from None
