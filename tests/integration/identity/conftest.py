"""Identity needs few indexes: making only those keeps its many small tests quick."""

from __future__ import annotations

import pytest
from headrace_identity import store

from headrace.storage.mongo import log
from headrace.storage.mongo.client import Client, Database


@pytest.fixture
async def db(mongo: Client, settings_env: dict[str, str]) -> Database:
    """The database of `settings_env`, with the indexes of the log and of identity."""
    database = mongo[settings_env["HEADRACE_MONGO_DATABASE"]]
    for indexes in (log.INDEXES, store.INDEXES):
        for collection, models in indexes.items():
            await database[collection].create_indexes(models)
    # Collections are made beforehand: making one inside a transaction conflicts with everybody else who does.
    known = await database.list_collection_names()
    for name in {store.IDENTIFIERS, store.IDENTITY_RULES, store.IDENTITY_RULES_HISTORY} - set(known):
        await database.create_collection(name)
    return database
