"""Plugins in other languages: a folder with a `headrace-plugin.toml`, which names the command that serves."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

FILE_NAME = "headrace-plugin.toml"

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$")]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=4_096, pattern=r"^[^\x00]*$")]


class CommandFile(BaseModel):
    """What the file says.

    Attributes:
        name: Name of the plugin, as a distribution would have it.
        version: Its version.
        api: Version of the plugin interface that it was written for, such as "1.0".
        command: The program, found on PATH or relative to the folder, and its arguments.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Name
    version: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    api: Annotated[str, StringConstraints(pattern=r"^\d{1,4}\.\d{1,4}$")]
    command: Annotated[list[_Word], Field(min_length=1, max_length=100)]


def read_command(folder: Path) -> CommandFile:
    """The file in a plugin's folder.

    Raises:
        ValueError: It is not there, or not as it should be; the text says what is wrong.
    """
    path = folder / FILE_NAME
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise ValueError(f"{path} cannot be read: {error}") from None
    try:
        return CommandFile.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
