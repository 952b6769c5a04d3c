"""Access tokens of destinations: fetched when needed, kept sealed, shared by all replicas, renewed before they end.

One replica at a time fetches: a vendor that hands out a new refresh token with each access token takes the old one for
spent. What came is stored before it is used, so that a crash loses a refresh token only between the vendor's answer and
the write that follows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.domain.times import SECOND_US, now_us
from headrace.plugins.authentication import CredentialsRefused, Token, TokenUnavailable, read_token, token_request
from headrace.storage.mongo.client import Database, Document
from headrace.storage.sealing import Sealer, SealError
from headrace_sdk.auth import OAuth2, ServiceAccount, settings_of
from headrace_sdk.items import digest_key
from headrace_sync.leases import Leases
from headrace_sync.outlets.http import AddressRefused, NoAnswer, VendorClient
from headrace_sync.store import TOKENS

_RENEW_BEFORE_US = 60 * SECOND_US
_TIMEOUT_S = 30.0
_WAIT_S = 0.2
_PATIENCE_S = 45.0


class TokenStore:
    """The tokens of all destinations."""

    def __init__(self, db: Database, sealer: Sealer, leases: Leases, client: VendorClient) -> None:
        """Keep tokens in a database, sealed, and fetch them by a client."""
        self._tokens = db[TOKENS]
        self._sealer = sealer
        self._leases = leases
        self._client = client
        self._asking: dict[str, asyncio.Lock] = {}
        """By destination: a lease is held by a process, which asks once at a time."""

    async def get(
        self, key: str, auth: OAuth2 | ServiceAccount, settings: Mapping[str, Any], *, not_this: str = ""
    ) -> Token:
        """A token that can be used for a minute at least.

        Args:
            key: Database id of the destination.
            auth: Its connector's scheme.
            settings: Its settings, secrets in the clear; with other credentials it starts anew.
            not_this: An access token that the vendor refused.

        Raises:
            CredentialsRefused: The vendor does not accept the credentials.
            TokenUnavailable: None can be had at the moment.
            pymongo.errors.PyMongoError: The store cannot be reached.
        """
        made_of = digest_key({name: settings.get(name) for name in settings_of(auth)})
        async with self._asking.setdefault(key, asyncio.Lock()):
            waits_until = asyncio.get_running_loop().time() + _PATIENCE_S
            while (found := await self._usable(key, made_of, not_this)) is None:
                async with self._leases.hold(f"token:{key}") as lease:
                    if lease is not None:
                        # Another replica may have fetched one between our look and the lease.
                        found = await self._usable(key, made_of, not_this)
                        return found or await self._fetch(key, made_of, auth, settings)
                if asyncio.get_running_loop().time() > waits_until:
                    raise TokenUnavailable("an access token is being fetched elsewhere and does not come")
                await asyncio.sleep(_WAIT_S)
            return found

    async def _fetch(self, key: str, made_of: str, auth: OAuth2 | ServiceAccount, settings: Mapping[str, Any]) -> Token:
        stored = await self._stored(key, made_of)
        refresh = stored.refresh if stored else ""
        request = token_request(auth, settings, now_us=now_us(), refresh=refresh)
        try:
            response = await self._client.send(request, timeout_s=_TIMEOUT_S)
        except AddressRefused as error:
            raise CredentialsRefused(f"the address for access tokens cannot be used: {error}") from None
        except NoAnswer as error:
            raise TokenUnavailable(f"no access token was given: {error.reason}") from None
        token = read_token(response, refresh)
        text = msgspec.json.encode([token.access, token.expires_us, token.refresh]).decode()
        document: Document = {"made_of": made_of, "sealed": self._sealer.seal(text, _place(key))}
        await self._tokens.update_one({"_id": key}, {"$set": document}, upsert=True)
        return token

    async def _usable(self, key: str, made_of: str, not_this: str) -> Token | None:
        stored = await self._stored(key, made_of)
        if stored is None or stored.access == not_this or stored.expires_us - _RENEW_BEFORE_US <= now_us():
            return None
        return stored

    async def _stored(self, key: str, made_of: str) -> Token | None:
        document = await self._tokens.find_one({"_id": key, "made_of": made_of})
        if document is None:
            return None
        try:
            access, expires_us, refresh = msgspec.json.decode(self._sealer.open(document["sealed"], _place(key)))
        except SealError:
            return None  # sealed with an earlier master key: the settings begin anew
        return Token(access, expires_us, refresh)


def _place(key: str) -> str:
    return f"token\x1f{key}"
