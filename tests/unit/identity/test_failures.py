"""What a failure of a micro-batch means for the events in it."""

from __future__ import annotations

import bson.errors
import pymongo.errors
import pytest
import redis.exceptions
from headrace_identity.failures import is_conflict, is_events_fault

STORES = [
    pymongo.errors.OperationFailure("No space left on device", 14031),
    pymongo.errors.BulkWriteError({"writeErrors": [{"code": 14031}]}),
    pymongo.errors.ServerSelectionTimeoutError("no primary"),
    pymongo.errors.AutoReconnect("connection closed"),
    pymongo.errors.ExecutionTimeout("operation exceeded time limit", 50),
    redis.exceptions.ConnectionError("refused"),
    redis.exceptions.OutOfMemoryError("OOM command not allowed"),
    OSError(28, "No space left on device"),
    MemoryError(),
    TimeoutError(),
]
EVENTS = [
    bson.errors.InvalidDocument("key must not contain NUL"),
    pymongo.errors.DocumentTooLarge("too large"),
    pymongo.errors.OperationFailure("object too large", 10334),
    pymongo.errors.BulkWriteError({"writeErrors": [{"code": 2}]}),
    ValueError("no JSON"),
]
CONFLICTS = [
    pymongo.errors.OperationFailure("write conflict", 112),
    pymongo.errors.OperationFailure("aborted", 1, {"errorLabels": ["TransientTransactionError"]}),
    pymongo.errors.BulkWriteError({"writeErrors": [{"code": 11000}]}),
]


@pytest.mark.parametrize("error", STORES, ids=lambda e: f"{type(e).__name__}-{getattr(e, 'code', '')}")
def test_a_store_that_fails_or_is_full_parks_nothing(error: Exception) -> None:
    assert not is_events_fault(error)
    assert not is_conflict(error)


@pytest.mark.parametrize("error", EVENTS, ids=lambda e: f"{type(e).__name__}-{getattr(e, 'code', '')}")
def test_what_no_store_can_ever_take_is_the_fault_of_the_event(error: Exception) -> None:
    assert is_events_fault(error)
    assert not is_conflict(error)


@pytest.mark.parametrize("error", CONFLICTS, ids=lambda e: f"{type(e).__name__}-{getattr(e, 'code', '')}")
def test_others_that_were_quicker_are_a_conflict(error: Exception) -> None:
    assert is_conflict(error)
