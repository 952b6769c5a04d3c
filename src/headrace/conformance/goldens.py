"""Checks of golden requests: cases in files, whose requests the author has looked at.

A case is a file `cases/NAME.json` in the author's folder:

    {"settings": {...}, "now_us": 1767225600000000, "call": "send_events", "items": [...], "expected": {...}}

or, for `headrace destination render`'s form of input, with "events" or "members" in place of "call" and "items", and
"mapping" if the connector's own is not meant. `expected` is what that command prints: requests, skipped, warnings.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from headrace.conformance.bench import ADD, DELETE, REMOVE, SEND, Batch, Bench, built
from headrace.conformance.checks import CheckFailed, Needs, check
from headrace.connector import wire
from headrace.plugins.errors import PluginError
from headrace.plugins.render import Rendering, build_all, masked_request, render
from headrace_sdk import EventItem, Request, Row, Subject
from headrace_sdk.samples import NOW_US, Fill

FOLDER = "cases"
REMEDY = (
    "Look at the difference; if it is meant, write the cases with HEADRACE_UPDATE_GOLDEN=1 or --update-golden, "
    "look at them, and commit them."
)
_ITEMS: dict[str, Any] = {
    ADD: TypeAdapter(list[Row]),
    REMOVE: TypeAdapter(list[Row]),
    SEND: TypeAdapter(list[EventItem]),
    DELETE: TypeAdapter(list[Subject]),
}
_OWN = frozenset({"required", "all", "several", "members", "removal", "deletion"})


def _needs(call: str, capability: str) -> Needs:
    return lambda bench: "" if call in bench.calls() else capability


@check("golden.required", "An event with the required fields alone gives the golden request.", REMEDY,
       _needs(SEND, "event_sync, forwarding"))  # fmt: skip
def _required(bench: Bench) -> str:
    return _seeded(bench, "required", SEND, 1, Fill.REQUIRED)


@check("golden.all", "An event with all fields gives the golden request.", REMEDY,
       _needs(SEND, "event_sync, forwarding"))  # fmt: skip
def _all(bench: Bench) -> str:
    return _seeded(bench, "all", SEND, 1, Fill.ALL)


@check("golden.several", "Several events give the golden requests.", REMEDY,
       _needs(SEND, "event_sync, forwarding"))  # fmt: skip
def _several(bench: Bench) -> str:
    return _seeded(bench, "several", SEND, 3, Fill.SOME)


@check("golden.members", "Members that are added give the golden requests.", REMEDY, _needs(ADD, "list_sync"))
def _members(bench: Bench) -> str:
    return _seeded(bench, "members", ADD, 3, Fill.ALL)


@check("golden.removal", "Members that are removed give the golden requests.", REMEDY,
       _needs(REMOVE, "list_sync with removal"))  # fmt: skip
def _removal(bench: Bench) -> str:
    return _seeded(bench, "removal", REMOVE, 2, Fill.ALL)


@check("golden.deletion", "People who are to be forgotten give the golden requests.", REMEDY,
       _needs(DELETE, "deletion"))  # fmt: skip
def _deletion(bench: Bench) -> str:
    return _seeded(bench, "deletion", DELETE, 2, Fill.ALL)


def _more_needed(bench: Bench) -> str:
    return "" if _more(bench) else "cases of the author"


@check("golden.cases", "The author's own cases give the golden requests.", REMEDY, _more_needed)
def _cases(bench: Bench) -> str:
    for path in _more(bench):
        _compare(bench, path, json.loads(path.read_text(encoding="utf-8")))
    return f"{len(_more(bench))} cases"


def _more(bench: Bench) -> list[Path]:
    folder = bench.options.folder
    found = sorted((folder / FOLDER).glob("*.json")) if folder is not None else []
    return [path for path in found if path.stem not in _OWN]


def _seeded(bench: Bench, name: str, call: str, size: int, fill: Fill) -> str:
    """Compare a case whose items came from the manifest when it was written."""
    folder = bench.options.folder
    if folder is None:
        raise CheckFailed("there is no folder with golden cases")
    path = folder / FOLDER / f"{name}.json"
    if path.exists() and not bench.options.update:
        return _compare(bench, path, json.loads(path.read_text(encoding="utf-8")))
    if not bench.options.update:
        raise CheckFailed(f"{FOLDER}/{path.name} is missing")
    batch = bench.required(call)[0] if fill is Fill.REQUIRED else bench.batch(call, size, fill=fill, seed=0)
    case = {
        "settings": bench.settings,
        "now_us": NOW_US,
        "call": call,
        "items": [_without_empty(dataclasses.asdict(item)) for item in batch.items],
    }
    return _compare(bench, path, case)


def _compare(bench: Bench, path: Path, case: dict[str, Any]) -> str:
    """Run a case and compare, or write what came out as what is expected."""
    try:
        found = bench.run(_render(bench, case)).document()
    except (PluginError, ValueError) as error:
        raise CheckFailed(f"{FOLDER}/{path.name}: {error}") from None
    if bench.options.update:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**case, "expected": found}, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        return f"{FOLDER}/{path.name} was written: look at it"
    difference = _difference(case.get("expected"), found, "expected")
    if difference:
        raise CheckFailed(f"{FOLDER}/{path.name}: {difference}")
    return f"{FOLDER}/{path.name}: {len(found['requests'])} requests"


async def _render(bench: Bench, case: dict[str, Any]) -> Rendering:
    """What `headrace destination render` says to a case."""
    name, settings, now_us = bench.info.name, case.get("settings", {}), case.get("now_us", NOW_US)
    if "call" not in case:
        lines = {kind: [json.dumps(line) for line in case[kind]] for kind in ("events", "members") if kind in case}
        mapping = case.get("mapping")
        return await render(
            bench.host,
            connector=name,
            settings=settings,
            now_us=now_us,
            mapping=mapping,
            **lines,  # type: ignore[arg-type]  # one of both is there
        )
    call = case["call"]
    items = _ITEMS[call].validate_python(case["items"])
    instance = await bench.host.open(name, settings)

    async def build(part: Any) -> wire.BuiltBatch:
        return await built(instance, Batch(call, tuple(part)), now_us=now_us)

    def show(request: Request) -> dict[str, Any]:
        return masked_request(request, instance.secrets)

    rendering = Rendering()
    try:
        named = list(enumerate(items))
        await build_all(
            rendering,
            bench.info.batch,
            show,
            lambda part: build([item for _, item in part]),
            named,
            lambda one: f"{one[0]}",
        )
    finally:
        await instance.close()
    return rendering


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    """Without members that are as if they were not there; a row keeps all that it has."""
    return (
        document
        if "key" in document
        else {key: value for key, value in document.items() if value not in (None, {}, [], "")}
    )


def _difference(expected: Any, found: Any, where: str) -> str:
    """Where two JSON values differ first; empty when they are equal. Names places, never values."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *found]:
            if key not in found:
                return f"{where}.{key} is gone"
            if key not in expected:
                return f"{where}.{key} is new"
            inner = _difference(expected[key], found[key], f"{where}.{key}")
            if inner:
                return inner
        return ""
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return f"{where} has {len(found)} entries, not {len(expected)}"
        return next(
            (
                inner
                for at, pair in enumerate(zip(expected, found, strict=True))
                if (inner := _difference(*pair, f"{where}[{at}]"))
            ),
            "",
        )
    return "" if expected == found and type(expected) is type(found) else f"{where} differs"
