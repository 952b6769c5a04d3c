"""A write key as the bearer token of gRPC calls: it may send events of its own source, nothing else."""

from __future__ import annotations

from headrace.rpc.auth import Caller
from headrace.rpc.scopes import EVENTS_WRITE
from headrace_ingest.sources import WRITE_KEY_PREFIX, SourceCache


class WriteKeyAuthenticator:
    """Knows the write keys of sources."""

    def __init__(self, sources: SourceCache) -> None:
        """Ask a cache of sources."""
        self._sources = sources

    async def authenticate(self, secret: str) -> Caller | None:
        """The source's caller, or None when it is no write key.

        Raises:
            pymongo.errors.PyMongoError: It cannot be found out now.
        """
        if not secret.startswith(WRITE_KEY_PREFIX):
            return None
        source = await self._sources.by_secret(secret)
        if source is None:
            return None
        return Caller(source.workspace_id, frozenset({EVENTS_WRITE}), source_id=source.id)
