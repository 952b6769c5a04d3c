"""A new connector: a distribution of its own, from the template in this package."""

from __future__ import annotations

import keyword
import re
from enum import StrEnum
from pathlib import Path

from headrace_sdk import API_VERSION

TEMPLATE = Path(__file__).parent / "template"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 63
_TITLE = re.compile(r"[\w.&+()][\w .&+()-]{0,99}")


class Takes(StrEnum):
    """What a destination takes."""

    EVENTS = "events"
    MEMBERS = "members"
    BOTH = "both"


class NotMade(Exception):
    """The connector cannot be made; the text says why."""


def new_destination(folder: Path, name: str, *, title: str = "", takes: Takes = Takes.EVENTS) -> list[Path]:
    """Write the files of a destination connector.

    Args:
        folder: Where to; must be empty, or not there yet.
        name: Name of the connector: lower-case letters, digits and dashes.
        title: Name for people; made of the name when empty.
        takes: What it takes.

    Returns:
        The files, relative to the folder, sorted.

    Raises:
        NotMade: The name or title cannot be used, the folder holds something, or copier is not installed.
    """
    title = title.strip() or " ".join(part.capitalize() for part in name.split("-"))
    _check(folder, name, title)
    try:
        from copier import run_copy
    except ImportError:
        raise NotMade("copier is not installed: pip install 'headrace[author]'") from None
    data = {
        "name": name,
        "title": title,
        "takes": takes.value,
        "package": f"headrace_destination_{name.replace('-', '_')}",
        "type_name": "".join(part.capitalize() for part in name.split("-")),
        "api": API_VERSION,
    }
    run_copy(str(TEMPLATE), folder, data=data, defaults=True, quiet=True)
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _check(folder: Path, name: str, title: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME or keyword.iskeyword(name):
        raise NotMade("a name has 1 to 63 lower-case letters, digits and single dashes, and begins with a letter")
    if not _TITLE.fullmatch(title):
        raise NotMade("a title has 1 to 100 letters, digits, spaces and . & + ( ) - and begins with none of the latter")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise NotMade(f"{folder} is there already, and is not an empty folder")
