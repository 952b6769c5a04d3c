"""Checks what no linter does: no source file over 600 lines, no generated or local path in the tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MAX_LINES = 600
CHECKED = {".py", ".ts", ".tsx", ".js", ".mjs", ".proto", ".sh"}
GENERATED = ("src/headrace/api/", "third_party/")


def main() -> int:
    """Print each offence and return the exit status."""
    listed = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True).stdout.splitlines()  # noqa: S607 - git is found by PATH on purpose
    offences = []
    for name in listed:
        path = Path(name)
        if path.suffix not in CHECKED or name.startswith(GENERATED) or not path.exists():
            continue
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > MAX_LINES:
            offences.append(f"{name}: {lines} lines, at most {MAX_LINES}: give each job a file of its own")
    for offence in offences:
        print(offence, file=sys.stderr)
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
