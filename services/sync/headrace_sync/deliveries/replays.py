"""Which failed deliveries are put back in the queue. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.storage.mongo.client import Document

NOT_REPEATED = "it may have arrived, and the destination counts repetitions: replay it by hand if it did not"
"""Ends the reason of a delivery that may have arrived at a vendor who counts repetitions."""


@dataclass(frozen=True, slots=True)
class ReplayFilter:
    """What is wanted of what failed.

    Attributes:
        ids: Only these; empty for all.
        reason: Only those whose reason has this text in it; empty for any.
        status: Only those whose last answer had this status; 0 for any.
        from_us: Only those that failed at or after this; 0 for any.
        before_us: Only those that failed before this; 0 for any.
        even_if_sent: Also those that may have arrived at a vendor who counts repetitions.
    """

    ids: Sequence[str] = ()
    reason: str = ""
    status: int = 0
    from_us: int = 0
    before_us: int = 0
    even_if_sent: bool = False

    def query(self) -> Document:
        """The conditions besides the ids, on deliveries and members as they are stored."""
        conditions: list[Document] = []
        if self.reason:
            conditions.append({"r": {"$regex": re.escape(self.reason)}})
        if self.status:
            conditions.append({"sc": self.status})
        if self.from_us:
            conditions.append({"u": {"$gte": self.from_us}})
        if self.before_us:
            conditions.append({"u": {"$lt": self.before_us}})
        if not (self.ids or self.even_if_sent):
            conditions.append({"r": {"$not": {"$regex": f"{re.escape(NOT_REPEATED)}$"}}})
        return {"$and": conditions} if conditions else {}
