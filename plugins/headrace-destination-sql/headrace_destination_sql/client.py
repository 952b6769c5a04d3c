"""The thin end: carries out what a request says in one transaction, and says how that went."""

from __future__ import annotations

import asyncio
import contextvars
import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from headrace_destination_sql import faults
from headrace_destination_sql.settings import SqlSettings
from headrace_destination_sql.tables import Tables
from headrace_sdk import Request, Response

_CONNECT_S = 10


class Client:
    """A pool of connections to one database."""

    def __init__(self, settings: SqlSettings, tables: Tables) -> None:
        """Make the pool; connections are opened when they are needed."""
        self._tables = tables
        self._create = settings.create_tables
        self._engine = _engine(settings)

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    async def carry_out(self, request: Request) -> Response:
        """Carry out a request: all of it or nothing."""
        asked = json.loads(request.body)
        try:
            try:
                await self._transaction(asked)
            except DBAPIError as error:
                if not (self._create and faults.of(error) == faults.MISSING_TABLE):
                    raise
                await self._make_tables(asked)
                await self._transaction(asked)
        except (SQLAlchemyError, OSError) as error:
            return faults.response(error)
        return Response(status=200)

    async def _transaction(self, asked: Mapping[str, Any]) -> None:
        async with self._engine.begin() as connection:
            for step in asked["statements"]:
                await self._step(connection, step)

    async def _step(self, connection: AsyncConnection, step: Mapping[str, Any]) -> None:
        if "table" not in step:
            await connection.exec_driver_sql(step["statement"])
            return
        keys = step.get("by")
        statement = self._tables.upsert(step["table"]) if keys is None else self._tables.delete(step["table"], keys)
        await connection.execute(statement, [self._tables.parameters(statement, row) for row in step["rows"]])

    async def _make_tables(self, asked: Mapping[str, Any]) -> None:
        async with self._engine.begin() as connection:
            for name in dict.fromkeys(step["table"] for step in asked["statements"] if "table" in step):
                await connection.execute(self._tables.create(name))


def _engine(settings: SqlSettings) -> AsyncEngine:
    url = settings.database()
    if settings.password is not None:
        url = url.set(password=settings.password.get_secret_value())
    if url.get_backend_name() == "sqlite":
        return create_async_engine(url, async_creator=lambda: _open_file(url.database or ":memory:"))
    arguments: dict[str, Any] = {}
    if url.get_driver_name() == "asyncpg":
        arguments = {"timeout": _CONNECT_S, "ssl": "verify-full" if settings.tls else "disable"}
    elif url.get_driver_name() == "aiomysql":
        arguments = {"connect_timeout": _CONNECT_S, **({"ssl": _verified()} if settings.tls else {})}
    return create_async_engine(url, connect_args=arguments, pool_size=2, max_overflow=2, pool_recycle=1800)


def _verified() -> Any:
    import ssl

    return ssl.create_default_context()


async def _open_file(path: str) -> Any:
    """A connection to a database file. Its thread has the leave to open it that this task has."""
    import aiosqlite

    leave = contextvars.copy_context()
    connection = aiosqlite.Connection(lambda: leave.run(sqlite3.connect, path, timeout=5.0), iter_chunk_size=64)
    connection.daemon = True  # type: ignore[attr-defined]  # the thread must not outlive the plugin
    return await asyncio.shield(connection)
