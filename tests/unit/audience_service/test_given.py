"""Definitions as they are given: errors of what the store knows stand at their place in the text, too."""

from __future__ import annotations

import pytest
from headrace_audience.calls import given
from headrace_audience.definitions.computed_traits import chosen

from headrace.rpc.errors import ApiError, not_found

FIELD = "audience.definition"


async def fault_of(definition: str) -> tuple[tuple[str, str], ...]:
    """What is said of a definition where there is no computed trait."""
    read = await given.read(definition)
    with pytest.raises(ApiError) as refused, read.placing():
        chosen({}, read.source, given.parse(read.source), FIELD)
    return refused.value.violations


async def test_errors_of_a_text_stand_at_line_and_column(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "there is no computed trait 'gone' in this workspace"
    text = "performed A or\ncomputed gone > 1"
    assert await fault_of(text) == ((FIELD, f"line 2, column 10: {said}"),)
    monkeypatch.setattr(given, "SHORT", 0)  # read in a thread
    assert await fault_of(text) == ((FIELD, f"line 2, column 10: {said}"),)
    json = '{"where": {"any": [{"event": "A"}, {"computed": "gone", "gt": 1}]}}'
    assert await fault_of(json) == ((f"{FIELD}.where.any[1].computed", said),)


async def test_other_errors_pass() -> None:
    read = await given.read("performed A")
    with pytest.raises(ApiError, match="nobody"), read.placing():
        raise not_found("nobody")
    with pytest.raises(ApiError, match="line 1, column 11") as refused:
        await given.read("performed , B")
    assert refused.value.violations[0][0] == FIELD
    with pytest.raises(ApiError, match="longer than 256 KiB"):
        await given.read("performed " + "x" * 300_000)
