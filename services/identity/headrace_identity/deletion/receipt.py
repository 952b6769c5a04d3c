"""Receipts: what a deletion removed where, signed so that anybody can check it with the workspace's public key."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from headrace.domain.times import format_time_us
from headrace_identity.deletion.keys import Keys, key_id

VERSION = 1

REMOVED = "removed"
REQUESTED = "requested"
NOT_SUPPORTED = "not_supported"
FAILED = "failed"


class InvalidReceipt(ValueError):
    """A receipt that was not signed by this key, or was changed since."""


@dataclass(frozen=True, slots=True)
class Place:
    """What became of a person's data in one place.

    Attributes:
        name: A collection, a stream, the archive, or the resource name of a destination.
        outcome: REMOVED, REQUESTED, NOT_SUPPORTED or FAILED.
        count: Number of entries that were removed.
        detail: More in a sentence, without personal data.
    """

    name: str
    outcome: str
    count: int = 0
    detail: str = ""

    def then(self, later: Place) -> Place:
        """What is known of the place after it was asked again.

        Who is asked again has mostly nothing left, and must not hide what was said the first time.
        """
        count = self.count + later.count
        newer = FAILED in {self.outcome, later.outcome} or later.count > 0
        said = later if newer else self
        return Place(self.name, said.outcome, count, said.detail)


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed receipt: the statement's bytes, the signature over them, and the name of the key."""

    statement: bytes
    signature: bytes
    key_id: str


def merged(places: Iterable[Place], later: Iterable[Place]) -> list[Place]:
    """Places by name, with what was said later."""
    known = {place.name: place for place in places}
    for place in later:
        before = known.get(place.name)
        known[place.name] = place if before is None else before.then(place)
    return [known[name] for name in sorted(known)]


def sign(
    keys: Keys,
    *,
    workspace_id: str,
    deletion_id: str,
    requested_us: int,
    begun_us: int,
    done_us: int,
    places: Iterable[Place],
) -> Signed:
    """Make a receipt.

    Args:
        keys: The workspace's keys.
        workspace_id: The workspace.
        deletion_id: The deletion.
        requested_us: When it was asked for, in microseconds.
        begun_us: When it began.
        done_us: When it was done.
        places: What became of each place.
    """
    found = list(places)
    statement = {
        "receipt": VERSION,
        "workspace": workspace_id,
        "deletion": deletion_id,
        "requested": format_time_us(requested_us),
        "begun": format_time_us(begun_us),
        "done": format_time_us(done_us),
        "places": [
            {"place": p.name, "outcome": p.outcome, "count": p.count} | ({"detail": p.detail} if p.detail else {})
            for p in found
        ],
        "not_told": [p.name for p in found if p.outcome in {NOT_SUPPORTED, FAILED}],
    }
    text = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    return Signed(text, keys.receipt_key.sign(text), keys.receipt_key_id)


def verify(signed: Signed, public_key: bytes) -> dict[str, Any]:
    """Check a receipt.

    Args:
        signed: The receipt.
        public_key: The workspace's Ed25519 public key, 32 bytes, from GetReceiptKey.

    Returns:
        The statement.

    Raises:
        InvalidReceipt: It was not signed by this key, or was changed since.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signed.signature, signed.statement)
    except (InvalidSignature, ValueError):
        raise InvalidReceipt("the signature is not that of this key over this statement") from None
    if signed.key_id != key_id(key):
        raise InvalidReceipt("the receipt names another key")
    statement: dict[str, Any] = json.loads(signed.statement)
    return statement
