"""Repeated calls: a mutating call with a request id is carried out once, and answered the same for 24 hours.

The answer is stored after the work. A crash between the two is covered by the work itself: creations store the
request id in what they create, changes set the same values again; work that is one transaction stores the answer in it.
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
from headrace.storage.mongo.client import Database, Document, Session

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
        document = _document(workspace_id, method, request_id, request)
        known = await self._requests.find_one({"_id": document["_id"], "w": workspace_id})
        if known is not None:
            if known["d"] != document["d"]:
                raise invalid_argument("request_id", "was used with another request: make a new one for each call")
            return response.FromString(known["b"])
        answer = await act()
        try:
            await self._requests.insert_one({**document, "b": Binary(answer.SerializeToString())})
        except DuplicateKeyError:
            pass  # the same call came twice at the same time: each carried it out, which is safe, and has its answer
        return answer

    async def remember(
        self, session: Session, workspace_id: str, method: str, request_id: str, request: Message, answer: Message
    ) -> None:
        """Store the answer of a call in the transaction that is its work; `once` gives it to whoever repeats the call.

        Args:
            session: The transaction.
            workspace_id: The workspace of the call.
            method: Name of the method.
            request_id: UUID from the caller; empty stores nothing.
            request: The whole request.
            answer: The answer.

        Raises:
            pymongo.errors.PyMongoError: The same call is carried out at the same time, among others.
        """
        if request_id:
            document = _document(workspace_id, method, request_id, request)
            document["b"] = Binary(answer.SerializeToString())
            await self._requests.insert_one(document, session=session)


def _document(workspace_id: str, method: str, request_id: str, request: Message) -> Document:
    try:
        canonical = str(uuid.UUID(request_id))
    except ValueError:
        raise invalid_argument("request_id", "must be a UUID") from None
    return {
        "_id": f"{workspace_id}\x1f{method}\x1f{canonical}",
        "w": workspace_id,
        "d": hashlib.blake2b(request.SerializeToString(deterministic=True), digest_size=16).hexdigest(),
        "t": datetime.now(UTC),
    }
