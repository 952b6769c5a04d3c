"""What the console service does: makes workspaces, makes and revokes API tokens, says what a token may do."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.domain import times
from headrace.rpc import auth, names
from headrace.rpc.errors import already_exists, invalid_argument, invalid_arguments, not_found
from headrace.rpc.scopes import EVERYTHING, SCOPES, WORKSPACE_ADMIN
from headrace_console.store import ApiToken, ConsoleStore, Workspace

MAX_SECRET = 512


class Workspaces:
    """Rules of workspaces and API tokens over the store."""

    def __init__(self, store: ConsoleStore) -> None:
        """Work on a store."""
        self._store = store

    async def create_workspace(self, workspace_id: str, display_name: str, request_id: str) -> Workspace:
        """Make a workspace; for services and operators, who hold the service token.

        Raises:
            ApiError: PERMISSION_DENIED, INVALID_ARGUMENT, or ALREADY_EXISTS unless it was made by the same request id.
        """
        auth.require_service()
        names.check_id("workspace_id", workspace_id)
        display_name = names.display_name("workspace.display_name", display_name)
        workspace = Workspace(workspace_id, display_name, times.now_us(), request_id)
        existing = await self._store.add_workspace(workspace)
        if existing is None:
            return workspace
        if request_id and existing.request_id == request_id:
            return existing
        raise already_exists(names.format(names.WORKSPACE, workspace_id))

    async def workspace(self, workspace_id: str) -> Workspace:
        """Read a workspace.

        Raises:
            ApiError: PERMISSION_DENIED or NOT_FOUND.
        """
        auth.authorize(WORKSPACE_ADMIN, workspace_id)
        workspace = await self._store.workspace(workspace_id)
        if workspace is None:
            raise not_found(names.format(names.WORKSPACE, workspace_id))
        return workspace

    async def workspaces(self, after: str, limit: int) -> list[Workspace]:
        """Workspaces that the caller may see, by id: a service all, a token its own.

        Args:
            after: Only those whose id comes after this one.
            limit: At most this many.
        """
        caller = auth.current_caller()
        if caller.service:
            return await self._store.workspaces(after, limit)
        own = caller.workspace_id or ""
        auth.authorize(WORKSPACE_ADMIN, own)
        workspace = await self._store.workspace(own) if own > after else None
        return [] if workspace is None else [workspace]

    async def create_token(self, workspace_id: str, display_name: str, scopes: Sequence[str]) -> tuple[ApiToken, str]:
        """Make a token; returns it and its secret, which is stored nowhere.

        An administrator of a workspace may give any scope in it, also those that their own token lacks.

        Raises:
            ApiError: PERMISSION_DENIED, INVALID_ARGUMENT or NOT_FOUND.
        """
        auth.authorize(WORKSPACE_ADMIN, workspace_id)
        display_name = names.display_name("api_token.display_name", display_name)
        _check_scopes(scopes)
        await self.workspace(workspace_id)
        secret = auth.new_token()
        unique = sorted(set(scopes))
        token = await self._store.add_token(workspace_id, display_name, unique, auth.token_digest(secret))
        return token, secret

    async def tokens(self, workspace_id: str, after: str, limit: int) -> list[ApiToken]:
        """Tokens of a workspace in order of making.

        Args:
            workspace_id: The workspace.
            after: Only those whose id comes after this one.
            limit: At most this many.
        """
        auth.authorize(WORKSPACE_ADMIN, workspace_id)
        return await self._store.tokens(workspace_id, after, limit)

    async def revoke_token(self, workspace_id: str, token_id: str) -> ApiToken:
        """Revoke a token; again is no error, and the first time stays.

        Raises:
            ApiError: PERMISSION_DENIED or NOT_FOUND.
        """
        auth.authorize(WORKSPACE_ADMIN, workspace_id)
        token = await self._store.revoke_token(workspace_id, token_id)
        if token is None:
            raise not_found(names.format(names.API_TOKEN, workspace_id, token_id))
        return token

    async def authenticate(self, secret: str) -> ApiToken:
        """The token of a secret; for services.

        Raises:
            ApiError: PERMISSION_DENIED, or NOT_FOUND when it is unknown or revoked.
        """
        auth.require_service()
        token = await token_of(self._store, secret)
        if token is None:
            raise not_found("A token with this secret")
        return token


class StoredTokens:
    """Authenticates the console's own callers: it owns the tokens, so it asks its store and nobody else."""

    def __init__(self, store: ConsoleStore) -> None:
        """Ask this store."""
        self._store = store

    async def authenticate(self, secret: str) -> auth.Caller | None:
        """The token's workspace and scopes, or None when it is unknown or revoked."""
        token = await token_of(self._store, secret)
        if token is None:
            return None
        return auth.Caller(workspace_id=token.workspace_id, scopes=frozenset(token.scopes))


async def token_of(store: ConsoleStore, secret: str) -> ApiToken | None:
    """The working token of a secret, or None; what cannot be one is not looked up."""
    if not secret.startswith(auth.TOKEN_PREFIX) or len(secret) > MAX_SECRET:
        return None
    return await store.working_token(auth.token_digest(secret))


def _check_scopes(scopes: Sequence[str]) -> None:
    if not scopes:
        raise invalid_argument("api_token.scopes", f"must name at least one of {_known_scopes()}")
    unknown = [i for i, scope in enumerate(scopes) if scope not in SCOPES and scope != EVERYTHING]
    if unknown:
        raise invalid_arguments([(f"api_token.scopes[{i}]", f"must be one of {_known_scopes()}") for i in unknown])


def _known_scopes() -> str:
    return ", ".join([EVERYTHING, *sorted(SCOPES)])
