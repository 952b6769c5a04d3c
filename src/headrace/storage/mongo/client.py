"""The one place that knows which MongoDB driver is used.

Motor and PyMongo's AsyncMongoClient have the same method names; this file hides the few
differences, and the type of either is PyMongo's. HEADRACE_MONGO_DRIVER chooses.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

Document = dict[str, Any]
Client = AsyncMongoClient[Document]
Database = AsyncDatabase[Document]
Collection = AsyncCollection[Document]
Session = AsyncClientSession
Driver = Literal["motor", "pymongo"]

DURABLE = WriteConcern(w="majority", j=True)
"""What an acknowledged write means in Headrace: on a majority, in the journal."""


def connect(url: str, *, driver: Driver = "pymongo", timeout_ms: int = 5_000) -> Client:
    """Make a client; no connection is opened before the first call.

    Args:
        url: A MongoDB connection string.
        driver: "pymongo" (AsyncMongoClient) or "motor".
        timeout_ms: How long a call waits for a server before it fails, in milliseconds.
    """
    options: dict[str, Any] = {
        "serverSelectionTimeoutMS": timeout_ms,
        "connectTimeoutMS": timeout_ms,
        "appname": "headrace",
        "tz_aware": True,
        "w": "majority",
        "journal": True,
        "readConcernLevel": "majority",
        "retryWrites": True,
    }
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient

        return cast("Client", AsyncIOMotorClient(url, **options))
    return AsyncMongoClient(url, **options)


async def close(client: Client) -> None:
    """Close a client of either driver."""
    result = client.close()
    if inspect.isawaitable(result):
        await result


@asynccontextmanager
async def transaction(client: Client, *, max_commit_ms: int = 10_000) -> AsyncIterator[Session]:
    """Run a block in a snapshot transaction: commit at its end, abort when it raises.

    The caller decides what to do about a PyMongoError with the label TransientTransactionError.
    """
    maybe_session: Any = client.start_session()
    session: Session = await maybe_session if inspect.isawaitable(maybe_session) else maybe_session
    async with session:
        maybe_transaction: Any = session.start_transaction(
            read_concern=ReadConcern("snapshot"),
            write_concern=DURABLE,
            max_commit_time_ms=max_commit_ms,
        )
        context: Any = await maybe_transaction if inspect.isawaitable(maybe_transaction) else maybe_transaction
        async with context:
            yield session


async def aggregate(
    collection: Collection, pipeline: Sequence[Mapping[str, Any]], **options: Any
) -> AsyncIterator[Document]:
    """Yield the documents of an aggregation, with either driver."""
    maybe_cursor: Any = collection.aggregate(pipeline, **options)
    cursor: Any = await maybe_cursor if inspect.isawaitable(maybe_cursor) else maybe_cursor
    async for document in cursor:
        yield document
