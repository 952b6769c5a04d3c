"""Who calls, and whether they may.

Each call shows a secret in its `authorization: Bearer` metadata. An authenticator says whose it
is; the handler asks `authorize` with the workspace in the resource name before it looks at
anything else, so that what exists in other workspaces cannot be found out.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

import grpc

from headrace.api.workspace.v1.workspace_service_pb2 import AuthenticateTokenRequest
from headrace.api.workspace.v1.workspace_service_pb2_grpc import WorkspaceServiceStub
from headrace.rpc import names
from headrace.rpc.errors import is_unavailable, scope_missing, unauthenticated, unavailable, workspace_mismatch
from headrace.rpc.scopes import EVERYTHING
from headrace.settings import ServiceSettings

TOKEN_PREFIX = "hr_"  # noqa: S105 - makes leaked tokens recognisable
_TOKEN_BYTES = 32
_MAX_SECRET = 512


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose credentials a call carries."""

    workspace_id: str | None
    """The workspace they are for; None for services, which act in any."""
    scopes: frozenset[str]
    """What they allow there."""
    service: bool = False
    """True for another service of this platform."""
    source_id: str = ""
    """The source, when the credential is its write key."""


SERVICE = Caller(workspace_id=None, scopes=frozenset({EVERYTHING}), service=True)
"""Another service of this platform."""

_current: ContextVar[Caller | None] = ContextVar("headrace_caller", default=None)


def current_caller() -> Caller:
    """Whose call is being served.

    Raises:
        ApiError: UNAUTHENTICATED, outside of a call.
    """
    caller = _current.get()
    if caller is None:
        raise unauthenticated("This call needs credentials.")
    return caller


def set_caller(caller: Caller | None) -> None:
    """Say whose call the current task serves; each call runs in a task of its own."""
    _current.set(caller)


@contextmanager
def acting_as(caller: Caller) -> Iterator[None]:
    """Run a block on behalf of a caller, for work that no call started."""
    token = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(token)


def authorize(scope: str, workspace_id: str) -> None:
    """Allow the current call in a workspace, or refuse it.

    Args:
        scope: The scope it needs, of `headrace.rpc.scopes`.
        workspace_id: The workspace in the resource name.

    Raises:
        ApiError: UNAUTHENTICATED, or PERMISSION_DENIED with WORKSPACE_MISMATCH or SCOPE_MISSING.
    """
    caller = current_caller()
    if caller.service:
        return
    if caller.workspace_id != workspace_id:
        raise workspace_mismatch(workspace_id)
    if scope not in caller.scopes and EVERYTHING not in caller.scopes:
        raise scope_missing(scope)


def authorize_name(scope: str, name: str, field: str = "name") -> str:
    """Allow the current call on a resource or parent, or refuse it; returns its workspace id."""
    workspace_id = names.workspace_of(name, field)
    authorize(scope, workspace_id)
    return workspace_id


def require_service() -> None:
    """Allow only other services of this platform.

    Raises:
        ApiError: UNAUTHENTICATED, or PERMISSION_DENIED with SCOPE_MISSING.
    """
    if not current_caller().service:
        raise scope_missing("service")


def new_token() -> str:
    """A new API token: "hr_" and 43 URL-safe characters that hold 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def token_digest(secret: str) -> str:
    """The form in which a token is stored.

    A plain SHA-256 and no slow hash such as Argon2: slow hashes protect secrets that people choose
    from being guessed; 256 random bits cannot be guessed, and each call has to look them up.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


class Authenticator(Protocol):
    """Says whose a secret is."""

    async def authenticate(self, secret: str) -> Caller | None:
        """The caller, or None when the secret is unknown.

        Raises:
            ApiError: UNAVAILABLE, when it cannot be found out now.
        """
        ...


class ServiceTokenAuthenticator:
    """Knows the secret that services show each other."""

    def __init__(self, service_token: str) -> None:
        """Know this token."""
        self._token = service_token.encode()

    async def authenticate(self, secret: str) -> Caller | None:
        """SERVICE, when it is the token; compared in constant time."""
        return SERVICE if hmac.compare_digest(secret.encode(), self._token) else None


class ChainAuthenticator:
    """Asks several authenticators in turn; the first that knows the secret decides."""

    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        """Ask these, in order."""
        self._authenticators = tuple(authenticators)

    async def authenticate(self, secret: str) -> Caller | None:
        """The first answer that is not None."""
        for authenticator in self._authenticators:
            caller = await authenticator.authenticate(secret)
            if caller is not None:
                return caller
        return None


class ApiTokenAuthenticator:
    """Knows API tokens by asking WorkspaceService, and remembers the answers for a while.

    A revoked token works until its entry is old: `ttl_s` while WorkspaceService answers, twice that
    while it does not. Only digests are kept.
    """

    def __init__(
        self, channel: grpc.aio.Channel, *, ttl_s: float = 30.0, unknown_ttl_s: float = 5.0, max_entries: int = 10_000
    ) -> None:
        """Ask over a channel that carries the service token (`headrace.rpc.channel.connect`)."""
        self._stub = WorkspaceServiceStub(channel)
        self._ttl_s = ttl_s
        self._unknown_ttl_s = unknown_ttl_s
        self._max_entries = max_entries
        self._entries: OrderedDict[str, tuple[float, Caller | None]] = OrderedDict()

    async def authenticate(self, secret: str) -> Caller | None:
        """The token's workspace and scopes, or None when it is unknown or revoked."""
        if not secret.startswith(TOKEN_PREFIX) or len(secret) > _MAX_SECRET:
            return None
        digest = token_digest(secret)
        entry = self._entries.get(digest)
        now = time.monotonic()
        if entry is not None and now - entry[0] < (self._ttl_s if entry[1] else self._unknown_ttl_s):
            return entry[1]
        try:
            caller = await self._ask(secret)
        except grpc.aio.AioRpcError as error:
            if not is_unavailable(error):
                raise
            if entry is not None and entry[1] is not None and now - entry[0] < 2 * self._ttl_s:
                return entry[1]
            raise unavailable("API tokens cannot be checked at the moment: try again.") from error
        self._entries[digest] = (now, caller)
        self._entries.move_to_end(digest)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        return caller

    async def _ask(self, secret: str) -> Caller | None:
        try:
            answer = await self._stub.AuthenticateToken(AuthenticateTokenRequest(secret=secret), timeout=5)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return None
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                # It is this service that is not known there, not its caller.
                raise unavailable(
                    "API tokens cannot be checked: the services' HEADRACE_SERVICE_TOKEN differ."
                ) from error
            raise
        return Caller(workspace_id=answer.workspace_id, scopes=frozenset(answer.scopes))


def authenticator(settings: ServiceSettings, workspace_channel: grpc.aio.Channel) -> Authenticator:
    """What every service but console asks: is it another service, else whose API token is it.

    Args:
        settings: Holds the service token.
        workspace_channel: To WorkspaceService, with the service token (`headrace.rpc.channel.connect`).
    """
    return ChainAuthenticator(
        [
            ServiceTokenAuthenticator(settings.service_token.get_secret_value()),
            ApiTokenAuthenticator(workspace_channel),
        ]
    )
