"""A partition that a replica holds: how far it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Held:
    """A partition that is held."""

    token: int
    position: str
    """Last entry that is folded."""
    target: str
    """Entry that must be reached before the partition is caught up."""
    mark_us: int
    """Everything that was committed with a lower sequence is folded, but for the margin of late ones."""
    start_us: int = 0
    """The moment up to which its changes are written: memberships are not compared at an earlier one."""
    follows: bool = False
    """Whether its changes are found while its stream or the log is read, from `start_us` on, as if held since then."""
    dirty: bool = True
    saved: float = 0.0
    """When its snapshot was last stored, by the monotonic clock."""
