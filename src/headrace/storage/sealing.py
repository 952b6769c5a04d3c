"""Secrets at rest: AES-GCM with the master key, bound to the place they belong to."""

from __future__ import annotations

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PREFIX = "v1:"
_NONCE_BYTES = 12
_KEY_BYTES = 32


class SealError(Exception):
    """A sealed text cannot be opened: another key, another place, or damaged."""


class Sealer:
    r"""Seals texts and opens them again.

    The place (such as "destination\x1fworkspace\x1fid") is authenticated: a sealed text that is copied to another place
    cannot be opened there.
    """

    def __init__(self, master_key: str) -> None:
        """Take the key.

        Args:
            master_key: 32 bytes in base64 (standard or URL-safe).

        Raises:
            ValueError: It is no such key.
        """
        try:
            key = base64.b64decode(master_key.replace("-", "+").replace("_", "/"), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != _KEY_BYTES:
            raise ValueError("HEADRACE_MASTER_KEY must be 32 bytes in base64: make one by `openssl rand -base64 32`")
        self._cipher = AESGCM(key)

    def seal(self, text: str, place: str) -> str:
        """The text, encrypted; different each time."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, text.encode(), place.encode())
        return _PREFIX + base64.b64encode(nonce + sealed).decode()

    def open(self, sealed: str, place: str) -> str:
        """The text again.

        Raises:
            SealError: It was sealed with another key or for another place, or it is damaged.
        """
        if not sealed.startswith(_PREFIX):
            raise SealError("unknown form of a sealed text")
        try:
            raw = base64.b64decode(sealed[len(_PREFIX) :], validate=True)
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], place.encode()).decode()
        except (binascii.Error, InvalidTag, ValueError) as error:
            raise SealError("sealed with another master key or for another place, or damaged") from error
