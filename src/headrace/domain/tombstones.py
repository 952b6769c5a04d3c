"""Tombstones: what is left of the identifiers of deleted and suppressed people, and which events they refuse.

A tombstone holds a keyed hash, so it says nothing to whoever lacks the workspace's key. Identity keeps the tombstones
and has the last word; ingest follows them, to answer senders properly.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterable

from headrace.domain.identifiers import ANONYMOUS_ID
from headrace.domain.segment import BROWSER_ID_NAMESPACES

DIGEST_BYTES = 16
TOMBSTONE_KEY_PLACE = "tombstones"
"""Where the key of a workspace's tombstones is sealed for, followed by the workspace."""

DEVICE_NAMESPACES = BROWSER_ID_NAMESPACES | {ANONYMOUS_ID}
"""Namespaces of devices: several people may use one, as in a shop or a family."""


def digest_of(key: bytes, namespace: str, value: str) -> bytes:
    """The keyed hash of an identifier: the first 16 bytes of HMAC-SHA-256.

    Args:
        key: The workspace's key.
        namespace: Namespace; it never holds the separator.
        value: Value.
    """
    # Half a surrogate pair is no character, but may stand in what is asked for before it is refused.
    named = f"{namespace}\x1f{value}".encode(errors="surrogatepass")
    return hmac.digest(key, named, "sha256")[:DIGEST_BYTES]


def refuses(digests: Iterable[Collection[bytes]], deleted: Collection[bytes], shared: Collection[bytes]) -> bool:
    """Whether an event with these identifiers is refused.

    It is when one of them was a deleted person's own, or when all of them were: the id of a device that other people
    use too does not keep them out.

    Args:
        digests: For each identifier of the event that may identify, the digests of its forms.
        deleted: Digests of identifiers of deleted and suppressed people.
        shared: Digests of ids of devices that others use too.
    """
    known = others = False
    for forms in digests:
        if any(form in deleted for form in forms):
            return True
        if any(form in shared for form in forms):
            known = True
        else:
            others = True
    return known and not others
