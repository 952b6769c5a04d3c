"""Keys of a workspace: one under which its tombstones are hashed, one that signs its receipts.

Both are random and made once, when the first person of the workspace is to be deleted or suppressed. They are stored
sealed with the master key: without it a copy of the database says nothing about who was deleted.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from headrace.domain.tombstones import TOMBSTONE_KEY_PLACE, digest_of
from headrace.storage.mongo.client import Database, Session
from headrace.storage.sealing import Sealer
from headrace_identity.documents import SEPARATOR
from headrace_identity.resolving.rules import Identifier
from headrace_identity.store import DELETION_KEYS

_KEY_BYTES = 32
_RECEIPT_KEY_PLACE = "receipts"
_CACHED_WORKSPACES = 10_000


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a workspace.

    Attributes:
        tombstone_key: Hashes identifiers.
        receipt_key: Signs receipts.
        receipt_key_id: Names the key that signs: the beginning of the SHA-256 of its public half.
    """

    tombstone_key: bytes
    receipt_key: Ed25519PrivateKey
    receipt_key_id: str

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The half of the signing key that everybody may have."""
        return self.receipt_key.public_key()

    def digest(self, identifier: Identifier) -> bytes:
        """What a tombstone holds in place of an identifier."""
        return digest_of(self.tombstone_key, *identifier)


class KeyRing:
    """Reads keys, and makes those of a workspace that has none yet."""

    def __init__(self, db: Database, sealer: Sealer) -> None:
        """Keep keys in a database, sealed."""
        self._keys = db[DELETION_KEYS]
        self._sealer = sealer
        self._cache: dict[str, Keys] = {}

    async def of(self, workspace_id: str) -> Keys:
        """The keys of a workspace, made now if there are none.

        Raises:
            SealError: They were sealed with another master key.
        """
        known = await self.find(workspace_id)
        if known is not None:
            return known
        private = Ed25519PrivateKey.generate()
        await self._keys.update_one(  # whoever comes first has made them
            {"_id": workspace_id},
            {
                "$setOnInsert": {
                    "h": self._seal(secrets.token_bytes(_KEY_BYTES), workspace_id, TOMBSTONE_KEY_PLACE),
                    "r": self._seal(private.private_bytes_raw(), workspace_id, _RECEIPT_KEY_PLACE),
                }
            },
            upsert=True,
        )
        made = await self.find(workspace_id)
        assert made is not None  # they were just written, and are never removed
        return made

    async def find(self, workspace_id: str, session: Session | None = None) -> Keys | None:
        """The keys of a workspace, None when none were made yet.

        Raises:
            SealError: They were sealed with another master key.
        """
        known = self._cache.get(workspace_id)
        if known is not None:
            return known
        document = await self._keys.find_one({"_id": workspace_id}, session=session)
        if document is None:
            return None
        receipt_key = Ed25519PrivateKey.from_private_bytes(self._open(document["r"], workspace_id, _RECEIPT_KEY_PLACE))
        tombstone_key = self._open(document["h"], workspace_id, TOMBSTONE_KEY_PLACE)
        if len(self._cache) >= _CACHED_WORKSPACES:
            self._cache.clear()
        found = self._cache[workspace_id] = Keys(tombstone_key, receipt_key, key_id(receipt_key.public_key()))
        return found

    async def sealed_tombstone_keys(self, workspace_ids: list[str]) -> dict[str, str]:
        """The sealed key of each workspace's tombstones: services that have the master key can open it."""
        cursor = self._keys.find({"_id": {"$in": workspace_ids}}, {"h": 1})
        return {d["_id"]: d["h"] async for d in cursor}

    def seal(self, text: str, workspace_id: str, place: str) -> str:
        """A text of a workspace, sealed for a place."""
        return self._sealer.seal(text, f"{place}{SEPARATOR}{workspace_id}")

    def open(self, sealed: str, workspace_id: str, place: str) -> str:
        """The text again.

        Raises:
            SealError: It was sealed with another master key.
        """
        return self._sealer.open(sealed, f"{place}{SEPARATOR}{workspace_id}")

    def _seal(self, key: bytes, workspace_id: str, place: str) -> str:
        return self.seal(base64.b64encode(key).decode(), workspace_id, place)

    def _open(self, sealed: str, workspace_id: str, place: str) -> bytes:
        return base64.b64decode(self.open(sealed, workspace_id, place))


def key_id(public_key: Ed25519PublicKey) -> str:
    """The name of a signing key."""
    return hashlib.sha256(public_key.public_bytes_raw()).hexdigest()[:16]
