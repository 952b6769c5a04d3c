"""What a list sync would do for people, and what of it may be done unasked. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import IntEnum

from headrace_sync.lists.diff import Difference, MemberRecord, RowState
from headrace_sync.people.consents import REASON_PREFIX
from headrace_sync.planning.rules import ERASED

APPROVAL = "approval"
"""Reason of a member whose changes wait to be approved."""


class Operation(IntEnum):
    """What would be done for a person; the numbers are those of the proto."""

    NOTHING = 0
    ADD = 1
    UPDATE = 2
    REMOVE = 3
    RESEND = 4


@dataclass(slots=True)
class Counts:
    """People for whom the list would change."""

    added: int = 0
    updated: int = 0
    removed: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.updated or self.removed)

    def take(self, operation: Operation) -> None:
        """Count a person."""
        self.added += operation is Operation.ADD
        self.updated += operation is Operation.UPDATE
        self.removed += operation is Operation.REMOVE


@dataclass(slots=True)
class Window:
    """What was changed of a list since a moment.

    Attributes:
        begun_us: The moment.
        size: People on the list then.
        added: People added since, unasked.
        others: People changed or taken off since, unasked.
        granted: People added since by approval.
    """

    begun_us: int
    size: int
    added: int = 0
    others: int = 0
    granted: int = 0

    def share(self, counts: Counts) -> float:
        """The share of the list, in percent, that is changed since the moment when these people are too.

        The first fill of a list replaces nobody, so additions do not count where the list was empty; changes of what
        was added since then do.
        """
        others = self.others + counts.updated + counts.removed
        held = self.size + self.granted
        added = self.added + counts.added if held else 0
        base = held or self.added
        if not others and not added:
            return 0.0
        return 100.0 * (others + added) / base if base else 100.0

    def count(self, counts: Counts) -> None:
        """Take in what is being changed unasked."""
        self.added += counts.added
        self.others += counts.updated + counts.removed


def operation_of(record: MemberRecord, changes: Difference) -> Operation:
    """What sending a difference does for a person.

    Rows that are on the record and are sent again change nothing on the list; everything else does.

    Args:
        record: What is known of the person, before anything of the difference is written down.
        changes: What is to be sent.
    """
    if not changes:
        return Operation.NOTHING
    here = {key for key, row in record.rows.items() if row.state is not RowState.ELSEWHERE}
    new = changes.add.keys() - here
    gone = changes.remove.keys()
    if not new and not gone:
        return Operation.RESEND
    if not record.rows or not (here or gone):
        return Operation.ADD
    return Operation.UPDATE if changes.add or record.rows.keys() - gone else Operation.REMOVE


def digest(changes: Difference) -> str:
    """What an approval is bound to: which rows are added, with all that is sent of them, and which are removed.

    A row's key is what the vendor finds a person by; connectors leave attributes out of it.
    """
    added = [[key, changes.add[key]] for key in sorted(changes.add)]
    canonical = json.dumps([added, sorted(changes.remove)], separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def never_waits(reason: str) -> bool:
    """True when somebody is taken off a list for a reason that no approval may hold up."""
    return reason == ERASED or reason.startswith(REASON_PREFIX)
