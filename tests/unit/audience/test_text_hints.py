"""Errors of the text form say what to write in place of what people often write."""

from __future__ import annotations

import pytest
from headrace_audience.language.text.reading import TextError, from_text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("performed A in last 7 days", "a duration is a number and one letter: 7d, 12h, 2w"),
        ("performed A in last 3 months", "months and years are written in days: 30d, 365d"),
        ("performed A within 7d", "a window is written as in last 7d"),
        ("performed A last 7d", "a window is written as in last 7d"),
        ("performed A in last 7d where (x = 1)", "where comes right after the event, ahead of its window"),
        ("performed A count > 3 in last 7d", "a window comes ahead of count, sum and the like"),
        ("trait a == 5", "one = compares"),
        ('trait country is "IN"', "one = compares"),
        ("performed Product viewed", "a name of several words stands in double quotes"),
    ],
)
def test_what_is_often_written_gets_a_hint(text: str, hint: str) -> None:
    with pytest.raises(TextError) as refused:
        from_text(text)
    assert refused.value.reason.endswith(f"; {hint}")


@pytest.mark.parametrize("text", ["performed A in last 5", "performed A in 5", "trait a ~ 5", "performed"])
def test_everything_else_gets_none(text: str) -> None:
    with pytest.raises(TextError) as refused:
        from_text(text)
    assert ";" not in refused.value.reason.partition("; expected ")[2]
