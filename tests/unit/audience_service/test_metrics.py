"""The counters of checks are there before anything was counted: what is expected to stay 0 must be seen to be 0."""

from __future__ import annotations

import re

import headrace_audience.archiving
import headrace_audience.checks.verify  # noqa: F401  # makes its counter
import prometheus_client
import pytest

from headrace.settings import ServiceSettings
from headrace.telemetry.setup import setup
from tests.support.settings import MakeSettings


@pytest.mark.parametrize("name", ["mismatches", "checks", "failed_checks"])
def test_counters_without_labels_are_shown_from_the_start(name: str, make_settings: MakeSettings) -> None:
    telemetry = setup("audience", make_settings(ServiceSettings), 0)
    try:
        shown = prometheus_client.generate_latest().decode()
    finally:
        telemetry.close()
    assert re.search(rf"^headrace_audience_{name}_total(\{{[^}}]*\}})? \d", shown, re.MULTILINE)
