"""The conformance kit: a good connector passes, and each bad one fails exactly its own check."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.conformance import CHECKS, Bench, Level, Options, Result, conformance, in_order
from tests.support import conformance_line_zoo
from tests.support.conformance_zoo import ALONE, BAD, GOOD, VENDOR, install, name_of, write_author
from tests.support.plugin_zoo import write

LEVELS = tuple(level for level in Level if level is not Level.LIFE)
SHARED = [check for check in BAD if check != ALONE]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """With golden cases as the good connector makes them."""
    folder = tmp_path_factory.mktemp("zoo")
    install(folder, *SHARED)
    write_author(folder / "author")
    options = Options(folder=folder / "author", examples=8, path=[str(folder)])
    conformance(GOOD, dataclasses.replace(options, update=True), levels=[Level.GOLDEN])
    return options


@pytest.fixture(scope="module")
def bench(options: Options) -> Iterator[Bench]:
    """A bench whose hosts have all of the zoo, loaded once."""
    with Bench(GOOD, options) as made:
        yield made


def failed(connector: str, options: Options, levels: tuple[Level, ...], beside: Bench | None) -> dict[str, str]:
    report = conformance(connector, options, levels=levels, beside=beside)
    return {one.id: one.seen for one in report.failed()}


def test_the_good_one_passes_everything(options: Options, bench: Bench) -> None:
    report = conformance(GOOD, options, beside=bench)
    assert {one.id: one.seen for one in report.failed()} == {}
    assert report.conforms
    assert {one.result for one in report.checks if one.id in BAD} == {Result.PASSED}
    assert {one.seen for one in report.checks if one.result is Result.NOT_DECLARED} == {"schemes"}


@pytest.mark.parametrize("check", SHARED)
def test_a_bad_one_fails_its_own_check_alone(check: str, options: Options, bench: Bench) -> None:
    levels = (Level.LIFE,) if check.startswith("life.") else LEVELS
    found = failed(name_of(check), options, levels, bench)
    assert list(found) == [check], found
    assert "could not run" not in found[check]


def test_every_check_has_a_bad_connector() -> None:
    # What cannot be loaded fails everything, see below.
    assert set(BAD) | set(conformance_line_zoo.BAD) | {"manifest.loads"} == set(CHECKS)
    assert next(iter(in_order())).id == "manifest.loads"


def test_what_cannot_be_loaded_fails_everything(tmp_path: Path) -> None:
    write(tmp_path, "zoo-not-there", "import no_such_module_anywhere")
    report = conformance("zoo-not-there", Options(path=[str(tmp_path)]))
    assert {one.result for one in report.checks} == {Result.FAILED}
    assert report.checks[0].id == "manifest.loads"


@pytest.mark.parametrize("case", ["required", "all", "several", "members", "removal", "deletion"])
def test_a_golden_case_that_is_missing_or_differs_fails(
    case: str, options: Options, bench: Bench, tmp_path: Path
) -> None:
    assert options.folder is not None
    for path in [options.folder / "vendor.json", *(options.folder / "cases").iterdir()]:
        (tmp_path / "cases").mkdir(exist_ok=True)
        (tmp_path / path.relative_to(options.folder)).write_bytes(path.read_bytes())
    theirs = dataclasses.replace(options, folder=tmp_path)
    file = tmp_path / "cases" / f"{case}.json"
    changed = json.loads(file.read_text())
    changed["expected"]["requests"][0]["url"] = "https://elsewhere.example"
    file.write_text(json.dumps(changed))
    assert list(failed(GOOD, theirs, (Level.GOLDEN,), bench)) == [f"golden.{case}"]
    file.unlink()
    assert failed(GOOD, theirs, (Level.GOLDEN,), bench) == {f"golden.{case}": f"cases/{case}.json is missing"}


def test_a_check_that_cannot_run_fails(options: Options, bench: Bench) -> None:
    found = failed(GOOD, dataclasses.replace(options, folder=None), (Level.GOLDEN, Level.BEHAVIOUR), bench)
    assert {"golden.all", "behaviour.accepted", "behaviour.non-json", "behaviour.jobs"} <= set(found)


@pytest.mark.parametrize("connector", [GOOD, name_of("behaviour.refused")])
def test_a_waiver_is_for_what_cannot_hold(connector: str, options: Options, bench: Bench, tmp_path: Path) -> None:
    why = "The vendor's other answers mean what they want."
    (tmp_path / "vendor.json").write_text(json.dumps({**VENDOR, "waivers": {"behaviour.refused": why}}))
    theirs = dataclasses.replace(options, folder=tmp_path)
    report = conformance(connector, theirs, levels=[Level.BEHAVIOUR], beside=bench)
    (found,) = [one for one in report.checks if one.id == "behaviour.refused"]
    assert report.conforms == (connector != GOOD)
    assert found.result is (Result.FAILED if connector == GOOD else Result.WAIVED)
    assert "need not" in found.seen if connector == GOOD else found.seen.endswith(why)


def test_what_goes_wrong_in_its_second_process_alone(options: Options, tmp_path: Path) -> None:
    install(tmp_path, ALONE, plugin="zoo-alone")
    theirs = dataclasses.replace(options, path=[str(tmp_path)])
    assert list(failed(name_of(ALONE), theirs, (Level.LIFE,), None)) == [ALONE]
