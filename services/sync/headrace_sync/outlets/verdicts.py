"""What became of an item after a try to send it, and what the vendor's answers mean for that. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from headrace_sdk import Delivered, Outcome, Pending, Rejected, Retry, Warned

LONGEST_REASON = 500


class Kind(StrEnum):
    """What became of an item."""

    DELIVERED = "delivered"
    """The vendor accepted it."""
    WARNED = "warning"
    """The vendor accepted it with a remark."""
    REJECTED = "rejected"
    """The vendor will never accept it as it is."""
    SKIPPED = "skipped"
    """The connector left it out."""
    RETRY = "retry"
    """It was refused, or certainly did not arrive: a try that counts."""
    LOST = "lost"
    """It may have arrived, and no answer says so: a try that counts."""
    PLUGIN = "plugin"
    """The plugin failed on it."""
    UNTRIED = "untried"
    """It was not sent, for a reason that is not its own: counts as no try."""
    PENDING = "pending"
    """The vendor took it into a job, whose id is the reason: what becomes of it is asked for later."""
    AGAIN = "again"
    """The vendor refused its request because of other items: it is sent at once without them; never the last word."""
    GONE = "gone"
    """It is somebody else's by now: nothing is to be done."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one item.

    Attributes:
        kind: What became of it.
        reason: Why, in a sentence without secrets and personal data; empty when DELIVERED.
        code: Status of the vendor's answer, 0 when there was none.
        after_s: Seconds to wait before the next try; None leaves it to the back-off.
        exchange: Id of what is kept of the request and its answer; empty when nothing is.
    """

    kind: Kind
    reason: str = ""
    code: int = 0
    after_s: float | None = None
    exchange: str = ""


def of_outcome(outcome: Outcome, code: int) -> Verdict:
    """The verdict in a connector's outcome."""
    if isinstance(outcome, Delivered):
        return Verdict(Kind.DELIVERED, code=code)
    if isinstance(outcome, Warned):
        return Verdict(Kind.WARNED, outcome.reason, code)
    if isinstance(outcome, Rejected):
        return Verdict(Kind.REJECTED, with_field(outcome.reason, outcome.field), code)
    if isinstance(outcome, Pending):
        return Verdict(Kind.PENDING, outcome.job, code, outcome.after_s)
    assert isinstance(outcome, Retry)
    return Verdict(Kind.RETRY, outcome.reason, code, outcome.after_s)


def untried_unless_accepted(outcomes: Sequence[Outcome], code: int, reason: str) -> list[Verdict]:
    """The verdicts when the vendor refused the destination as a whole: what it did not accept waits."""
    return [
        of_outcome(o, code) if isinstance(o, Delivered | Warned) else Verdict(Kind.UNTRIED, reason, code)
        for o in outcomes
    ]


def without_culprits(outcomes: Sequence[Outcome], code: int) -> list[Verdict] | None:
    """The verdicts when the vendor carried out nothing of a request because of some items; None when it names none."""
    if all(isinstance(outcome, Rejected) for outcome in outcomes):
        return None
    return [of_outcome(o, code) if isinstance(o, Rejected) else Verdict(Kind.AGAIN, code=code) for o in outcomes]


def with_field(reason: str, field: str) -> str:
    """A reason that names the field at fault."""
    return f"{field}: {reason}" if field and not reason.startswith(field) else reason
