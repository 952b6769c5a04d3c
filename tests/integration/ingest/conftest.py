from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from headrace.storage.mongo.client import Database
from tests.support.ingest import Ingest, ingest_serving
from tests.support.settings import MakeSettings


@pytest.fixture
async def ingest(make_settings: MakeSettings, db: Database) -> AsyncIterator[Ingest]:
    async with ingest_serving(make_settings, db) as serving:
        yield serving
