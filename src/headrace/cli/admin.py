"""`headrace admin ...`: for operators, who hold the stores or the service token."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from headrace.cli.admin_evaluate import evaluate
from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.files import new_request_id
from headrace.cli.mongo import MongoDatabase, MongoSettings, MongoUrl, with_database
from headrace.cli.output import Output, write, write_json
from headrace.cli.platform import Platform, listed
from headrace.cli.problems import FAILED, UsageProblem

if TYPE_CHECKING:
    from headrace.storage.mongo.client import Database

app = group("For operators: indexes, workspaces, parked events, checks.")
workspace = group("Workspaces; with the service token.")
parked = group("Events that identity could not process; with access to MongoDB.")
app.add_typer(workspace, name="workspace")
app.add_typer(parked, name="parked")
app.command("evaluate")(evaluate)

SERVICE_TOKEN_VARIABLE = "HEADRACE_SERVICE_TOKEN"  # noqa: S105 - names a variable


@app.command("indexes")
def indexes(
    mongo_url: MongoUrl = None,
    mongo_database: MongoDatabase = None,
    wait: Annotated[float, Option("--wait", min=0, help="Seconds to wait for the store.")] = 60.0,
) -> None:
    """Make the indexes of all collections and drop those of earlier versions; again is harmless. Services make none."""

    async def make(db: Database) -> None:
        from headrace.storage.mongo.indexes import make_indexes

        await make_indexes(db)

    with_database(MongoSettings(mongo_url, mongo_database), make, wait_s=wait)
    write("indexes are there")


@command(workspace, "create")
async def create_workspace(
    platform: Platform,
    out: Output,
    id: Annotated[str, Argument(help="1 to 63 lower-case letters, digits and dashes, no dash first.")],
    display_name: Annotated[str, Option("--display-name", help="Name for people; default: the id.")] = "",
    service_token: Annotated[
        str, Option("--service-token", help="Default: HEADRACE_SERVICE_TOKEN.", show_default=False)
    ] = "",
) -> None:
    """Make a workspace and an API token for everything in it; shows the token's secret, this once."""
    from headrace.api.workspace.v1 import workspace_service_pb2 as pb

    stub = _as_service(platform, service_token).workspaces
    made = await stub.CreateWorkspace(
        pb.CreateWorkspaceRequest(
            workspace_id=id, workspace=pb.Workspace(display_name=display_name or id), request_id=new_request_id()
        )
    )
    name = made.workspace.name
    token = pb.ApiToken(display_name="first token", scopes=["*"])
    answer = await stub.CreateApiToken(pb.CreateApiTokenRequest(parent=name, api_token=token))
    result = {"name": name, "display_name": made.workspace.display_name, "api_token": answer.secret}
    out.done(f"made {name}\nAPI token, shown only now: {answer.secret}", result)


@command(workspace, "list")
async def list_workspaces(
    platform: Platform,
    out: Output,
    service_token: Annotated[
        str, Option("--service-token", help="Default: HEADRACE_SERVICE_TOKEN.", show_default=False)
    ] = "",
    limit: Limit = DEFAULT_LIMIT,
    everything: All = False,
) -> None:
    """List all workspaces."""
    from headrace.api.workspace.v1.workspace_service_pb2 import ListWorkspacesRequest

    stub = _as_service(platform, service_token).workspaces
    out.rows(
        await listed(
            lambda size, token: stub.ListWorkspaces(ListWorkspacesRequest(page_size=size, page_token=token)),
            "workspaces",
            limit=limit,
            everything=everything,
        ),
        ("name", "display_name", "create_time"),
    )


def _as_service(platform: Platform, service_token: str) -> Platform:
    """The platform, called with the service token.

    Raises:
        UsageProblem: It is not known.
    """
    token = service_token or os.environ.get(SERVICE_TOKEN_VARIABLE, "")
    if not token:
        raise UsageProblem(f"this needs the service token: pass --service-token or set {SERVICE_TOKEN_VARIABLE}")
    platform.use_token(token)
    return platform


