"""The conformance kit: checks of connectors with stable ids, in levels, and their report."""

from headrace.conformance import (
    behaviour,
    goldens,
    hygiene,
    life,
    manifest,
    properties,
)
from headrace.conformance.bench import Bench, Options
from headrace.conformance.checks import CHECKS, Check, CheckFailed, Level
from headrace.conformance.report import CheckResult, Report, Result, rows, schema
from headrace.conformance.runner import conformance, run_check

__all__ = [
    "CHECKS",
    "Bench",
    "Check",
    "CheckFailed",
    "CheckResult",
    "Level",
    "Options",
    "Report",
    "Result",
    "behaviour",
    "conformance",
    "goldens",
    "hygiene",
    "life",
    "manifest",
    "properties",
    "rows",
    "run_check",
    "schema",
]
