from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from headrace.embedded.binaries import find_binaries
from headrace.embedded.errors import BinaryNotFound


def _program(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def test_a_setting_wins_over_path(tmp_path: Path) -> None:
    explicit = _program(tmp_path / "own" / "my-mongod")
    _program(tmp_path / "bin" / "mongod")
    redis_server = _program(tmp_path / "bin" / "redis-server")
    found = find_binaries({"HEADRACE_MONGOD": str(explicit), "PATH": str(tmp_path / "bin")})
    assert found.mongod == explicit
    assert found.redis_server == redis_server


@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_setting_that_names_no_program_is_refused(tmp_path: Path, mode: int | None) -> None:
    path = tmp_path / "mongod"
    if mode is not None:
        _program(path, mode)
    with pytest.raises(BinaryNotFound, match=r"HEADRACE_MONGOD is .*mongod, which is not a program"):
        find_binaries({"HEADRACE_MONGOD": str(path), "PATH": ""})


def test_without_path_the_wheels_serve(tmp_path: Path) -> None:
    for program, version in zip(
        find_binaries({"PATH": "", "XDG_CACHE_HOME": str(tmp_path)}), ("db version v6", "Redis server v=6"), strict=True
    ):
        assert version in subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout


def test_a_packaged_program_without_the_run_bit_is_copied_once_and_again_when_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = _program(tmp_path / "site-packages" / "server", 0o444)
    monkeypatch.setattr("headrace.embedded.binaries._in_package", lambda package, inside: packaged)
    copy = find_binaries({"PATH": "", "HOME": str(tmp_path / "home")}).mongod
    assert copy.parent == tmp_path / "home" / ".cache" / "headrace" / "bin"
    assert os.access(copy, os.X_OK)
    assert packaged.stat().st_mode & 0o777 == 0o444
    first = copy.stat().st_ino
    environment = {"PATH": "", "XDG_CACHE_HOME": str(tmp_path / "home" / ".cache")}
    assert find_binaries(environment).mongod.stat().st_ino == first
    copy.chmod(0o755)
    copy.write_text("#!/")
    assert find_binaries(environment).mongod.read_text() == packaged.read_text()
    assert sorted(p.name for p in copy.parent.iterdir()) == sorted({copy.name, find_binaries(environment)[1].name})


def test_nothing_anywhere_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.embedded.binaries._in_package", lambda package, inside: None)
    with pytest.raises(BinaryNotFound, match=r"no mongod found: install the extra headrace\[embedded\]"):
        find_binaries({"PATH": str(tmp_path)})
