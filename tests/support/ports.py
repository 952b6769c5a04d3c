"""Free ports for whole platforms."""

from __future__ import annotations

import random
import socket

_OFFSETS = (0, 1, 11, 12, 13, 14, 15, 21, 22, 23, 24, 25, 31, 32)


def free_port_base() -> int:
    """A port base whose ports, as `headrace up` uses them, are all free at this moment."""
    while True:
        base = random.randrange(20_000, 32_000, 50)  # below the range that the system gives to connections
        if all(_is_free(base + offset) for offset in _OFFSETS):
            return base


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
