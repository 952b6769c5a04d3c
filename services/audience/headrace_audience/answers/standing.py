"""How the stored members of an audience stand to its definition: kept exact, or as of some moment, and why.

Only a continuous audience that is computed changes with events and time. What is told of all others goes by the moment
as of which their members are: by time alone nobody leaves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.domain.times import format_time_us
from headrace_audience.definitions.stored import keeps_members
from headrace_audience.language.definition import Definition
from headrace_audience.store import ARCHIVED, COMPUTED, DRAFT, FILLING, PAUSED


@dataclass(frozen=True, slots=True)
class Standing:
    """How members stand to the definition.

    Attributes:
        is_live: Whether they follow events and time.
        as_of_us: The moment as of which they are, in microseconds; 0 when they are of now, there are none, or it is
            not known. Those of a continuous audience of groups are live, and a little behind.
        next_us: When they are computed next, of an audience that is refreshed at intervals and is computed; 0.
        why: Why they are not live, in a sentence; empty when they are.
        are_none: Whether nobody can be in, because the audience was not filled yet or is put away.
    """

    is_live: bool
    as_of_us: int = 0
    next_us: int = 0
    why: str = ""
    are_none: bool = False

    def told(self, stored: bool, now: bool) -> str:
        """What is stored, and why the definition need not say the same.

        Args:
            stored: Whether the person or the group is a member as stored.
            now: Whether the definition holds now.
        """
        as_of = f", as of {format_time_us(self.as_of_us)}" if self.as_of_us else ""
        return f"Stored: {in_or_out(stored)}{as_of}; by the definition now: {in_or_out(now)}. {self.why}"


def standing(document: Mapping[str, Any], definition: Definition) -> Standing:
    """How the members of an audience stand to its definition.

    Args:
        document: The audience as it is stored.
        definition: What its `def` says.
    """
    state = document["state"]
    if state == DRAFT:
        return Standing(is_live=False, why="It is a draft: nobody is in it before it is activated.", are_none=True)
    if state == ARCHIVED:
        return Standing(is_live=False, why="It is archived: nobody is in it before it is activated.", are_none=True)
    refreshed_us = document.get("refreshed", 0)
    if state == PAUSED:
        # One that follows events was exact until it was paused.
        as_of_us = refreshed_us if definition.is_batch else document.get("paused", 0)
        return Standing(is_live=False, as_of_us=as_of_us, why="It is paused: its members stay as they are.")
    if keeps_members(document):
        as_of_us = refreshed_us if definition.is_batch else document.get("paused", 0)
        why = "Its members stay as they are until its new version takes their place."
        return Standing(is_live=False, as_of_us=as_of_us, why=why)
    if state == FILLING and not refreshed_us:
        why = "It is being filled: nobody is in it before that is done."
        return Standing(is_live=False, why=why, are_none=True)
    if definition.kind == "static":
        why = "It is static: computed once, its members stay as they are."
        return Standing(is_live=False, as_of_us=refreshed_us, why=why)
    if definition.refresh_us:
        next_us = document.get("next", 0) if state in COMPUTED else 0
        why = f"It is refreshed next at {format_time_us(next_us)}." if next_us else "It is refreshed at intervals."
        return Standing(is_live=False, as_of_us=refreshed_us, next_us=next_us, why=why)
    return Standing(is_live=True, as_of_us=refreshed_us if definition.is_batch else 0)


def in_or_out(is_in: bool) -> str:
    """A membership in a word."""
    return "in" if is_in else "out"
