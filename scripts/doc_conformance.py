"""docs/reference/conformance.md, made from the checks themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from headrace.conformance import CHECKS, Level, schema, vendor_file

INTRODUCTION = """\
What every connector must hold to, checked by `headrace plugin check NAME` and by the tests of its author
([Writing a connector](../guides/connectors.md#checking-it)). Ids are stable. A check that cannot run has failed; one
about something that the connector does not declare is not run, and the report says so.
"""
LEVELS = {
    Level.MANIFEST: "What the connector says of itself holds together and can be worked with.",
    Level.GOLDEN: "Its requests are those that its author has looked at. A case that is missing fails.",
    Level.BEHAVIOUR: "It reads whatever a vendor answers: a fake one answers over real HTTP.",
    Level.PROPERTIES: "What holds for all items, tried with many made by chance.",
    Level.HYGIENE: "It gives nothing away and touches nothing outside, looked at from within its process.",
    Level.LIFE: "It lives in a worker process of the real host, is interrupted, ended and started again.",
}


def page(made: str) -> str:
    """The page.

    Args:
        made: A comment that says how the page is made.
    """
    return "\n".join(["# Conformance of connectors", "", made, "", INTRODUCTION, *_checks(), *_files(), *_report()])


def _checks() -> Iterator[str]:
    for level, sentence in LEVELS.items():
        yield from (f"## Level {level.value}", "", sentence, "", "| check | what must hold | when it does not |")
        yield "| --- | --- | --- |"
        for check in CHECKS.values():
            if check.level is level:
                yield f"| `{check.id}` | {_cell(check.sentence)} | {_cell(check.remedy)} |"
        yield ""


def _files() -> Iterator[str]:
    yield from ("## The author's files", "")
    yield from ("`tests/conformance/vendor.json` says how the vendor answers.", "", "```text")
    yield inspect.cleandoc(vendor_file.__doc__ or "").partition("\n\n")[2]
    yield from ("```", "", "`tests/conformance/cases/*.json` are golden cases: `HEADRACE_UPDATE_GOLDEN=1 pytest` or")
    yield "`headrace plugin check NAME --update-golden` writes those that every connector has; cases of your own stand"
    yield 'beside them, with "events" or "members" in the form of `headrace destination render`.'
    yield ""


def _report() -> Iterator[str]:
    yield from ("## The report", "", "`--json` and `--report FILE` write it as JSON:", "")
    document = schema()
    for title, node in (("", document), (" of each of `checks`", document["$defs"]["CheckResult"])):
        yield from (f"| member{title} | |", "| --- | --- |")
        for name, inner in node["properties"].items():
            yield f"| `{name}` | {_cell(inner.get('description', ''))} |"
        yield ""
    yield '`result` is "passed", "failed", "waived" (it cannot hold, and vendor.json says why) or "not declared". Exit'
    yield "status of the command: 0 no check failed, 1 one did, 2 there is no such connector, folder or level."
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
