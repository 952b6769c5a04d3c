"""What a check is, and the list of all of them in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.conformance.bench import Bench


class Level(StrEnum):
    """A kind of checks, from what is said of a connector to how it lives."""

    MANIFEST = "manifest"
    """What the connector says of itself holds together and can be worked with."""
    GOLDEN = "golden"
    """Its requests are those that its author has looked at."""
    BEHAVIOUR = "behaviour"
    """It reads whatever a vendor answers, over real HTTP."""
    PROPERTIES = "properties"
    """What holds for all items, tried with many made by chance."""
    HYGIENE = "hygiene"
    """It gives nothing away and touches nothing outside."""
    LIFE = "life"
    """It lives in a worker process, is interrupted, ended and started again."""


class CheckFailed(Exception):
    """A check that did not hold.

    Attributes:
        seen: What was seen, in a sentence without secrets and personal data.
    """

    def __init__(self, seen: str) -> None:
        super().__init__(seen)
        self.seen = seen


Run = Callable[["Bench"], str]
"""Runs a check. Gives what was seen; raises CheckFailed, or anything else when it cannot run."""

Needs = Callable[["Bench"], str]
"""Why a connector is not asked: what it does not declare, such as "list_sync"; empty when it is asked."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold for every connector that declares what it is about.

    Attributes:
        id: Stable: "behaviour.rate-limited".
        sentence: What must hold.
        remedy: What to do when it does not.
        run: Finds it out.
        needs: Says why a connector is not asked.
    """

    id: str
    sentence: str
    remedy: str
    run: Run
    needs: Needs

    @property
    def level(self) -> Level:
        """The level: the part of the id before the dot."""
        return Level(self.id.partition(".")[0])


CHECKS: dict[str, Check] = {}
"""All checks by id; filled by the modules that `headrace.conformance` imports."""


def always(_: Bench) -> str:
    """Every connector is asked."""
    return ""


def check(id: str, sentence: str, remedy: str, needs: Needs = always) -> Callable[[Run], Run]:
    """Declare a check, see Check."""

    def declare(run: Run) -> Run:
        assert id not in CHECKS, id
        CHECKS[id] = Check(id, sentence, remedy, run, needs)
        return run

    return declare


def require(holds: object, seen: str) -> None:
    """Fail the check under way unless something holds.

    Raises:
        CheckFailed: With what was seen.
    """
    if not holds:
        raise CheckFailed(seen)
