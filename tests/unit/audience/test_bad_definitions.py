"""Definitions that are none, on the command line: each is refused by its place, in less than a second."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from headrace.cli import main
from tests.support.bad_definitions import BAD

ALONE = {
    what: case
    for what, case in BAD.items()
    if "there is no audience" not in case[2] and "circle" not in case[2] and "did you mean" not in case[2]
}
"""Those of which a file alone tells what is wrong."""


@pytest.mark.parametrize("what", ALONE)
def test_each_is_refused_by_its_place(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    definition, place, said = ALONE[what]
    path = tmp_path / "d"
    path.write_text(definition, encoding="utf-8")
    main.main(["audience", "convert", str(_readable(tmp_path))])  # the grammar is read once
    capsys.readouterr()
    began = time.thread_time()
    assert main.main(["audience", "convert", str(path)]) == 2
    assert time.thread_time() - began < 1.0
    told = capsys.readouterr().err
    assert said in told
    if not what.startswith("a long key of"):
        assert place.removeprefix(".") in told
    assert len(told) < 2_500


def _readable(folder: Path) -> Path:
    path = folder / "readable"
    path.write_text("performed A")
    return path
