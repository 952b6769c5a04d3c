"""What all tests of the running audience service have."""

from __future__ import annotations

import pytest
from headrace_audience.answers import preview


@pytest.fixture(autouse=True)
def _warnings_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are looked for to the end: how fast the machine is at that moment decides no test."""
    monkeypatch.setattr(preview, "NAMES_S", 60.0)
    monkeypatch.setattr(preview, "SAVED_S", 60.0)
