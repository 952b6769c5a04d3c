"""The examples of the documentation, run as their readers run them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from pathlib import Path

from tests.support.up import Up

REFLECT = Path(__file__).resolve().parents[2] / "docs/examples/reflect.py"


def run(up: Up, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REFLECT), str(up.ready_file), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_reflection_alone_finds_a_profile(up: Up) -> None:
    body = {"userId": "reflect-ada", "traits": {"email": "Ada@reflect.example", "plan": "gold"}}
    key = b64encode(f"{up.ready['write_key']}:".encode()).decode()
    request = urllib.request.Request(
        f"{up.ready['ingest_http']}/v1/identify",
        json.dumps(body).encode(),
        {"Authorization": f"Basic {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    deadline = time.monotonic() + 60
    while (done := run(up, "email", "ada@reflect.example")).returncode != 0:
        assert done.stderr.startswith("NOT_FOUND: "), done.stderr
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "email: ada@reflect.example" in done.stdout
    assert "user_id: reflect-ada" in done.stdout
    assert 'plan = "gold"' in done.stdout


def test_the_example_needs_nothing_of_ours() -> None:
    tree = ast.parse(REFLECT.read_text())
    imported = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not [name for name in imported if name.startswith("headrace")]
