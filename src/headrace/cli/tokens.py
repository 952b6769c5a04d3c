"""`headrace tokens ...`: the API tokens of a workspace."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.output import Output, plain_of
from headrace.cli.platform import Platform, listed

app = group("API tokens of the workspace.")


@command(app, "list")
async def list_(platform: Platform, out: Output, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List the workspace's tokens, revoked ones too, without their secrets."""
    from headrace.api.workspace.v1.workspace_service_pb2 import ListApiTokensRequest

    stub, parent = platform.workspaces, platform.parent
    out.rows(
        await listed(
            lambda size, token: stub.ListApiTokens(
                ListApiTokensRequest(parent=parent, page_size=size, page_token=token)
            ),
            "api_tokens",
            limit=limit,
            everything=everything,
        ),
        ("name", "display_name", "scopes", "create_time", "revoked=revoke_time"),
    )


@command(app, "create")
async def create(
    platform: Platform,
    out: Output,
    display_name: Annotated[str, Argument(help="Name for people: which program it is for.")],
    scope: Annotated[list[str], Option("--scope", help='What it may do, such as "profiles:read"; may be repeated.')],
) -> None:
    """Make a token and show its secret, this once."""
    from headrace.api.workspace.v1.workspace_service_pb2 import ApiToken, CreateApiTokenRequest

    token = ApiToken(display_name=display_name, scopes=scope)
    request = CreateApiTokenRequest(parent=platform.parent, api_token=token)
    answer = await platform.workspaces.CreateApiToken(request)
    shown = {**plain_of(answer.api_token), "secret": answer.secret}
    out.done(f"{answer.api_token.name}\nsecret, shown only now: {answer.secret}", shown)


@command(app, "revoke")
async def revoke(
    platform: Platform, out: Output, id: Annotated[str, Argument(help="Token id or resource name.")]
) -> None:
    """Revoke a token; services stop taking it within a minute."""
    from headrace.api.workspace.v1.workspace_service_pb2 import RevokeApiTokenRequest

    request = RevokeApiTokenRequest(name=platform.name("apiTokens", id))
    token = (await platform.workspaces.RevokeApiToken(request)).api_token
    out.done(f"revoked {token.name}", token)
