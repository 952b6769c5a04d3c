"""Credentials for the requests of one destination, by the scheme that its connector declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from headrace.domain.times import now_us
from headrace.plugins.authentication import authorised
from headrace.plugins.masking import MASK
from headrace_sdk import Request, Response
from headrace_sdk.auth import Auth, OAuth2, ServiceAccount
from headrace_sync.outlets.http import VendorClient
from headrace_sync.outlets.tokens import TokenStore


class Signer:
    """Adds credentials to requests."""

    def __init__(
        self, key: str, auth: Auth | None, read_settings: Callable[[], Mapping[str, Any]], tokens: TokenStore
    ) -> None:
        """Sign for a destination.

        Args:
            key: Its database id.
            auth: Its connector's scheme.
            read_settings: Its settings, secrets in the clear; may raise PluginError.
            tokens: Fetches access tokens.
        """
        self._key = key
        self._auth = auth
        self._read_settings = read_settings
        self._tokens = tokens
        self._token = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be masked besides the secrets of the settings."""
        return (self._token,) if self._token else ()

    async def send(
        self, client: VendorClient, request: Request, *, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send a request with its credentials; once more with a new access token when the vendor refuses the old one.

        A request that is answered by 401 was not carried out, so that it may be repeated whatever it does.

        Args:
            client: Sends it.
            request: As the connector made it.
            timeout_s: Seconds for each try.
            headers: Headers to add, unless the request has them.

        Raises:
            CredentialsRefused: The credentials cannot work.
            TokenUnavailable: No access token can be had at the moment.
            headrace_sync.outlets.http.AddressRefused: The address is none that a vendor may have.
            headrace_sync.outlets.http.NoAnswer: No complete answer came.
            headrace.plugins.errors.PluginError: The settings cannot be read.
            pymongo.errors.PyMongoError: The store of the tokens cannot be reached.
        """
        response = await client.send(await self._sign(request), timeout_s=timeout_s, headers=headers)
        if response.status == HTTPStatus.UNAUTHORIZED and isinstance(self._auth, OAuth2 | ServiceAccount):
            signed = await self._sign(request, renew=True)
            response = await client.send(signed, timeout_s=timeout_s, headers=headers)
        return response

    def show(self, request: Request) -> Request:
        """A request with credentials as it would be sent, an access token that is fetched first being masked."""
        if self._auth is None:
            return request
        return authorised(request, self._auth, self._read_settings(), now_us=now_us(), token=MASK)

    async def _sign(self, request: Request, *, renew: bool = False) -> Request:
        if self._auth is None:
            return request
        settings = self._read_settings()
        if isinstance(self._auth, OAuth2 | ServiceAccount):
            refused = self._token if renew else ""
            self._token = (await self._tokens.get(self._key, self._auth, settings, not_this=refused)).access
        return authorised(request, self._auth, settings, now_us=now_us(), token=self._token)
