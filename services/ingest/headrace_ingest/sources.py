"""Sources: where events come from, found by name or by the secret that a sender shows.

A source's secret is a write key ("wk_...") or, for webhooks, the token in the URL ("wh_..."). It is stored sealed, and
found by its digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from headrace.domain.times import now_us
from headrace.rpc import names
from headrace.storage.mongo.client import Database, Document
from headrace.storage.sealing import Sealer
from headrace_ingest.mapping import Mapping, parse_mapping
from headrace_ingest.store import SOURCES

HTTP = "http"
WEBSITE = "website"
WEBHOOK = "webhook"
KINDS = (HTTP, WEBSITE, WEBHOOK)

WRITE_KEY_PREFIX = "wk_"
WEBHOOK_PREFIX = "wh_"
MAX_SECRET = 256

_ORIGIN = re.compile(r"https?://(\*\.)?[a-z0-9.-]{1,253}(:[0-9]{1,5})?", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A source as senders meet it.

    Attributes:
        workspace_id: Its workspace.
        id: Its id there.
        display_name: Its name for people.
        kind: HTTP, WEBSITE or WEBHOOK.
        allowed_origins: Origins of browsers that may send; none means any.
        mapping_text: The mapping of a webhook source, "" for none.
        disabled: True refuses everything.
        created_us: When it was made.
        updated_us: When it was last changed.
        version: Counts changes; the etag.
        sealed: Its secret, sealed.
    """

    workspace_id: str
    id: str
    display_name: str
    kind: str
    allowed_origins: tuple[str, ...]
    mapping_text: str
    disabled: bool
    created_us: int
    updated_us: int
    version: int
    sealed: str

    @property
    def name(self) -> str:
        """Its resource name."""
        return names.format(names.SOURCE, self.workspace_id, self.id)

    @cached_property
    def mapping(self) -> Mapping | None:
        """Its mapping; None when it has none."""
        return parse_mapping(self.mapping_text) if self.mapping_text else None

    def allows_origin(self, origin: str) -> bool:
        """True when a browser on a page of this origin may send; "*.": any host below a domain."""
        if not self.allowed_origins:
            return True
        asked = origin.lower().rstrip("/")
        return any(_matches(pattern, asked) for pattern in self.allowed_origins)


def is_origin(pattern: str) -> bool:
    """True for "https://shop.example", with a port or not, and for "https://*.shop.example"."""
    return _ORIGIN.fullmatch(pattern) is not None


def _matches(pattern: str, origin: str) -> bool:
    if "://*." not in pattern:
        return pattern == origin
    scheme, _, rest = pattern.partition("://*")
    return origin.startswith(f"{scheme}://") and origin.endswith(rest)


def source_key(workspace_id: str, source_id: str) -> str:
    """The database id of a source."""
    return f"{workspace_id}\x1f{source_id}"


def new_secret(kind: str) -> str:
    """A new write key or webhook token: 192 random bits."""
    return (WEBHOOK_PREFIX if kind == WEBHOOK else WRITE_KEY_PREFIX) + secrets.token_urlsafe(24)


def digest(secret: str) -> str:
    """The form in which a secret is looked up. Random secrets need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_document(source: Source, secret: str, request_id: str) -> Document:
    """The stored form of a new source."""
    return {
        "_id": source_key(source.workspace_id, source.id),
        "w": source.workspace_id,
        "i": source.id,
        "k": digest(secret),
        "sealed": source.sealed,
        "name": source.display_name,
        "kind": source.kind,
        "origins": list(source.allowed_origins),
        "mapping": source.mapping_text,
        "off": source.disabled,
        "created": source.created_us,
        "updated": source.updated_us,
        "v": source.version,
        "rid": request_id,
    }


def from_document(document: Document) -> Source:
    """A source from its stored form."""
    return Source(
        workspace_id=document["w"],
        id=document["i"],
        display_name=document["name"],
        kind=document["kind"],
        allowed_origins=tuple(document["origins"]),
        mapping_text=document["mapping"],
        disabled=document["off"],
        created_us=document["created"],
        updated_us=document["updated"],
        version=document["v"],
        sealed=document["sealed"],
    )


class SecretBox:
    """Seals and opens the secrets of sources."""

    def __init__(self, master_key: str) -> None:
        """Use the platform's master key."""
        self._sealer = Sealer(master_key)

    def seal(self, workspace_id: str, source_id: str, secret: str) -> str:
        """A secret as it is stored."""
        return self._sealer.seal(secret, f"source\x1f{workspace_id}\x1f{source_id}")

    def open(self, source: Source) -> str:
        """The secret of a source."""
        return self._sealer.open(source.sealed, f"source\x1f{source.workspace_id}\x1f{source.id}")


class SourceCache:
    """Sources by secret and by name, at most some seconds old.

    A change of a source reaches every replica within that time; the replica that made it calls `forget`.
    """

    def __init__(self, db: Database, *, ttl_s: float, max_entries: int = 10_000) -> None:
        """Read from a database.

        Args:
            db: Database.
            ttl_s: Greatest age of an answer, in seconds.
            max_entries: Answers kept, those for unknown secrets included.
        """
        self._sources = db[SOURCES]
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._known: OrderedDict[str, tuple[float, Source | None]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Source | None]] = {}

    async def by_secret(self, secret: str) -> Source | None:
        """The source that has this write key or webhook token; None when there is none.

        Raises:
            pymongo.errors.PyMongoError: It cannot be found out now.
        """
        known = self._known.get(secret)
        if known is not None and time.monotonic() - known[0] < self._ttl_s:
            return known[1]
        if not secret.startswith((WRITE_KEY_PREFIX, WEBHOOK_PREFIX)) or len(secret) > MAX_SECRET:
            return None
        return await self._ask(secret, {"k": digest(secret)})

    async def by_id(self, workspace_id: str, source_id: str) -> Source | None:
        """The source of this id; None when there is none.

        Raises:
            pymongo.errors.PyMongoError: It cannot be found out now.
        """
        key = source_key(workspace_id, source_id)
        known = self._known.get(key)
        if known is not None and time.monotonic() - known[0] < self._ttl_s:
            return known[1]
        return await self._ask(key, {"_id": key, "w": workspace_id})

    def forget(self) -> None:
        """Ask again for every source."""
        self._known.clear()

    async def _ask(self, key: str, query: dict[str, Any]) -> Source | None:
        # Those who come while the answer is awaited wait for the same one.
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._find(key, query))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def _find(self, key: str, query: dict[str, Any]) -> Source | None:
        asked = time.monotonic()
        document = await self._sources.find_one(query)
        source = from_document(document) if document else None
        self._known[key] = (asked, source)
        self._known.move_to_end(key)
        while len(self._known) > self._max_entries:
            self._known.popitem(last=False)
        return source


def now_source(
    workspace_id: str,
    source_id: str,
    *,
    display_name: str,
    kind: str,
    allowed_origins: tuple[str, ...],
    mapping: str,
    disabled: bool,
    sealed: str,
) -> Source:
    """A source that is made now."""
    now = now_us()
    return Source(workspace_id, source_id, display_name, kind, allowed_origins, mapping, disabled, now, now, 1, sealed)
