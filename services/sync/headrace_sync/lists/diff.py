"""List syncs: what a member should have on the vendor's list against what may be there. Pure.

A row is written down as SENT *before* it goes to the vendor and becomes ACKNOWLEDGED by the answer. So whatever may be
on the list is known, even when the answer or the whole process was lost in between: a SENT row that is wanted is
sent again (adding twice changes nothing), one that is not wanted is removed. A row becomes SENT again before its
removal goes to the vendor, for the person may come back before anybody knows what became of it. A row leaves the record
only when the vendor confirmed its removal, or refused to add it, or when another member holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class RowState(IntEnum):
    """How sure it is that a row is on the vendor's list."""

    ELSEWHERE = -1
    """It is or may be on the list that the sync filled before; nothing is known of the one that it fills now."""
    SENT = 0
    ACKNOWLEDGED = 1


class RowChange(IntEnum):
    """What became of the rows of a member in a pass, beside what is stored of them."""

    NONE = 0
    """They are as they are stored."""
    ACKNOWLEDGED = 1
    """They are those that are stored, and the vendor has all of them."""
    REPLACED = 2
    """They are others, or the vendor has some of them."""


@dataclass(slots=True)
class HeldRow:
    """A row that is or may be on the vendor's list.

    Attributes:
        data: What was added, as the connector gave it: removal sends the same.
        state: How sure it is.
    """

    data: Any
    state: RowState = RowState.SENT


@dataclass(slots=True)
class MemberRecord:
    """What a list sync knows of one profile.

    Attributes:
        profile_id: Profile id.
        desired: True when the profile is a member of the audience.
        version: Version of the membership change that said so; -1 when none did.
        rows: Rows that are or may be on the list, by key.
        merged_into: The survivor, while the rows wait to be handed over to it.
    """

    profile_id: str
    desired: bool = False
    version: int = -1
    rows: dict[str, HeldRow] = field(default_factory=dict)
    merged_into: str = ""

    @property
    def is_acknowledged(self) -> bool:
        """True when the vendor has all rows."""
        return all(row.state is RowState.ACKNOWLEDGED for row in self.rows.values())

    def change(self, *, member: bool, version: int, merged_into: str = "") -> bool:
        """Take in a membership change; False when it is old news."""
        if version <= self.version:
            return False
        self.version = version
        self.desired = member
        self.merged_into = "" if member else merged_into
        return True

    def receive(self, rows: Mapping[str, HeldRow]) -> None:
        """Take over rows from a profile that was merged into this one; a doubt of either stays."""
        for key, row in rows.items():
            mine = self.rows.get(key)
            if mine is None:
                self.rows[key] = HeldRow(row.data, row.state)
            else:
                mine.state = min(mine.state, row.state)

    def acknowledge(self, keys: Iterable[str]) -> None:
        """The vendor has these rows."""
        for key in keys:
            if key in self.rows:
                self.rows[key].state = RowState.ACKNOWLEDGED

    def forget(self, keys: Iterable[str]) -> None:
        """These rows are not on the list on behalf of this profile."""
        for key in keys:
            self.rows.pop(key, None)


@dataclass(frozen=True, slots=True)
class Difference:
    """What must be sent so that the list is right for one profile.

    Attributes:
        add: Rows to add: key -> data.
        remove: Rows to remove unless another member holds them: key -> data.
    """

    add: dict[str, Any]
    remove: dict[str, Any]

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


def difference(record: MemberRecord, wanted: Mapping[str, Any]) -> Difference:
    """The difference between what may be on the list for a profile and what should be.

    Args:
        record: What is known of the profile.
        wanted: Rows that the connector makes of the member now: key -> data; ignored when not desired.
    """
    should = wanted if record.desired else {}
    add = {
        key: data
        for key, data in should.items()
        if key not in record.rows or record.rows[key].state is not RowState.ACKNOWLEDGED
    }
    remove = {key: row.data for key, row in record.rows.items() if key not in should}
    return Difference(add, remove)


def intend(record: MemberRecord, add: Mapping[str, Any]) -> bool:
    """Write down rows that are about to be added; False when all of them were written down before."""
    changed = False
    for key, data in add.items():
        if key not in record.rows or record.rows[key].state is RowState.ELSEWHERE:
            record.rows[key] = HeldRow(data)
            changed = True
    return changed


def doubt(record: MemberRecord, keys: Iterable[str]) -> bool:
    """Write down rows that are about to be removed; False when all of them were in doubt before."""
    changed = False
    for key in keys:
        row = record.rows.get(key)
        if row is not None and row.state is not RowState.SENT:
            row.state = RowState.SENT
            changed = True
    return changed


def removable(difference_keys: Iterable[str], held_by_others: set[str]) -> tuple[list[str], list[str]]:
    """(keys to remove at the vendor, keys only to forget because another member holds them)."""
    to_send: list[str] = []
    to_forget: list[str] = []
    for key in difference_keys:
        (to_forget if key in held_by_others else to_send).append(key)
    return to_send, to_forget


def resend_everything(record: MemberRecord) -> None:
    """Doubt every acknowledgement, so that a full pass sends all rows again."""
    for row in record.rows.values():
        row.state = min(row.state, RowState.SENT)


def leave_behind(record: MemberRecord) -> None:
    """The rows are on the list that the sync filled before."""
    for row in record.rows.values():
        row.state = RowState.ELSEWHERE
