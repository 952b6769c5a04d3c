"""`headrace workspaces ...`: workspaces that the credentials may see."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.output import Output
from headrace.cli.platform import Platform, listed

app = group("Workspaces that the credentials may see; making one is `headrace admin workspace create`.")
COLUMNS = ("name", "display_name", "create_time")


@command(app, "list")
async def list_(platform: Platform, out: Output, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List the workspaces that the token may see."""
    from headrace.api.workspace.v1.workspace_service_pb2 import ListWorkspacesRequest

    stub = platform.workspaces
    out.rows(
        await listed(
            lambda size, token: stub.ListWorkspaces(ListWorkspacesRequest(page_size=size, page_token=token)),
            "workspaces",
            limit=limit,
            everything=everything,
        ),
        COLUMNS,
    )


@command(app, "get")
async def get(
    platform: Platform, out: Output, id: Annotated[str, Argument(help="Workspace id; default: the token's.")] = ""
) -> None:
    """Show a workspace."""
    from headrace.api.workspace.v1.workspace_service_pb2 import GetWorkspaceRequest

    name = f"workspaces/{id}" if id else platform.parent
    out.item((await platform.workspaces.GetWorkspace(GetWorkspaceRequest(name=name))).workspace)
