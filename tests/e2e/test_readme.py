"""The README's first five minutes, run as they stand there: its very commands on a running platform."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from tests.support.up import Up

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    """Code blocks of the first five minutes."""
    section = README.partition("## The first five minutes")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [code for of, code in blocks if of == language]


def _run(up: Up, folder: Path, script: str) -> str:
    """Run a block here: the platform's own port, ready file and Python in place of the reader's.

    A reader who is quicker than the platform looks again, so what fails at first is tried again for a while.
    """
    ours = {
        "localhost:8080": up.ready["ingest_http"].removeprefix("http://"),
        "ready.json": str(up.ready_file),
        ".venv/bin/headrace": f"{sys.executable} -m headrace.cli.main",
        ".venv/bin/python": sys.executable,
        "docs/examples": str(ROOT / "docs/examples"),
    }
    here = re.sub("|".join(map(re.escape, ours)), lambda match: ours[match[0]], script)
    deadline = time.monotonic() + 60
    while True:
        command = ["bash", "-euo", "pipefail", "-c", here]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, timeout=120)
        if done.returncode == 0:
            return done.stdout
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.2)


def test_the_first_five_minutes(up: Up, tmp_path: Path) -> None:
    _, events, audience, reflection = _blocks("")
    found = _run(up, tmp_path, events)
    assert found.count('{"success": true}') == 2
    assert "email:ada@example.com" in found and "anonymous_id:browser-1" in found
    deadline = time.monotonic() + 60
    while not re.search(r"^p[0-9a-f]{24} ", _run(up, tmp_path, audience), re.MULTILINE):
        assert time.monotonic() < deadline, "nobody came into the audience"
        time.sleep(0.2)

    (program,) = _blocks("python")
    program = program.replace("http://localhost:8080", up.ready["ingest_http"])
    program = program.replace("<write key>", up.ready["write_key"])
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    deadline = time.monotonic() + 60
    while "Purchased" not in (seen := up.headrace("profiles", "events", *_profile(found)).stdout):
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)

    assert "user_id: ada" in _run(up, tmp_path, reflection)


def _profile(found: str) -> list[str]:
    match = re.search(r"/profiles/(p[0-9a-f]{24})", found)
    assert match is not None
    return [match[1]]


def test_make_knows_the_two_commands() -> None:
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        dry = subprocess.run(["make", "-n", target], check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
        assert dry.returncode == 0, dry.stderr
