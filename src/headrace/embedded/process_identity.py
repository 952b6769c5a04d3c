"""What tells a process from a later one with the same number."""

from __future__ import annotations

from pathlib import Path


def identity_of(pid: int) -> str:
    """The process id and the moment at which that process began; only the id where the system does not tell.

    A process that ended, and that nobody asked about yet, has begun at no moment.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(pid)
    fields = stat.rpartition(")")[2].split()
    if fields[0] == "Z":
        return str(pid)
    return f"{pid} {boot} {fields[19]}"
