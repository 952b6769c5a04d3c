"""Ids: how each is made, and which partition a thing belongs to."""

from __future__ import annotations

import hashlib
import os
import time
import zlib


def new_time_ordered_id() -> str:
    """A new id of 32 hex digits whose order is the order of making (48 bits of milliseconds, 80 random)."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def time_ordered_floor(moment_us: int) -> str:
    """The smallest time-ordered id made at or after a moment in microseconds: for range scans."""
    return f"{max(moment_us, 0) // 1000:012x}" + "0" * 20


def time_ordered_us(made: str) -> int:
    """The moment at which a time-ordered id was made, in microseconds, to the millisecond."""
    return int(made[:12], 16) * 1_000


def profile_id(workspace_id: str, message_id: str) -> str:
    """The id of the profile that an event creates: the same event always gives the same id."""
    digest = hashlib.blake2b(f"{workspace_id}\x1f{message_id}".encode(), digest_size=12)
    return f"p{digest.hexdigest()}"


def event_key(workspace_id: str, message_id: str) -> str:
    """The database id of an event: unique per workspace and message id."""
    return f"{workspace_id}\x1f{message_id}"


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key (a profile id, an identity key), from 0 to partitions - 1."""
    return zlib.crc32(key.encode()) % partitions
