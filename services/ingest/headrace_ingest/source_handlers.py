"""What can be done with sources; no gRPC here but its errors."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from headrace.api.ingest.v1.source_service_pb2 import Source as SourceMessage
from headrace.domain.times import now_us
from headrace.rpc import errors, names
from headrace.storage.mongo.client import Database, Document
from headrace_ingest.mapping import InvalidMapping, parse_mapping
from headrace_ingest.sources import (
    KINDS,
    WEBHOOK,
    SecretBox,
    Source,
    SourceCache,
    from_document,
    is_origin,
    new_document,
    new_secret,
    now_source,
    source_key,
)
from headrace_ingest.store import SOURCES

_MAX_ORIGINS = 100
_MUTABLE = ("display_name", "allowed_origins", "mapping", "disabled")
_STORED = {"display_name": "name", "allowed_origins": "origins", "mapping": "mapping", "disabled": "off"}


class SourceHandlers:
    """Makes, reads, changes and deletes sources."""

    def __init__(self, db: Database, cache: SourceCache, secrets: SecretBox) -> None:
        """Work on a database.

        Args:
            db: Database.
            cache: Sources as senders meet them; told of every change.
            secrets: Seals write keys and tokens.
        """
        self._sources = db[SOURCES]
        self._cache = cache
        self._secrets = secrets

    async def create(self, workspace_id: str, source_id: str, given: SourceMessage, request_id: str) -> Source:
        """Make a source with a new secret.

        Raises:
            ApiError: INVALID_ARGUMENT or ALREADY_EXISTS.
        """
        names.check_id("source_id", source_id)
        if given.kind not in KINDS:
            raise errors.invalid_argument("source.kind", f"must be one of {', '.join(KINDS)}")
        _check(given, given.kind, _MUTABLE)
        secret = new_secret(given.kind)
        source = now_source(
            workspace_id,
            source_id,
            display_name=given.display_name.strip(),
            kind=given.kind,
            allowed_origins=_origins(given),
            mapping=given.mapping,
            disabled=given.disabled,
            sealed=self._secrets.seal(workspace_id, source_id, secret),
        )
        try:
            await self._sources.insert_one(new_document(source, secret, request_id))
        except DuplicateKeyError:
            stored = await self._find(workspace_id, source_id)
            if stored is not None and request_id and stored["rid"] == request_id:
                return from_document(stored)  # made by the same call, before a crash
            raise errors.already_exists(source.name) from None
        self._cache.forget()
        return source

    async def get(self, workspace_id: str, source_id: str) -> Source:
        """Read a source as it is stored now.

        Raises:
            ApiError: NOT_FOUND.
        """
        source = await self.find(workspace_id, source_id)
        if source is None:
            raise _not_found(workspace_id, source_id)
        return source

    async def find(self, workspace_id: str, source_id: str) -> Source | None:
        """The source as it is stored now; None when there is none."""
        stored = await self._find(workspace_id, source_id)
        return None if stored is None else from_document(stored)

    async def list(self, workspace_id: str, after: str, limit: int) -> list[Source]:
        """Sources with an id after one, by id."""
        cursor = self._sources.find({"w": workspace_id, "i": {"$gt": after}}).sort("i", ASCENDING).limit(limit)
        return [from_document(d) async for d in cursor]

    async def update(
        self, workspace_id: str, source_id: str, given: SourceMessage, mask: Sequence[str] | None
    ) -> Source:
        """Change fields of a source.

        Args:
            workspace_id: Its workspace.
            source_id: Its id.
            given: The new values, and the etag, if any.
            mask: Fields to change; None means all that are set.

        Raises:
            ApiError: INVALID_ARGUMENT, NOT_FOUND or ETAG_MISMATCH.
        """
        fields = [f for f in _MUTABLE if getattr(given, f)] if mask is None else list(dict.fromkeys(mask))
        unknown = [f for f in fields if f not in _MUTABLE]
        if unknown:
            raise errors.invalid_argument("update_mask", f"may hold {', '.join(_MUTABLE)}")
        source = await self.get(workspace_id, source_id)
        _check(given, source.kind, fields)
        if given.etag and given.etag != str(source.version):
            raise errors.etag_mismatch()
        values: Document = {}
        for field in fields:
            values[_STORED[field]] = list(_origins(given)) if field == "allowed_origins" else getattr(given, field)
        if "display_name" in fields:
            values["name"] = given.display_name.strip()
        key = source_key(workspace_id, source_id)
        query: Document = {"_id": key, "w": workspace_id}
        if given.etag:
            query["v"] = source.version
        changed = await self._sources.find_one_and_update(
            query,
            {"$set": {**values, "updated": now_us()}, "$inc": {"v": 1}},
            return_document=ReturnDocument.AFTER,
        )
        self._cache.forget()
        if changed is None:
            if given.etag:
                raise errors.etag_mismatch()
            raise _not_found(workspace_id, source_id)
        return from_document(changed)

    async def delete(self, workspace_id: str, source_id: str) -> None:
        """Delete a source; what it sent stays.

        Raises:
            ApiError: NOT_FOUND.
        """
        result = await self._sources.delete_one({"_id": source_key(workspace_id, source_id), "w": workspace_id})
        self._cache.forget()
        if not result.deleted_count:
            raise _not_found(workspace_id, source_id)

    async def _find(self, workspace_id: str, source_id: str) -> Document | None:
        return await self._sources.find_one({"_id": source_key(workspace_id, source_id), "w": workspace_id})


def _check(given: SourceMessage, kind: str, fields: Sequence[str]) -> None:
    if "display_name" in fields:
        names.display_name("source.display_name", given.display_name)
    if "allowed_origins" in fields:
        if len(given.allowed_origins) > _MAX_ORIGINS:
            raise errors.invalid_argument("source.allowed_origins", f"holds at most {_MAX_ORIGINS} origins")
        if not all(is_origin(origin) for origin in _origins(given)):
            description = 'must hold origins such as "https://shop.example" or "https://*.shop.example"'
            raise errors.invalid_argument("source.allowed_origins", description)
    if "mapping" in fields and given.mapping:
        if kind != WEBHOOK:
            raise errors.invalid_argument("source.mapping", "is for webhook sources only")
        try:
            parse_mapping(given.mapping)
        except InvalidMapping as error:
            raise errors.invalid_argument("source.mapping", str(error)) from None


def _origins(given: SourceMessage) -> tuple[str, ...]:
    return tuple(origin.strip().lower().rstrip("/") for origin in given.allowed_origins)


def _not_found(workspace_id: str, source_id: str) -> errors.ApiError:
    return errors.not_found(names.format(names.SOURCE, workspace_id, source_id))
