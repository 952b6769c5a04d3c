"""Access to MongoDB for operators' commands."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from typer import Option

from headrace.cli.problems import CommandFailed, UsageProblem, say

if TYPE_CHECKING:
    from headrace.storage.mongo.client import Database

T = TypeVar("T")


class MongoSettings:
    """Where MongoDB is: those of the services' settings that these commands need."""

    def __init__(self, url: str | None, database: str | None) -> None:
        from headrace.settings import ServiceSettings

        fields = ServiceSettings.model_fields
        self.url: str = url or os.environ.get("HEADRACE_MONGO_URL") or fields["mongo_url"].default
        self.database: str = database or os.environ.get("HEADRACE_MONGO_DATABASE") or fields["mongo_database"].default
        self.driver: Any = os.environ.get("HEADRACE_MONGO_DRIVER") or fields["mongo_driver"].default


MongoUrl = Annotated[str | None, Option("--mongo-url", help="MongoDB; default: HEADRACE_MONGO_URL.")]
MongoDatabase = Annotated[
    str | None, Option("--mongo-database", help="Database; default: HEADRACE_MONGO_DATABASE, else headrace.")
]


def with_database(settings: MongoSettings, use: Callable[[Database], Awaitable[T]], *, wait_s: float = 5.0) -> T:
    """Run a function on the database; while the store cannot be reached it is tried again until the time is over.

    Raises:
        CommandFailed: The store cannot be reached or refuses.
    """
    from pymongo.errors import InvalidURI, PyMongoError

    from headrace.rpc.errors import is_unavailable
    from headrace.storage.mongo import client as mongo

    async def run() -> T:
        try:
            client = mongo.connect(settings.url, driver=settings.driver, timeout_ms=2_000)
        except InvalidURI as error:
            raise UsageProblem(f"HEADRACE_MONGO_URL: {error}") from None
        deadline = time.monotonic() + wait_s
        try:
            while True:
                try:
                    return await use(client[settings.database])
                except PyMongoError as error:
                    if not is_unavailable(error):
                        raise CommandFailed(f"MongoDB refuses: {error}") from error
                    if time.monotonic() > deadline:
                        raise CommandFailed(
                            "MongoDB cannot be reached: is it running, and does HEADRACE_MONGO_URL name it?"
                        ) from error
                    say("waiting for MongoDB")
                await asyncio.sleep(1)
        finally:
            await mongo.close(client)

    return asyncio.run(run())
