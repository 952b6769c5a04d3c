from __future__ import annotations

from headrace.settings import ServiceSettings
from headrace.storage.mongo.client import Client, transaction
from headrace.storage.streams.client import Redis
from tests.support.settings import MakeSettings


async def test_settings_name_the_stores(mongo: Client, redis: Redis, make_settings: MakeSettings) -> None:
    settings = make_settings(ServiceSettings, partitions=3)
    assert settings.partitions == 3
    collection = mongo[settings.mongo_database]["things"]
    async with transaction(mongo) as session:
        await collection.insert_one({"_id": 1}, session=session)
    assert await collection.count_documents({}) == 1
    assert await redis.dbsize() == 0
