"""Frames on the pipe between host and plugin process: length-prefixed msgpack, one call at a time.

A frame is four bytes of length (big-endian) and that many bytes of msgpack. The host sends a Call, the plugin's process
answers with one Reply.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.connector.wire import Failure, ReadResult
from headrace_sdk import (
    DeleteBatch,
    Delivered,
    EventBatch,
    Member,
    MemberBatch,
    Outcome,
    Outcomes,
    Pending,
    Rejected,
    Request,
    Response,
    Retry,
    Warned,
)

MAX_FRAME_BYTES = 128 * 1024 * 1024
"""Largest frame. Neither side sends a longer one, and both end the line before reading one."""


class Call(msgspec.Struct, frozen=True):
    """A call of the host: a method name and its argument, encoded."""

    method: str
    argument: msgspec.Raw


class Reply(msgspec.Struct, frozen=True):
    """The answer: a result, or why there is none."""

    result: msgspec.Raw
    failure: Failure | None = None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "load": the entry point, and the limit of the address space in bytes (0: none)."""

    entry_point: str
    value: str
    memory_bytes: int = 0


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "open": makes an instance of a connector with these settings."""

    instance: str
    connector: str
    settings: dict[str, Any]


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "close": forgets an instance."""

    instance: str


class RowsCall(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "rows"."""

    instance: str
    members: list[Member]


class MembersCall(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "add_members" and "remove_members"."""

    instance: str
    batch: MemberBatch


class EventsCall(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "send_events"."""

    instance: str
    batch: EventBatch


class DeleteCall(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "delete"."""

    instance: str
    batch: DeleteBatch


class ReadCall(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "read": requests of one instance with the vendor's answers to them."""

    instance: str
    reads: list[tuple[Request, Response]]


class NormaliseCall(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "normalise": by an instance, or, when that is empty, by a connector without settings."""

    values: list[tuple[str, str]]
    instance: str = ""
    connector: str = ""


class OutcomeFrame(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome: `kind` is "delivered", "warning", "rejected", "retry" or "pending", the rest as it has it."""

    kind: str
    reason: str = ""
    field: str = ""
    after_s: float | None = None
    job: str = ""


class ReadFrame(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer means: the parts of `Outcomes`, or the failure."""

    items: tuple[OutcomeFrame, ...] = ()
    unauthorized: str = ""
    misconfigured: str = ""
    throttle_s: float | None = None
    failure: Failure | None = None


def read_frame(result: ReadResult) -> ReadFrame:
    """The meaning of an answer, to be sent."""
    found = result.outcomes
    if found is None:
        return ReadFrame(failure=result.failure)
    return ReadFrame(
        items=tuple(map(_outcome_frame, found.items)),
        unauthorized=found.unauthorized,
        misconfigured=found.misconfigured,
        throttle_s=found.throttle_s,
    )


def read_result(frame: ReadFrame) -> ReadResult:
    """The meaning of an answer, as it came.

    Raises:
        ValueError: An outcome is of no known kind.
    """
    if frame.failure is not None:
        return ReadResult(failure=frame.failure)
    return ReadResult(
        outcomes=Outcomes(
            items=tuple(map(_outcome, frame.items)),
            unauthorized=frame.unauthorized,
            misconfigured=frame.misconfigured,
            throttle_s=frame.throttle_s,
        )
    )


def _outcome_frame(outcome: Outcome) -> OutcomeFrame:
    if isinstance(outcome, Delivered):
        return OutcomeFrame(kind="delivered")
    if isinstance(outcome, Warned):
        return OutcomeFrame(kind="warning", reason=outcome.reason)
    if isinstance(outcome, Rejected):
        return OutcomeFrame(kind="rejected", reason=outcome.reason, field=outcome.field)
    if isinstance(outcome, Pending):
        return OutcomeFrame(kind="pending", job=outcome.job, after_s=outcome.after_s)
    return OutcomeFrame(kind="retry", reason=outcome.reason, after_s=outcome.after_s)


def _outcome(frame: OutcomeFrame) -> Outcome:
    if frame.kind == "delivered":
        return Delivered()
    if frame.kind == "warning":
        return Warned(reason=frame.reason)
    if frame.kind == "rejected":
        return Rejected(reason=frame.reason, field=frame.field)
    if frame.kind == "retry":
        return Retry(reason=frame.reason, after_s=frame.after_s)
    if frame.kind == "pending":
        return Pending(job=frame.job, after_s=frame.after_s or 0.0)
    raise ValueError(f"an outcome is of the unknown kind {frame.kind!r}")
