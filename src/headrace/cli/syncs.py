"""`headrace syncs ...`: what is sent where, and what came of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from typer import Argument, Option

from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.files import json_argument, new_request_id
from headrace.cli.moments import moment_us
from headrace.cli.output import Output
from headrace.cli.platform import Platform, listed
from headrace.cli.problems import UsageProblem, say

app = group("Syncs, their runs, deliveries and ledger.")

_VALUES = {"all": "UNSPECIFIED", "first": "FIRST", "last": "LAST"}
Id = Annotated[str, Argument(help="Sync id or resource name.")]


class Kind(StrEnum):
    """Kind of a sync."""

    LIST = "list"
    EVENT = "event"
    FORWARDING = "forwarding"


class Values(StrEnum):
    """Which values of an identifier are sent."""

    ALL = "all"
    FIRST = "first"
    LAST = "last"


class State(StrEnum):
    """State of a delivery."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    WARNING = "warning"
    FAILED = "failed"
    FILTERED = "filtered"


@command(app, "list")
async def list_(platform: Platform, out: Output, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List the syncs."""
    from headrace.api.sync.v1.sync_service_pb2 import ListSyncsRequest

    stub, parent = platform.syncs, platform.parent
    out.rows(
        await listed(
            lambda size, token: stub.ListSyncs(ListSyncsRequest(parent=parent, page_size=size, page_token=token)),
            "syncs",
            limit=limit,
            everything=everything,
        ),
        ("name", "display_name", "kind", "destination", "audience", "paused"),
    )


@command(app, "get")
async def get(platform: Platform, out: Output, id: Id) -> None:
    """Show a sync."""
    from headrace.api.sync.v1.sync_service_pb2 import GetSyncRequest

    out.item((await platform.syncs.GetSync(GetSyncRequest(name=platform.name("syncs", id)))).sync)


@command(app, "create")
async def create(
    platform: Platform,
    out: Output,
    id: Annotated[str, Argument(help="1 to 63 lower-case letters, digits and dashes, no dash first.")],
    kind: Annotated[Kind, Option("--kind", help="What it sends.")],
    destination: Annotated[str, Option("--destination", help="Destination id or resource name.")],
    audience: Annotated[str, Option("--audience", help="Audience id or resource name, for list and event.")] = "",
    event: Annotated[
        list[str] | None, Option("--event", help="For forwarding: only events of this name; may be repeated.")
    ] = None,
    mapping: Annotated[str, Option("--mapping", help="The mapping as JSON, or @FILE.")] = "",
    send_removals: Annotated[bool, Option("--send-removals", help="For event: also removed_from_segment.")] = False,
    require_approval: Annotated[
        bool, Option("--require-approval", help="For list: send no change before it is approved.")
    ] = False,
    most_changed: Annotated[
        int, Option("--most-changed", help="For list: percent of the list that may change within a day unasked.")
    ] = 0,
    values: Annotated[
        Values, Option("--values", help="Which values are sent of people with several of an identifier.")
    ] = Values.ALL,
    schedule: Annotated[
        str, Option("--schedule", help="For list: 6h, or daily 03:00 Asia/Kolkata, or weekly mon 03:00.")
    ] = "",
    vendor_list: Annotated[
        str, Option("--list", help="For list: id of the vendor's list, in place of the destination's.")
    ] = "",
    delay: Annotated[int, Option("--delay", min=0, help="For forwarding: send events so many seconds later.")] = 0,
    paused: Annotated[bool, Option("--paused", help="Make it without starting it.")] = False,
    display_name: Annotated[str, Option("--display-name", help="Name for people; default: the id.")] = "",
) -> None:
    """Make a sync."""
    from headrace.api.sync.v1.sync_service_pb2 import CreateSyncRequest, IdentifierValues, Sync, SyncKind

    sync = Sync(
        display_name=display_name or id,
        kind=SyncKind.Value(f"SYNC_KIND_{kind.name}"),
        destination=platform.name("destinations", destination),
        audience=platform.name("audiences", audience) if audience else "",
        event_names=event or (),
        mapping=json_argument("--mapping", mapping) if mapping else "",
        send_removals=send_removals,
        require_approval=require_approval,
        most_changed_percent=most_changed,
        identifier_values=IdentifierValues.Value(f"IDENTIFIER_VALUES_{_VALUES[values]}"),
        delay_seconds=delay,
        schedule=schedule,
        list=vendor_list,
        paused=paused,
    )
    request = CreateSyncRequest(parent=platform.parent, sync_id=id, sync=sync, request_id=new_request_id())
    made = await platform.syncs.CreateSync(request)
    for advice in made.advice:
        say(f"warning: {advice}")
    out.item(made.sync)


@command(app, "update")
async def update(
    platform: Platform,
    out: Output,
    id: Id,
    display_name: Annotated[str | None, Option("--display-name", help="Name for people.")] = None,
    event: Annotated[
        list[str] | None, Option("--event", help="For forwarding: only events of this name; may be repeated.")
    ] = None,
    all_events: Annotated[bool, Option("--all-events", help="For forwarding: events of any name.")] = False,
    mapping: Annotated[str | None, Option("--mapping", help="The mapping as JSON, or @FILE.")] = None,
    send_removals: Annotated[
        bool | None, Option("--send-removals/--no-removals", help="For event.", show_default=False)
    ] = None,
    require_approval: Annotated[
        bool | None, Option("--require-approval/--no-approval", help="For list.", show_default=False)
    ] = None,
    most_changed: Annotated[
        int | None, Option("--most-changed", help="For list: percent that may change unasked; 0: no limit.")
    ] = None,
    values: Annotated[
        Values | None, Option("--values", help="Which values are sent of people with several.", show_default=False)
    ] = None,
    schedule: Annotated[
        str | None, Option("--schedule", help="For list; empty for soon after changes.", show_default=False)
    ] = None,
    vendor_list: Annotated[
        str | None,
        Option(
            "--list",
            help="For list: fill this list of the vendor; the one before is left as it is. Empty: the destination's.",
            show_default=False,
        ),
    ] = None,
    delay: Annotated[int | None, Option("--delay", min=0, help="For forwarding: seconds.", show_default=False)] = None,
    paused: Annotated[bool | None, Option("--pause/--resume", help="Stop it, or go on.", show_default=False)] = None,
) -> None:
    """Change a sync; what is not given stays."""
    from google.protobuf.field_mask_pb2 import FieldMask

    from headrace.api.sync.v1.sync_service_pb2 import IdentifierValues, Sync, UpdateSyncRequest

    if event and all_events:
        raise UsageProblem("give --event or --all-events, not both")
    sync = Sync(name=platform.name("syncs", id))
    paths = []
    if display_name is not None:
        sync.display_name = display_name
        paths.append("display_name")
    if event or all_events:
        sync.event_names.extend(event or ())
        paths.append("event_names")
    if mapping is not None:
        sync.mapping = json_argument("--mapping", mapping) if mapping else ""
        paths.append("mapping")
    if send_removals is not None:
        sync.send_removals = send_removals
        paths.append("send_removals")
    if require_approval is not None:
        sync.require_approval = require_approval
        paths.append("require_approval")
    if most_changed is not None:
        sync.most_changed_percent = most_changed
        paths.append("most_changed_percent")
    if values is not None:
        sync.identifier_values = IdentifierValues.Value(f"IDENTIFIER_VALUES_{_VALUES[values]}")
        paths.append("identifier_values")
    if delay is not None:
        sync.delay_seconds = delay
        paths.append("delay_seconds")
    if schedule is not None:
        sync.schedule = schedule
        paths.append("schedule")
    if vendor_list is not None:
        sync.list = vendor_list
        paths.append("list")
    if paused is not None:
        sync.paused = paused
        paths.append("paused")
    if not paths:
        raise UsageProblem("nothing to change was given")
    request = UpdateSyncRequest(sync=sync, update_mask=FieldMask(paths=paths), request_id=new_request_id())
    out.item((await platform.syncs.UpdateSync(request)).sync)


@command(app, "delete")
async def delete(
    platform: Platform,
    out: Output,
    id: Id,
    remove_members: Annotated[
        bool, Option("--remove-members", help="First take everybody off the vendor's list whom the sync put there.")
    ] = False,
) -> None:
    """Delete a sync and what it remembers; the vendor's list stays, unless --remove-members is given."""
    from headrace.api.sync.v1.sync_service_pb2 import DeleteSyncRequest

    name = platform.name("syncs", id)
    request = DeleteSyncRequest(name=name, request_id=new_request_id(), remove_members=remove_members)
    answer = await platform.syncs.DeleteSync(request)
    done = f"deleted {name}" if not answer.HasField("sync") else f"{name} is deleted once everybody is off its list"
    out.done(done, answer)


@command(app, "dry-run")
async def dry_run(
    platform: Platform,
    out: Output,
    id: Id,
    full: Annotated[bool, Option("--full", help="What a full run would do.")] = False,
    plan: Annotated[str, Option("--plan", help="Only people of this plan, which waits for approval.")] = "",
    profile: Annotated[
        str,
        Option(
            "--profile", help="Forwarding: the events of this person, a profile id or an identifier as NAMESPACE:VALUE."
        ),
    ] = "",
    message: Annotated[str, Option("--message", help="Forwarding: the event of this message id.")] = "",
    requests: Annotated[bool, Option("--requests", help="Show the requests in place of the people or events.")] = False,
    limit: Limit = DEFAULT_LIMIT,
    everything: All = False,
) -> None:
    """Show who would be added, updated, removed or left out and why; --requests and --json with the exact requests.

    Of a forwarding sync --profile or --message says which events are looked at.
    """
    from headrace.api.sync.v1.plan_pb2 import DryRunSyncRequest, DryRunSyncResponse

    parts = await _parts(platform, profile) if profile else []
    found, token, looked_at = DryRunSyncResponse(), "", 0
    while True:
        request = DryRunSyncRequest(
            name=platform.name("syncs", id),
            full=full,
            plan_id=plan,
            profile_ids=parts,
            message_id=message,
            page_size=1_000 if everything else min(limit, 1_000),
            page_token=token,
        )
        page = await platform.syncs.DryRunSync(request)
        looked_at += page.unchanged + len(page.changes)
        token = page.next_page_token
        unchanged = found.unchanged + page.unchanged
        found.MergeFrom(page)
        found.unchanged, found.next_page_token = unchanged, token
        if not token or (looked_at >= limit and not everything):
            break
    for advice in () if out.as_json else found.advice:
        say(f"warning: {advice}")
    if out.as_json:
        out.item(found)
    elif requests:
        carried = "events=message_ids" if profile or message else "profiles=profile_ids"
        out.rows(found.requests, ("method", "url", carried, "body"))
    elif profile or message:
        out.rows(found.changes, ("message_id", "event_name", "operation", "reason", "fields"))
    else:
        out.rows(found.changes, ("profile_id", "operation", "added", "removed", "reason"))


async def _parts(platform: Platform, given: str) -> list[str]:
    """The ids of all parts of a person."""
    from headrace.api.common.v1.event_pb2 import Identifier
    from headrace.api.identity.v1.profile_service_pb2 import GetProfileRequest, LookupProfileRequest

    namespace, colon, value = given.partition(":")
    if colon:
        identifier = Identifier(namespace=namespace, value=value)
        lookup = LookupProfileRequest(parent=platform.parent, identifier=identifier)
        return list((await platform.profiles.LookupProfile(lookup)).profile.parts)
    request = GetProfileRequest(name=platform.name("profiles", given))
    return list((await platform.profiles.GetProfile(request)).profile.parts)


@command(app, "approve")
async def approve(
    platform: Platform,
    out: Output,
    id: Id,
    plan: Annotated[str, Argument(help="Id of the plan that waits, as `syncs get` shows it.")],
) -> None:
    """Approve what a list sync would change: exactly that is sent."""
    from headrace.api.sync.v1.plan_pb2 import ApproveSyncRequest

    request = ApproveSyncRequest(name=platform.name("syncs", id), plan_id=plan, request_id=new_request_id())
    out.item((await platform.syncs.ApproveSync(request)).plan)


@command(app, "run")
async def run(
    platform: Platform,
    out: Output,
    id: Id,
    full: Annotated[bool, Option("--full", help="Send every member again, remove everyone else.")] = False,
) -> None:
    """Start a pass of a list sync now."""
    from headrace.api.sync.v1.sync_service_pb2 import RunSyncRequest

    request = RunSyncRequest(name=platform.name("syncs", id), full=full, request_id=new_request_id())
    out.item((await platform.syncs.RunSync(request)).run)


@command(app, "runs")
async def runs(platform: Platform, out: Output, id: Id, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List the passes of a list sync, newest first."""
    from headrace.api.sync.v1.sync_service_pb2 import ListSyncRunsRequest

    stub, parent = platform.syncs, platform.name("syncs", id)
    out.rows(
        await listed(
            lambda size, token: stub.ListSyncRuns(ListSyncRunsRequest(parent=parent, page_size=size, page_token=token)),
            "runs",
            limit=limit,
            everything=everything,
        ),
        ("start_time", "end_time", "id", "status", "added", "removed", "failed", "pending", "held", "skipped", "error"),
    )


@command(app, "deliveries")
async def deliveries(
    platform: Platform,
    out: Output,
    id: Annotated[str, Argument(help="Sync id or resource name; all syncs when left out.")] = "",
    state: Annotated[State | None, Option("--state", help="Only deliveries of this state.")] = None,
    message: Annotated[str, Option("--message", help="Only deliveries of this message id.")] = "",
    requests: Annotated[
        bool,
        Option("--requests", help="Show the last request of each and the vendor's answer, where they are kept."),
    ] = False,
    limit: Limit = DEFAULT_LIMIT,
    everything: All = False,
) -> None:
    """List deliveries, newest first."""
    from headrace.api.sync.v1.sync_service_pb2 import DeliveryState, ListDeliveriesRequest

    stub = platform.syncs
    parent = platform.name("syncs", id) if id else platform.parent
    wanted = DeliveryState.Value(f"DELIVERY_STATE_{state.name if state else 'UNSPECIFIED'}")
    found = await listed(
        lambda size, token: stub.ListDeliveries(
            ListDeliveriesRequest(
                parent=parent,
                page_size=size,
                page_token=token,
                state=wanted,
                message_id=message,
                exchanges=requests,
            )
        ),
        "deliveries",
        limit=limit,
        everything=everything,
    )
    if requests:
        asked = ("exchange.method", "exchange.url", "exchange.body", "status=exchange.status_code", "exchange.answer")
        out.rows(found, ("id", "state", "reason", *asked))
    else:
        out.rows(found, ("update_time", "id", "sync", "operation", "state", "attempts", "status=status_code", "reason"))


@command(app, "replay")
async def replay(
    platform: Platform,
    out: Output,
    id: Id,
    delivery: Annotated[
        list[str] | None, Option("--delivery", help="Only this delivery; may be repeated. Else all that failed.")
    ] = None,
    reason: Annotated[str, Option("--reason", help="Only those whose reason has this text in it.")] = "",
    status: Annotated[int, Option("--status", help="Only those whose last answer had this status.")] = 0,
    since: Annotated[str, Option("--since", help="Only those that failed at or after this time (ISO 8601).")] = "",
    before: Annotated[str, Option("--before", help="Only those that failed before this time (ISO 8601).")] = "",
    even_if_sent: Annotated[
        bool, Option("--even-if-sent", help="Also those that may have arrived where repetitions count.")
    ] = False,
) -> None:
    """Put failed deliveries back in the queue."""
    from headrace.api.sync.v1.sync_service_pb2 import ReplayDeliveriesRequest

    request = ReplayDeliveriesRequest(
        parent=platform.name("syncs", id),
        delivery_ids=delivery or (),
        request_id=new_request_id(),
        reason_contains=reason,
        status_code=status,
        even_if_sent=even_if_sent,
    )
    if since:
        request.failed_from.FromMicroseconds(moment_us(since, "--since"))
    if before:
        request.failed_before.FromMicroseconds(moment_us(before, "--before"))
    answer = await platform.syncs.ReplayDeliveries(request)
    out.done(f"{answer.replayed} deliveries are in the queue again", answer)


@command(app, "ledger")
async def ledger(platform: Platform, out: Output, id: Id) -> None:
    """Show the account of every event or member at a sync."""
    from headrace.api.sync.v1.sync_service_pb2 import GetLedgerRequest

    out.item(await platform.syncs.GetLedger(GetLedgerRequest(name=platform.name("syncs", id))))
