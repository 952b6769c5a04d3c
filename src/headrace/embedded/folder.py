"""The data folder of a platform on one machine: who uses it, its secrets, and files that appear whole or not at all."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from headrace.embedded.errors import EmbeddedError, FolderInUse, WrongOptions

_OWNER_ONLY = 0o600
_KEY_BYTES = 32


class Secrets(NamedTuple):
    """What the services of one platform share."""

    service_token: str
    """Shown by services to each other."""
    master_key: str
    """Seals secrets at rest: 32 bytes in base64."""


class DataFolder:
    """A data folder, held by this process until `release`."""

    def __init__(self, path: Path) -> None:
        """Take the folder, made when missing.

        Raises:
            FolderInUse: Another process holds it.
            EmbeddedError: It cannot be made or written.
        """
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self.path / "lock").open("a+")
        except OSError as error:
            raise EmbeddedError(
                f"data folder {self.path} cannot be used ({error.strerror}): choose another by --data-dir"
            ) from error
        self._lock: IO[str] | None = _take(lock, self.path)

    @property
    def logs(self) -> Path:
        """Folder of the logs of services and stores."""
        return self.folder("logs")

    @property
    def pids(self) -> Path:
        """Folder of notes on which processes run."""
        return self.folder("pids")

    def folder(self, name: str) -> Path:
        """A folder in it, made when missing."""
        inside = self.path / name
        inside.mkdir(mode=0o700, exist_ok=True)
        return inside

    def secrets(self) -> Secrets:
        """The platform's secrets, made at the first call and kept.

        Raises:
            EmbeddedError: The file that holds them is damaged.
        """
        path = self.path / "secrets.json"
        kept = read_json(path)
        if kept is None:
            made = Secrets(
                secrets.token_urlsafe(_KEY_BYTES), base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
            )
            write_private_json(path, made._asdict())
            return made
        try:
            return Secrets(str(kept["service_token"]), str(kept["master_key"]))
        except KeyError as error:
            raise EmbeddedError(f"{path} lacks {error}: restore it, or start with an empty --data-dir") from None

    def require_layout(self, **layout: int) -> None:
        """Check that the data was made with these settings, which may never change; the first call keeps them.

        Raises:
            WrongOptions: Names the setting that was another.
        """
        path = self.path / "layout.json"
        kept = read_json(path)
        if kept is None:
            write_private_json(path, layout)
            return
        for name, value in layout.items():
            if kept.get(name, value) != value:
                raise WrongOptions(
                    f"HEADRACE_{name.upper()} is {value}, but {self.path} was made with {kept[name]}, and it can never "
                    "change: set it so, or choose another --data-dir"
                )

    def release(self) -> None:
        """Let others use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def write_private_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that only its owner can read; it is there whole or not at all, also after a crash."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), _OWNER_ONLY)
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None when there is no such file.

    Raises:
        EmbeddedError: The file is not a JSON object.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise EmbeddedError(f"{path} is damaged: restore it, or start with an empty --data-dir") from error
    if not isinstance(content, dict):
        raise EmbeddedError(f"{path} is damaged: restore it, or start with an empty --data-dir")
    return content


def _take(lock: IO[str], path: Path) -> IO[str]:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        whose = f"process {holder}" if holder else "another process"
        raise FolderInUse(f"data folder {path} is in use by {whose}: stop it or choose another by --data-dir") from None
    except OSError:
        lock.close()
        raise
    with suppress(OSError):  # the number only helps whoever comes second
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock
