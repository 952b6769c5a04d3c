"""Walking an audience and what a list sync knows of it side by side, a page at a time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page begins.

    Attributes:
        token: The audience's page token of the page that holds what comes next.
        after: The last profile id that was looked at.
    """

    token: str = ""
    after: str = ""


def next_position(
    position: Position, *, members: Sequence[str], next_token: str, known: Sequence[str], size: int
) -> Position | None:
    """Where the page after this one begins; its `after` is also where this one ends. None: this is the last.

    Args:
        position: Where this page begins.
        members: Ids of the audience's page, sorted.
        next_token: The audience's token of the page after that; empty when there is none.
        known: Ids that the sync knows after the position, sorted, at most `size`.
        size: Most ids of either.
    """
    ends = []
    if next_token:
        ends.append(max(members[-1] if members else position.after, position.after))
    if len(known) == size:
        ends.append(known[-1])
    if not ends:
        return None
    after = min(ends)
    is_through = bool(next_token) and (not members or members[-1] <= after)
    return Position(next_token if is_through else position.token, after)