@command(app, "verify")
async def verify(
    platform: Platform,
    out: Output,
    repair: Annotated[bool, Option("--repair", help="Correct what differs, from the events of these people.")] = False,
) -> int:
    """Compare the live members of every active audience with the batch evaluator; exit status 1 when any differ.

    Those whose members are computed for a moment (static ones, those refreshed at intervals or of groups) are compared
    as of that moment. Those that go by stored members of others are not compared.
    """
    import grpc

    from headrace.api.audience.v1.audience_pb2 import AudienceState
    from headrace.api.audience.v1.audience_service_pb2 import ListAudiencesRequest, VerifyAudienceRequest
    from headrace.rpc.errors import WRONG_STATE, reason_of

    stub, parent = platform.audiences, platform.parent
    audiences = await listed(
        lambda size, token: stub.ListAudiences(ListAudiencesRequest(parent=parent, page_size=size, page_token=token)),
        "audiences",
        limit=0,
        everything=True,
    )
    rows = []
    for audience in audiences:
        if audience.state != AudienceState.AUDIENCE_STATE_ACTIVE:
            continue
        try:
            answer = await stub.VerifyAudience(VerifyAudienceRequest(name=audience.name, repair=repair), timeout=300)
        except grpc.aio.AioRpcError as error:
            if reason_of(error) != WRONG_STATE:
                raise
            rows.append({"audience": audience.name, "same": None, "not_compared": error.details()})
            continue
        mismatched = list(answer.mismatched_profile_ids)
        same = not mismatched and answer.live_size == answer.batch_size
        rows.append(
            {
                "audience": audience.name,
                "live": answer.live_size,
                "batch": answer.batch_size,
                "same": same,
                "mismatched": mismatched,
                "corrected": answer.corrected_count,
                "unanswered": answer.unanswered_count,
            }
        )
    out.rows(rows, ("audience", "live", "batch", "same", "mismatched", "corrected", "not_compared"))
    return FAILED if any(row["same"] is False for row in rows) else 0


@parked.command("list")
def list_parked_events(
    workspace_id: Annotated[str, Argument(metavar="WORKSPACE", help="Workspace id.")],
    after: Annotated[str, Option("--after", help="Only those behind this message id.")] = "",
    limit: Limit = DEFAULT_LIMIT,
    mongo_url: MongoUrl = None,
    mongo_database: MongoDatabase = None,
) -> None:
    """List the parked events of a workspace as JSON, by message id, with the kinds of the errors."""

    async def read(db: Database) -> list[dict[str, Any]]:
        from headrace_identity.parked import list_parked

        from headrace.domain.times import format_time_us

        return [
            {
                "message_id": found.message_id,
                "parked_at": format_time_us(found.parked_at_us),
                "reason": list(found.reason),
                "segment": found.segment_id,
            }
            for found in await list_parked(db, workspace_id, after=after, limit=limit)
        ]

    write_json(with_database(MongoSettings(mongo_url, mongo_database), read))


@parked.command("replay")
def replay_parked_events(
    workspace_id: Annotated[str, Argument(metavar="WORKSPACE", help="Workspace id.")],
    message_ids: Annotated[list[str] | None, Argument(metavar="[MESSAGE_ID]...", help="Default: all.")] = None,
    mongo_url: MongoUrl = None,
    mongo_database: MongoDatabase = None,
) -> None:
    """Process parked events again; one that fails again is parked again."""

    async def replay(db: Database) -> int:
        from headrace_identity.parked import replay_parked

        # The first partition exists however many there are, so nothing needs to be known of the services' settings.
        return await replay_parked(db, workspace_id, message_ids or None, event_partitions=1)

    count = with_database(MongoSettings(mongo_url, mongo_database), replay)
    write(f"events that are in the log again: {count}")
