"""What a list sync would do for people, and what of it may be done unasked. Pure."""

from __future__ import annotations

from enum import IntEnum

from headrace_sync.listdiff import Difference, MemberRecord


class Operation(IntEnum):
    """What would be done for a person; the numbers are those of the proto."""

    NOTHING = 0
    ADD = 1
    UPDATE = 2
    REMOVE = 3
    RESEND = 4


def operation_of(record: MemberRecord, changes: Difference) -> Operation:
    """What sending a difference does for a person.

    Rows that are on the record and are sent again change nothing on the list; everything else does.

    Args:
        record: What is known of the person, before anything of the difference is written down.
        changes: What is to be sent.
    """
    if not changes:
        return Operation.NOTHING
    new = changes.add.keys() - record.rows.keys()
    gone = changes.remove.keys()
    if not new and not gone:
        return Operation.RESEND
    if not record.rows:
        return Operation.ADD
    return Operation.UPDATE if changes.add or record.rows.keys() - gone else Operation.REMOVE
