"""Repeated calls: a mutating call with a request id is carried out once, and answered the same for 24 hours.

The answer is stored after the work. A crash between the two is covered by the work itself: creations store the
request id in what they create, changes set the same values again.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

from bson.binary import Binary
from google.protobuf.message import Message
from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from headrace.rpc.errors import invalid_argument
from headrace.storage.mongo.client import Database

REQUEST_IDS = "request_ids"
KEPT_SECONDS = 24 * 3600

INDEXES = {
    REQUEST_IDS: [IndexModel([("t", ASCENDING)], name="expire", expireAfterSeconds=KEPT_SECONDS)],
}
"""Indexes beside that on _id."""

M = TypeVar("M", bound=Message)


class RequestIds:
    """Answers given to request ids, per workspace and method."""

    def __init__(self, db: Database) -> None:
        """Keep them in a database."""
        self._requests = db[REQUEST_IDS]

    async def once(
        self,
        workspace_id: str,
        method: str,
        request_id: str,
        request: Message,
        response: type[M],
        act: Callable[[], Awaitable[M]],
    ) -> M:
        """Carry out a call, or give the answer that it got before.

        Args:
            workspace_id: The workspace of the call.
            method: Name of the method, such as "CreateSource".
            request_id: UUID from the caller; empty carries the call out in any case.
            request: The whole request, to notice an id that is used for something else.
            response: Type of the answer.
            act: Carries it out.

        Raises:
            ApiError: INVALID_ARGUMENT, when the id is no UUID or was used with another request; and what `act` raises,
                which is not remembered.
        """
        if not request_id:
            return await act()
        try:
            canonical = str(uuid.UUID(request_id))
        except ValueError:
            raise invalid_argument("request_id", "must be a UUID") from None
        key = f"{workspace_id}\x1f{method}\x1f{canonical}"
        digest = hashlib.blake2b(request.SerializeToString(deterministic=True), digest_size=16).hexdigest()
        known = await self._requests.find_one({"_id": key, "w": workspace_id})
        if known is not None:
            if known["d"] != digest:
                raise invalid_argument("request_id", "was used with another request: make a new one for each call")
            return response.FromString(known["b"])
        answer = await act()
        try:
            await self._requests.insert_one(
                {
                    "_id": key,
                    "w": workspace_id,
                    "d": digest,
                    "b": Binary(answer.SerializeToString()),
                    "t": datetime.now(UTC),
                }
            )
        except DuplicateKeyError:
            pass  # the same call came twice at the same time: each carried it out, which is safe, and has its answer
        return answer
