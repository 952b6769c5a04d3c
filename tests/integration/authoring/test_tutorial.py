"""The tutorials are run: their files are written and their commands run in order, and what they show is what comes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
_BLOCK = re.compile(
    r'(?P<unrun><!-- not run: [^>]+ -->\n)?^```(?P<kind>\w+)(?: title="(?P<file>[^"]+)")?\n(?P<text>.*?)^```$',
    re.DOTALL | re.MULTILINE,
)
_INSTALL = "pip install --editable ."


@dataclass(frozen=True)
class Step:
    """A file to write, or a command to run with lines that its output has in this order."""

    file: str = ""
    content: str = ""
    command: str = ""
    shown: tuple[str, ...] = ()


def steps(text: str) -> Iterator[Step]:
    """What a tutorial tells its reader to do."""
    for block in _BLOCK.finditer(text):
        if block["unrun"]:
            continue
        if block["file"]:
            yield Step(file=block["file"], content=block["text"])
        elif block["kind"] == "console":
            yield from commands(block["text"])


def commands(text: str) -> Iterator[Step]:
    """The commands of a block, each with the output that is shown below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield Step(command=command, shown=tuple(line for line in shown if line.strip() not in ("", "...")))


class Reader:
    """Somebody who does what is written, in a folder of their own."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "work"
        self.folder.mkdir()
        self._site = home / "site"
        here = Path(sys.executable).parent
        self._environment = {
            **os.environ,
            "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self._site),
            "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "template"),
        }

    def do(self, step: Step) -> None:
        """Follow one step."""
        if step.file:
            target = self.folder / step.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(step.content)
        elif step.command.startswith("cd "):
            self.folder = self.folder / step.command.removeprefix("cd ")
            assert self.folder.is_dir()
        else:
            self._run(step)

    def _run(self, step: Step) -> None:
        offline = f"uv pip install --offline --no-deps --no-build-isolation --upgrade --target {self._site} ."
        command = step.command.replace(_INSTALL, offline)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"$ {step.command}\n{done.stdout}"
        lines = iter(done.stdout.splitlines())
        for shown in step.shown:
            assert any(shown == line.rstrip() for line in lines), f"$ {step.command}\nmissing: {shown}\n{done.stdout}"


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: str(path.stem))
def test_a_reader_gets_what_the_tutorial_shows(tutorial: Path, tmp_path: Path) -> None:
    found = list(steps(tutorial.read_text(encoding="utf-8")))
    assert any(step.file for step in found) and any(step.shown for step in found)
    reader = Reader(tmp_path)
    for step in found:
        reader.do(step)
