"""The conformance kit: checks of connectors with stable ids, in levels, and their report."""

from headrace.conformance import (
    behaviour,
    delivering,
    goldens,
    hygiene,
    life,
    manifest,
    properties,
)
from headrace.conformance.bench import EXAMPLES, Bench, Options
from headrace.conformance.checks import CHECKS, Check, CheckFailed, Level
from headrace.conformance.report import CheckResult, Report, Result, rows, schema
from headrace.conformance.runner import asked, conformance, in_order, run_check

__all__ = [
    "CHECKS",
    "EXAMPLES",
    "Bench",
    "Check",
    "CheckFailed",
    "CheckResult",
    "Level",
    "Options",
    "Report",
    "Result",
    "asked",
    "behaviour",
    "conformance",
    "delivering",
    "goldens",
    "hygiene",
    "in_order",
    "life",
    "manifest",
    "properties",
    "rows",
    "run_check",
    "schema",
]
