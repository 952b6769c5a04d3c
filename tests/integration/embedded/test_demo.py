from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.cli.main import main
from headrace.cli.problems import USAGE
from tests.support.ports import free_port_base


@pytest.mark.timeout(280)
def test_the_demo_finds_the_truth_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headrace.cli.main", "demo", "--once", "--json", "--people", "30"]
    played = subprocess.run(
        [*command, "--port-base", str(free_port_base())],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert played.stdout, played.stderr
    report = json.loads(played.stdout)
    assert [check for check in report["checks"] if not check["right"]] == []
    assert len(report["checks"]) > 15
    assert (played.returncode, report["right"]) == (0, True)
    assert report["merges"] > 0
    assert "visitors leave it by time alone: 5 of 5" in played.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data-dir", "."], ". is not empty: the demo compares with the whole truth, choose a new folder"),
        (["--people", "5"], "Invalid value for '--people'"),
        (["--port-base", "0"], "--port-base 0 is out of range"),
    ],
)
def test_what_cannot_be_played_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["demo", *arguments]) == USAGE
    assert sentence in capsys.readouterr().err
