"""Without Java the tests on Spark say so; where everything must be tested, that is a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from headrace_audience.distributed.spark import SparkMissing, spark_context

from headrace.cli.main import main
from tests.support.spark import local_spark


@pytest.fixture(autouse=True)
def _no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(SparkMissing, match="Java 17 or newer"), spark_context("local[1]"):
        pass


def test_the_command_says_it_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d").write_text("performed A")
    (tmp_path / "p").write_text('{"x": []}')
    asked = ["audience", "eval", "--definition", str(tmp_path / "d"), "--people", str(tmp_path / "p")]
    assert main([*asked, "--engine", "spark"]) == 1
    said = "error: Spark needs Java 17 or newer: install it, and set JAVA_HOME or put `java` into PATH\n"
    assert capsys.readouterr().err == said


def test_tests_are_skipped_by_people_and_fail_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="NOT tested"), local_spark():
        pass
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="NOT tested"), local_spark():
        pass
