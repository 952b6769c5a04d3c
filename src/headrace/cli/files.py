"""Files and arguments that hold JSON or YAML, read with errors that name the file.

A byte order mark, with which editors of Windows begin a file, is no part of its text.
"""

from __future__ import annotations

import codecs
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.cli.problems import UsageProblem
from headrace.domain.definitions import too_deep

STDIN = "-"


def read_text(path: Path) -> str:
    """The text of a file; "-" is standard input.

    Raises:
        UsageProblem: It cannot be read or is not UTF-8.
    """
    try:
        raw = sys.stdin.buffer.read() if str(path) == STDIN else path.read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{path}: not UTF-8, at byte {error.start}") from None


def read_json(path: Path) -> Any:
    """The JSON in a file; "-" is standard input.

    Raises:
        UsageProblem: It cannot be read or is no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageProblem(f"{path}: no JSON: {error}") from None
    except RecursionError:
        raise UsageProblem(f"{path}: {too_deep(text)}") from None


def json_argument(option: str, text: str) -> str:
    """JSON given on the command line, or in a file as "@file"; returned as text, checked.

    Raises:
        UsageProblem: It is no JSON.
    """
    source = read_text(Path(text[1:])) if text.startswith("@") else text
    try:
        json.loads(source)
    except ValueError as error:
        raise UsageProblem(f"{option}: no JSON: {error}; @FILE takes it from a file") from None
    except RecursionError:
        raise UsageProblem(f"{option}: {too_deep(source)}") from None
    return source


def definition_argument(option: str, text: str) -> str:
    """A definition of an audience given on the command line, or in a file as "@file", as JSON or in text form.

    Raises:
        UsageProblem: It looks like JSON, and is none.
    """
    source = read_text(Path(text[1:])) if text.startswith("@") else text
    return json_argument(option, source) if source.lstrip().startswith("{") else source


def read_lines(path: Path) -> list[str]:
    """The lines of a file; "-" is standard input. Only line feeds end one: JSON may hold other separators as they are.

    Raises:
        UsageProblem: It cannot be read or is not UTF-8.
    """
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    return lines if lines[-1] else lines[:-1]


def ndjson_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers from 1, without blank ones; "-" is standard input.

    Raises:
        UsageProblem: It cannot be read.
    """
    try:
        stream = sys.stdin.buffer if str(path) == STDIN else path.open("rb")
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror or error}") from None
    with stream:
        for number, line in enumerate(stream, start=1):
            text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
            if text:
                yield number, text


def new_request_id() -> str:
    """A request id for one call: repeating that call is then harmless."""
    return str(uuid.uuid4())
