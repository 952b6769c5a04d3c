"""Making all indexes: a step of its own, run once before services start, never by a service."""

from __future__ import annotations

from headrace.rpc.idempotency import INDEXES as REQUEST_INDEXES
from headrace.service import SERVICES, indexes_of, retired_indexes_of
from headrace.storage.mongo.client import Database
from headrace.storage.mongo.log import INDEXES as LOG_INDEXES


async def make_indexes(db: Database) -> None:
    """Make the indexes of the log and of every service; those that exist already are left as they are.

    Those of earlier versions are dropped, after the ones that take their places are there.

    Raises:
        pymongo.errors.OperationFailure: An index of the same name and another form exists.
    """
    for indexes in (LOG_INDEXES, REQUEST_INDEXES, *map(indexes_of, SERVICES)):
        for collection, models in indexes.items():
            await db[collection].create_indexes(list(models))
    for service in SERVICES:
        for collection, names in retired_indexes_of(service).items():
            for name in (await db[collection].index_information()).keys() & set(names):
                await db[collection].drop_index(name)
