"""What a pass made of a member of a list sync, and the change of the member's document that stores it."""

from __future__ import annotations

from typing import Any

import msgspec
from bson.binary import Binary

from headrace.storage.mongo.client import Document
from headrace_sync.lists.diff import MemberRecord, RowChange, RowState
from headrace_sync.plans.rules import APPROVAL
from headrace_sync.store import FAILED


def stored_rows(record: MemberRecord) -> list[Document]:
    """The rows of a record in their stored form."""
    return [
        {"k": key, "d": Binary(msgspec.json.encode(row.data)), "s": int(row.state)} for key, row in record.rows.items()
    ]


class MemberResult(msgspec.Struct, kw_only=True):
    """What a pass made of a member.

    Attributes:
        record: The record after it.
        generation: The document's `g` as the pass read it.
        state: One of MEMBER_STATES.
        reason: Why, when it is not DELIVERED.
        tries: Tries in a row that failed.
        due: When to look again; 0 when nothing is to be done.
        plan: The plan that holds what is to be done, and what that is, while it waits for approval.
        rows: What became of the record's rows.
        code: Status of the vendor's last answer; 0 when there was none.
        exchange: What is kept of the last request; empty to leave what is known.
        in_job: True when the vendor works on rows of it in a stored job.
        out_of_job: The stored job that has ended for it; empty when none has.
    """

    record: MemberRecord
    generation: int
    state: int
    reason: str = ""
    tries: int = 0
    due: int = 0
    plan: list[str] | None = None
    rows: RowChange = RowChange.NONE
    code: int = 0
    exchange: str = ""
    in_job: bool = False
    out_of_job: str = ""

    @property
    def goes_on(self) -> bool:
        """True when the pass that made it has not ended for the member: it waits for no schedule."""
        return bool(self.due) and self.state != FAILED and self.reason != APPROVAL

    @property
    def sign(self) -> tuple[Any, ...]:
        """The same for all that are stored by the same change, unless rows are replaced."""
        plan = tuple(self.plan) if self.plan else ()
        told = (self.state, self.reason, self.code, self.exchange)
        return (self.generation, self.rows, told, self.tries, self.due, plan, self.in_job, self.out_of_job)


def finish_change(result: MemberResult, now: int) -> Document:
    """The change that stores what a pass made of a member."""
    fields: Document = {"st": result.state, "r": result.reason, "sc": result.code, "at": result.tries, "u": now}
    if result.exchange:
        fields["ex"] = result.exchange
    gone = [] if result.due else ["due", "hold", "ur"]
    if result.goes_on:
        fields["op"] = True
    else:
        gone.append("op")
    if result.rows is RowChange.REPLACED:
        fields["rows"] = stored_rows(result.record)
    elif result.rows is RowChange.ACKNOWLEDGED:
        fields["rows.$[].s"] = int(RowState.ACKNOWLEDGED)
    if result.due:
        fields["due"] = result.due
    if result.plan:
        fields["pn"] = result.plan
    elif (not result.due and not result.in_job) or result.reason == APPROVAL:
        gone.append("pn")
    change: Document = {"$set": fields, **_out_of_job(result)}
    if gone:
        change["$unset"] = dict.fromkeys(gone, "")
    return change


def rows_change(result: MemberResult) -> Document:
    """The change that stores a member's rows alone, and that the pass has not ended for it."""
    fields: Document = {"op": True} if result.goes_on else {}
    if result.rows is not RowChange.NONE:
        fields["rows"] = stored_rows(result.record)
    return {"$set": fields, **_out_of_job(result)}


def _out_of_job(result: MemberResult) -> Document:
    return {"$pull": {"jb": result.out_of_job}} if result.out_of_job else {}
