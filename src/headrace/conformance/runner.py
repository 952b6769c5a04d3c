"""Runs checks over a connector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headrace.conformance.bench import Bench, Options
from headrace.conformance.checks import CHECKS, Check, CheckFailed, Level
from headrace.conformance.report import CheckResult, Report, Result

LOADS = "manifest.loads"
_COULD_NOT_RUN = "could not run"


def conformance(
    connector: str,
    options: Options | None = None,
    *,
    levels: Iterable[Level] = tuple(Level),
    beside: Bench | None = None,
) -> Report:
    """Check a connector.

    Args:
        connector: Name of the connector, or of the plugin that offers it alone.
        options: How to check.
        levels: Levels to check.
        beside: An open bench of another connector of the same plugin, whose host serves this one too.
    """
    chosen = frozenset(levels)
    with Bench(connector, options, beside=beside) as bench:
        loads = run_check(bench, CHECKS[LOADS])
        wanted = [check for check in in_order() if check.level in chosen and check.id != LOADS]
        results = [loads]
        if loads.result is Result.PASSED:
            results += [run_check(bench, check) for check in wanted]
            info = bench.info
            about = {"connector": info.name, "plugin": info.plugin, "version": info.version, "api": info.api}
        else:
            results += [_failed(check, "the connector cannot be loaded") for check in wanted]
            about = {"connector": connector, "plugin": "", "version": "", "api": ""}
        conforms = all(one.result is not Result.FAILED for one in results)
        return Report(**about, seed=bench.options.seed, conforms=conforms, checks=tuple(results))


def asked(bench: Bench) -> list[Check]:
    """The checks that a connector is asked by what it declares, in order; all when nobody can know what it declares."""
    found = []
    for check in in_order():
        try:
            missing = check.needs(bench)
        except Exception:  # the check itself will say what is wrong, by failing
            missing = ""
        if not missing:
            found.append(check)
    return found


def in_order() -> list[Check]:
    """All checks, level by level."""
    levels = list(Level)
    return sorted(CHECKS.values(), key=lambda check: levels.index(check.level))


def run_check(bench: Bench, check: Check) -> CheckResult:
    """Run one check. One that cannot run has failed; it never raises.

    A failure that the author's file waives is none. A waiver that is not needed is a failure: it would hide the next.
    """
    found = _run(bench, check)
    why = _waivers(bench).get(check.id)
    if why is None:
        return found
    if found.result is Result.FAILED and not found.seen.startswith(_COULD_NOT_RUN):
        return _result(check, Result.WAIVED, f"{found.seen}: {why}")
    return _failed(check, f"vendor.json waives it, and need not: {found.seen}")


def _waivers(bench: Bench) -> Mapping[str, str]:
    try:
        return bench.vendor_file.waivers
    except CheckFailed:  # the checks that need the file say so
        return {}


def _run(bench: Bench, check: Check) -> CheckResult:
    try:
        missing = check.needs(bench)
        if missing:
            return _result(check, Result.NOT_DECLARED, missing)
        return _result(check, Result.PASSED, check.run(bench))
    except CheckFailed as failure:
        return _failed(check, failure.seen)
    except Exception as error:  # whatever hinders a check is a failure of it, said by its kind alone
        return _failed(check, f"{_COULD_NOT_RUN}: {type(error).__name__}: {str(error)[:200]}")


def _failed(check: Check, seen: str) -> CheckResult:
    return _result(check, Result.FAILED, seen, check.remedy)


def _result(check: Check, result: Result, seen: str, remedy: str = "") -> CheckResult:
    return CheckResult(id=check.id, level=check.level, sentence=check.sentence, result=result, seen=seen, remedy=remedy)
