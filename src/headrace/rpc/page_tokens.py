"""Page tokens: opaque to callers, signed, bound to the method and its arguments; they grant nothing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

from headrace.rpc.errors import invalid_argument, invalid_page_token

_SIGNATURE_BYTES = 16


class Pager:
    """Makes and reads the page tokens of a service."""

    def __init__(self, secret: str | bytes) -> None:
        """Sign with a key derived from a secret that all replicas share, such as the service token."""
        raw = secret.encode() if isinstance(secret, str) else secret
        self._key = hashlib.blake2b(raw, person=b"hr-page-tokens").digest()

    def encode(self, method: str, arguments: Sequence[str], position: Any) -> str:
        """The token of the page after a position.

        Args:
            method: Name of the method, such as "ListSources".
            arguments: The other arguments of the call: parent and filters, never page_size.
            position: Where the next page begins, as plain JSON (a key, a list of keys).
        """
        payload = json.dumps(position, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._sign(method, arguments, payload) + payload).decode().rstrip("=")

    def decode(self, method: str, arguments: Sequence[str], token: str) -> Any:
        """The position in a token; None when there is no token, for the first page.

        Raises:
            ApiError: INVALID_PAGE_TOKEN, when it was not made by this method with these arguments.
        """
        if not token:
            return None
        try:
            raw = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError, ValueError):
            raise invalid_page_token() from None
        signature, payload = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(method, arguments, payload)):
            raise invalid_page_token()
        return json.loads(payload)

    def _sign(self, method: str, arguments: Sequence[str], payload: bytes) -> bytes:
        bound = json.dumps([method, *arguments]).encode() + b"\0" + payload
        return hashlib.blake2b(bound, key=self._key, digest_size=_SIGNATURE_BYTES).digest()


def page_size(requested: int, default: int = 100, maximum: int = 1_000) -> int:
    """The size of a page: 0 means the default, too large becomes the maximum.

    Raises:
        ApiError: INVALID_ARGUMENT on page_size when it is negative.
    """
    if requested < 0:
        raise invalid_argument("page_size", "must not be negative")
    return min(requested or default, maximum)
