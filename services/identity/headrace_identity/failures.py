"""What a failure of a micro-batch means: another worker was quicker, a store is away, or an event is at fault."""

from __future__ import annotations

import asyncio

import bson.errors
import pymongo.errors
import redis.exceptions

from headrace.rpc.errors import is_unavailable
from headrace.storage.mongo.log import DUPLICATE_KEY

_WRITE_CONFLICT = 112
_SNAPSHOT_UNAVAILABLE = 246
_NO_SUCH_TRANSACTION = 251
_LOCK_TIMEOUT = 24
_TRANSACTION_TOO_LONG = 290
_CONFLICTS = {
    DUPLICATE_KEY,
    _LOCK_TIMEOUT,
    _WRITE_CONFLICT,
    _SNAPSHOT_UNAVAILABLE,
    _NO_SUCH_TRANSACTION,
    _TRANSACTION_TOO_LONG,
}
# What the server says about a document that it can never take, however often it is sent.
_BAD_VALUE = 2
_OBJECT_TOO_LARGE = 10334
_KEY_TOO_LONG = 17280
_REFUSED_DOCUMENT = {_BAD_VALUE, _OBJECT_TOO_LARGE, _KEY_TOO_LONG}


def is_conflict(error: BaseException) -> bool:
    """True when another transaction changed or inserted the same: resolve again, on what it left."""
    if isinstance(error, pymongo.errors.ConnectionFailure):
        return False
    if isinstance(error, pymongo.errors.BulkWriteError):
        codes = {e.get("code") for e in error.details.get("writeErrors", ())}
        return bool(codes) and codes <= _CONFLICTS
    if not isinstance(error, pymongo.errors.OperationFailure):
        return False
    return error.code in _CONFLICTS or error.has_error_label("TransientTransactionError")


def is_events_fault(error: BaseException) -> bool:
    """True when it is the content of an event that cannot be processed, so that trying again is useless.

    Failures of stores are never an event's fault, known or not: a full disk must not park what was accepted.
    """
    if isinstance(error, bson.errors.BSONError | pymongo.errors.DocumentTooLarge):
        return True
    if isinstance(error, pymongo.errors.BulkWriteError):
        codes = {e.get("code") for e in error.details.get("writeErrors", ())}
        return bool(codes & _REFUSED_DOCUMENT)
    if isinstance(error, pymongo.errors.OperationFailure):
        return error.code in _REFUSED_DOCUMENT
    stores = (pymongo.errors.PyMongoError, redis.exceptions.RedisError, OSError, MemoryError, asyncio.TimeoutError)
    return not isinstance(error, stores) and not is_unavailable(error)
