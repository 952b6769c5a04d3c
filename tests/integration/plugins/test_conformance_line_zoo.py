"""The conformance kit on connectors that deliver by themselves: a good one passes, bad ones fail their own checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from headrace.conformance import Bench, Level, Options, Result, conformance
from tests.support.conformance_line_zoo import BAD, GOOD, install, name_of


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    folder = tmp_path_factory.mktemp("lines")
    install(folder)
    options = Options(folder=folder / "author", examples=8, path=[str(folder)])
    conformance(GOOD, dataclasses.replace(options, update=True), levels=[Level.GOLDEN])
    return options


@pytest.fixture(scope="module")
def bench(options: Options) -> Iterator[Bench]:
    with Bench(GOOD, options) as made:
        yield made


def test_the_good_one_passes_all_that_is_about_it(options: Options, bench: Bench) -> None:
    report = conformance(GOOD, options, beside=bench)
    assert {one.id: one.seen for one in report.failed()} == {}
    passed = {one.id for one in report.checks if one.result is Result.PASSED}
    assert passed >= {*BAD, "behaviour.accepted", "behaviour.answers", "behaviour.duplicates", "golden.all"}
    assert {one.seen for one in report.checks if one.id == "behaviour.rate-limited"} == {"requests over HTTP"}


@pytest.mark.parametrize("check", BAD)
def test_a_bad_one_fails_its_own_check_alone(check: str, options: Options, bench: Bench) -> None:
    report = conformance(name_of(check), options, levels=[Level.BEHAVIOUR, Level.LIFE], beside=bench)
    found = {one.id: one.seen for one in report.failed()}
    assert list(found) == [check], found
    assert "could not run" not in found[check]
