"""`headrace audiences ...`: audiences, their members and how those changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer import Argument, Option

from headrace.cli.audience_changes import check_no_syncs, moved, told
from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.files import definition_argument, new_request_id
from headrace.cli.moments import moment_us
from headrace.cli.output import Output, plain_of, time_of, write
from headrace.cli.platform import Platform, listed
from headrace.cli.problems import FAILED, CommandFailed, UsageProblem, say

app = group("Audiences and their members.")

Id = Annotated[str, Argument(help="Audience id or resource name.")]
Etag = Annotated[str, Option("--etag", help="Only when the audience is still as `get` showed it: its etag.")]
Force = Annotated[bool, Option("--force", help="Do not ask for syncs that go by it: they take its members off.")]
Definition = Annotated[str, Option("--definition", help="The definition as text or JSON, or @FILE.")]


@command(app, "list")
async def list_(
    platform: Platform,
    out: Output,
    limit: Limit = DEFAULT_LIMIT,
    everything: All = False,
    archived: Annotated[bool, Option("--archived", help="Archived ones too.")] = False,
) -> None:
    """List the audiences with state and size."""
    from headrace.api.audience.v1.audience_service_pb2 import ListAudiencesRequest

    stub, parent = platform.audiences, platform.parent
    out.rows(
        await listed(
            lambda size, token: stub.ListAudiences(
                ListAudiencesRequest(parent=parent, page_size=size, page_token=token, show_archived=archived)
            ),
            "audiences",
            limit=limit,
            everything=everything,
        ),
        ("name", "display_name", "state", "size", "update_time"),
    )


@command(app, "get")
async def get(platform: Platform, out: Output, id: Id) -> None:
    """Show an audience."""
    from headrace.api.audience.v1.audience_service_pb2 import GetAudienceRequest

    request = GetAudienceRequest(name=platform.name("audiences", id))
    _show(out, (await platform.audiences.GetAudience(request)).audience)


def _show(out: Output, audience: Any) -> None:
    """Write an audience; for people its definitions are in text form."""
    if out.as_json:
        out.item(audience)
        return
    from headrace_audience.language.text.printing import to_text

    plain = plain_of(audience)
    for one in (plain, plain["pending_version"]):
        if one and plain["state"] != "unreadable":
            one["definition"] = to_text(one["definition"])
    out.item(plain)


@command(app, "create")
async def create(
    platform: Platform,
    out: Output,
    id: Annotated[str, Argument(help="1 to 63 lower-case letters, digits and dashes, no dash first.")],
    definition: Definition,
    display_name: Annotated[str, Option("--display-name", help="Name for people; default: the id.")] = "",
) -> None:
    """Make an audience as a draft; `activate` starts it."""
    from headrace.api.audience.v1.audience_pb2 import Audience
    from headrace.api.audience.v1.audience_service_pb2 import CreateAudienceRequest

    text = definition_argument("--definition", definition)
    audience = Audience(display_name=display_name or id, definition=text)
    request = CreateAudienceRequest(
        parent=platform.parent, audience_id=id, audience=audience, request_id=new_request_id()
    )
    _show(out, (await platform.audiences.CreateAudience(request)).audience)


@command(app, "update")
async def update(
    platform: Platform,
    out: Output,
    id: Id,
    display_name: Annotated[str | None, Option("--display-name", help="Name for people.")] = None,
    definition: Annotated[
        str | None,
        Option("--definition", help="As text or JSON, or @FILE; computed beside that of an active audience."),
    ] = None,
    etag: Etag = "",
    dry_run: Annotated[bool, Option("--dry-run", help="Change nothing; show who would enter and leave.")] = False,
) -> None:
    """Change an audience; what is not given stays."""
    from google.protobuf.field_mask_pb2 import FieldMask

    from headrace.api.audience.v1.audience_pb2 import Audience
    from headrace.api.audience.v1.audience_service_pb2 import UpdateAudienceRequest

    audience = Audience(name=platform.name("audiences", id), etag=etag)
    paths = []
    if display_name is not None:
        audience.display_name = display_name
        paths.append("display_name")
    if definition is not None:
        audience.definition = definition_argument("--definition", definition)
        paths.append("definition")
    if not paths:
        raise UsageProblem("nothing to change was given")
    request = UpdateAudienceRequest(
        audience=audience, update_mask=FieldMask(paths=paths), request_id=new_request_id(), validate_only=dry_run
    )
    answer = await platform.audiences.UpdateAudience(request, timeout=300)
    if dry_run and definition is not None:
        for warning in answer.audience.warnings:
            say(f"warning: {warning}")
        out.item(answer.change)
        return
    _show(out, answer.audience)
    if definition is not None and not out.as_json and (said := told(answer)):
        write(f"\n{said}")


@command(app, "confirm")
async def confirm(
    platform: Platform,
    out: Output,
    id: Id,
    yes: Annotated[bool, Option("--yes", help="Do not ask; the new version as it is now takes effect.")] = False,
    etag: Etag = "",
) -> None:
    """Let the new version of an audience's definition take effect; says whom it moves, and asks first."""
    from headrace.api.audience.v1.audience_service_pb2 import GetAudienceRequest

    if not etag:
        request = GetAudienceRequest(name=platform.name("audiences", id))
        audience = (await platform.audiences.GetAudience(request)).audience
        if audience.HasField("pending_version"):
            _ask_to_confirm(audience.pending_version, yes)
        etag = audience.etag
    await _change(platform, out, id, "ConfirmAudienceVersion", "has its new definition", etag=etag)


def _ask_to_confirm(version: Any, yes: bool) -> None:
    """Say whom a new version moves, and let somebody decide."""
    if not version.HasField("change"):
        return  # the service says that it is still being counted
    say(f"By the new definition {moved(version.change)}.")
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageProblem("nobody can be asked here: give --yes, or the --etag of what was looked at")
    if not typer.confirm("Let it take effect?", err=True):
        raise CommandFailed("nothing was changed")


@command(app, "discard")
async def discard(platform: Platform, out: Output, id: Id) -> None:
    """Discard the new version of an audience's definition."""
    await _change(platform, out, id, "DiscardAudienceVersion", "keeps its definition")


@command(app, "delete")
async def delete(platform: Platform, out: Output, id: Id, force: Force = False) -> None:
    """Delete an audience that no other audience names, and by which no sync goes."""
    from headrace.api.audience.v1.audience_service_pb2 import DeleteAudienceRequest

    name = platform.name("audiences", id)
    if not force:
        await check_no_syncs(platform, name)
    answer = await platform.audiences.DeleteAudience(DeleteAudienceRequest(name=name, request_id=new_request_id()))
    out.done(f"deleted {name}", answer)


@command(app, "activate")
async def activate(platform: Platform, out: Output, id: Id) -> None:
    """Start computing: fill from history, then keep it exact."""
    await _change(platform, out, id, "ActivateAudience", "is {state}")


@command(app, "pause")
async def pause(platform: Platform, out: Output, id: Id) -> None:
    """Stop computing; members stay as they are."""
    await _change(platform, out, id, "PauseAudience", "is {state}")


@command(app, "archive")
async def archive(platform: Platform, out: Output, id: Id, force: Force = False) -> None:
    """Put an audience away by which no sync goes: its members leave; `activate` brings it back."""
    if not force:
        await check_no_syncs(platform, platform.name("audiences", id))
    await _change(platform, out, id, "ArchiveAudience", "is {state}")


@command(app, "refresh")
async def refresh(platform: Platform, out: Output, id: Id) -> None:
    """Refresh an audience now that is refreshed at intervals, or one of groups."""
    await _change(platform, out, id, "RefreshAudience", "is being refreshed")


async def _change(platform: Platform, out: Output, id: str, method: str, said: str, **fields: str) -> None:
    """Call a method that changes one audience, and say what became of it, with "{state}" for its state."""
    from headrace.api.audience.v1 import audience_service_pb2

    make_request = getattr(audience_service_pb2, f"{method}Request")
    request = make_request(name=platform.name("audiences", id), request_id=new_request_id(), **fields)
    audience = (await getattr(platform.audiences, method)(request)).audience
    state = plain_of(audience)["state"]
    out.done(f"{audience.name} {said.format(state=state)}{_what_waits(audience, state)}", audience)


def _what_waits(audience: Any, state: str) -> str:
    """What becomes of the new version of a definition, when there is one."""
    if not audience.HasField("pending_version"):
        return ""
    if audience.pending_version.needs_confirmation:
        return "; its new definition waits for `confirm` or `discard`"
    if state == "paused":
        return "; its new definition is computed when it is activated"
    return "; its new definition is computed beside the members that it has, see `get`"


@command(app, "preview")
async def preview(
    platform: Platform,
    out: Output,
    definition: Definition,
    sample: Annotated[int, Option("--sample", min=1, max=100, help="Number of people to show.")] = 10,
    exact: Annotated[bool, Option("--exact", help="Count everybody, however long that takes.")] = False,
) -> None:
    """Compute size and sample of a definition without saving it; in a large workspace the size is an estimate."""
    from headrace.api.audience.v1.audience_service_pb2 import PreviewAudienceRequest

    text = definition_argument("--definition", definition)
    request = PreviewAudienceRequest(parent=platform.parent, definition=text, sample_size=sample, exact=exact)
    out.item(await platform.audiences.PreviewAudience(request, timeout=300))


@command(app, "members")
async def members(
    platform: Platform, out: Output, id: Id, limit: Limit = DEFAULT_LIMIT, everything: All = False
) -> None:
    """List the members, by profile id."""
    from headrace.api.audience.v1.audience_service_pb2 import ListMembersRequest

    stub, parent = platform.audiences, platform.name("audiences", id)
    found = await listed(
        lambda size, token: stub.ListMembers(ListMembersRequest(parent=parent, page_size=size, page_token=token)),
        "members",
        limit=limit,
        everything=everything,
    )
    rows = [{**plain_of(member), "since": time_of(member.since_us)} for member in found]
    out.rows(rows, ("profile=profile_id", "since", "version"))


@command(app, "changes")
async def changes(
    platform: Platform,
    out: Output,
    id: Annotated[str, Argument(help="Audience id or resource name; all audiences when left out.")] = "",
    profile: Annotated[str, Option("--profile", help="Only changes of this profile.")] = "",
    message: Annotated[str, Option("--message", help="Only changes caused by this message id.")] = "",
    limit: Limit = DEFAULT_LIMIT,
    everything: All = False,
) -> None:
    """List who entered and left, newest first."""
    from headrace.api.audience.v1.audience_service_pb2 import ListMembershipChangesRequest

    stub = platform.audiences
    parent = platform.name("audiences", id) if id else platform.parent
    found = await listed(
        lambda size, token: stub.ListMembershipChanges(
            ListMembershipChangesRequest(
                parent=parent, page_size=size, page_token=token, message_id=message, profile_id=profile
            )
        ),
        "changes",
        limit=limit,
        everything=everything,
    )
    rows = [
        {
            **plain_of(change),
            "change": "entered" if change.member else "left",
            "effective_at": time_of(change.effective_at_us),
            "changed_at": time_of(change.changed_at_us),
        }
        for change in found
    ]
    out.rows(rows, ("changed_at", "audience=audience_id", "profile=profile_id", "change", "effective_at", "cause"))


@command(app, "watch")
async def watch(
    platform: Platform,
    out: Output,
    id: Annotated[str, Argument(help="Audience id or resource name; all audiences when left out.")] = "",
    profile: Annotated[str, Option("--profile", help="Only changes of this profile.")] = "",
    cursor: Annotated[str, Option("--cursor", help="Go on after this cursor, which --json shows.")] = "",
    limit: Annotated[int | None, Option("--limit", min=1, help="End after so many changes; default: go on.")] = None,
) -> None:
    """Follow who enters and leaves, one a line, until it is interrupted."""
    from headrace.api.audience.v1.audience_service_pb2 import WatchMembershipRequest

    request = WatchMembershipRequest(
        parent=platform.name("audiences", id) if id else platform.parent,
        profile_id=profile.rpartition("/")[2],
        cursor=cursor,
    )
    seen = 0
    async for answer in platform.audiences.WatchMembership(request):
        if out.as_json:
            write(json.dumps({"changes": [plain_of(c) for c in answer.changes], "cursor": answer.cursor}))
        for change in () if out.as_json else answer.changes:
            what = "entered" if change.member else "left"
            write(f"{time_of(change.changed_at_us)}  {change.profile_id} {what} {change.audience_id} ({change.cause})")
        sys.stdout.flush()
        seen += len(answer.changes)
        if limit is not None and seen >= limit:
            return


@command(app, "verify")
async def verify(
    platform: Platform,
    out: Output,
    id: Id,
    repair: Annotated[bool, Option("--repair", help="Correct what differs, from the events of these people.")] = False,
) -> int:
    """Compare the live members with the batch evaluator; exit status 1 when they differ, or did before."""
    from headrace.api.audience.v1.audience_service_pb2 import VerifyAudienceRequest

    request = VerifyAudienceRequest(name=platform.name("audiences", id), repair=repair)
    answer = await platform.audiences.VerifyAudience(request, timeout=300)
    out.item(answer)
    return FAILED if answer.mismatched_profile_ids or answer.live_size != answer.batch_size else 0


@command(app, "explain")
async def explain(
    platform: Platform,
    out: Output,
    id: Id,
    profile: Annotated[
        str,
        Argument(help="Profile id, or an identifier as NAMESPACE:VALUE; of an audience of groups the group's id."),
    ],
    at: Annotated[str, Option("--at", help="The moment, as ISO 8601 text; default: now.")] = "",
) -> None:
    """Say why somebody, or a group, is in or out: each condition, what counts, when it changes."""
    from headrace.api.audience.v1.audience_service_pb2 import ExplainMembershipRequest

    at_us = moment_us(at, "--at") if at else 0
    request = ExplainMembershipRequest(
        name=platform.name("audiences", id),
        profile_id=await _explained_id(platform, id, profile),
        at_us=at_us,
    )
    found = await platform.audiences.ExplainMembership(request)
    if out.as_json:
        out.item(found)
        return
    _say_membership(found, at)
    write(f"{found.summary}\n")
    for depth, condition in _conditions(found.condition, 0):
        write(f"{'  ' * depth}{'yes' if condition.holds else 'no '}  {condition.text}: {condition.sentence}")
        for line in _evidence(condition):
            write(f"{'  ' * depth}       {line}")


def _say_membership(found: Any, at: str) -> None:
    """Who is in or out: as it is stored, or what the definition says of a moment that was asked for."""
    until = f", until {time_of(found.changes_at_us)}" if found.changes_at_us else ""
    since = f" since {time_of(found.since_us)}" if found.since_us else ""
    stored, member = ("in" if is_in else "out" for is_in in (found.stored_member, found.member))
    if at:
        write(f"{found.profile_id} is {member} at {time_of(found.at_us)}, by the definition{since}{until}")
    elif stored == member:
        write(f"{found.profile_id} is {member}{since}{until}")
    else:
        write(f"{found.profile_id} is {stored} as stored; by the definition {member}{since}{until}")
    state = plain_of(found)["state"]
    if state != "active":
        write(f"the audience is {state}")
    if found.HasField("refresh_time"):
        again = f", next {found.next_refresh_time.ToJsonString()}" if found.HasField("next_refresh_time") else ""
        write(f"stored: {stored}, as of {found.refresh_time.ToJsonString()}{again}")


async def _explained_id(platform: Platform, audience: str, given: str) -> str:
    """The profile, or group, that is meant: an identifier of a person is looked up; groups' ids may look like one."""
    from headrace.api.audience.v1.audience_service_pb2 import GetAudienceRequest
    from headrace.api.common.v1.event_pb2 import Identifier
    from headrace.api.identity.v1.profile_service_pb2 import LookupProfileRequest

    namespace, colon, value = given.partition(":")
    if not colon:
        return given.rpartition("/")[2]
    asked = GetAudienceRequest(name=platform.name("audiences", audience))
    found = (await platform.audiences.GetAudience(asked)).audience
    if json.loads(found.definition).get("of") == "groups":
        return given.rpartition("/")[2]
    identifier = Identifier(namespace=namespace, value=value)
    request = LookupProfileRequest(parent=platform.parent, identifier=identifier)
    return (await platform.profiles.LookupProfile(request)).profile.name.rpartition("/")[2]


_MOST_EVENTS = 5
"""Of the events that count so many are shown; --json shows more."""


def _evidence(condition: Any) -> Iterator[str]:
    """The newest events that count, and the event that set what is tested."""
    for event in condition.events[:_MOST_EVENTS]:
        yield f"{time_of(event.timestamp_us)}  {event.message_id}"
    more = max(condition.counted, len(condition.events)) - _MOST_EVENTS
    if condition.events and more > 0:
        yield f"and {more:,} more"
    if condition.holding_profile_ids:
        yield f"such as {', '.join(condition.holding_profile_ids)}"
    if condition.lacking_profile_ids:
        yield f"unlike {', '.join(condition.lacking_profile_ids)}"
    if condition.HasField("set_by"):
        yield f"set at {time_of(condition.set_by.timestamp_us)} by {condition.set_by.message_id}"


def _conditions(condition: Any, depth: int) -> Iterator[tuple[int, Any]]:
    yield depth, condition
    for part in condition.parts:
        yield from _conditions(part, depth + 1)


@command(app, "overlap")
async def overlap(
    platform: Platform, out: Output, ids: Annotated[list[str], Argument(help="Two to ten audiences, by id.")]
) -> None:
    """Count the people who are in exactly which of several audiences."""
    from headrace.api.audience.v1.audience_service_pb2 import CompareAudiencesRequest

    request = CompareAudiencesRequest(parent=platform.parent, audience_ids=[id.rpartition("/")[2] for id in ids])
    found = await platform.audiences.CompareAudiences(request, timeout=300)
    if out.as_json:
        out.item(found)
        return
    rows = [{"in": " & ".join(region.audience_ids), "people": region.size} for region in found.regions]
    out.rows([*rows, {"in": "any of them", "people": found.union_size}], ("in", "people"))


@command(app, "history")
async def history(
    platform: Platform,
    out: Output,
    id: Id,
    days: Annotated[int, Option("--days", min=1, max=366, help="So many days, today included.")] = 30,
    time_zone: Annotated[str, Option("--time-zone", help="Zone in which days begin.")] = "UTC",
) -> None:
    """Show for each day who entered, who left, and the size."""
    from headrace.api.audience.v1.audience_service_pb2 import GetAudienceHistoryRequest

    request = GetAudienceHistoryRequest(name=platform.name("audiences", id), days=days, time_zone=time_zone)
    found = (await platform.audiences.GetAudienceHistory(request)).days
    out.rows([plain_of(day) for day in found], ("date", "entered", "left", "size"))


@command(app, "readiness")
async def readiness(platform: Platform, out: Output, id: Id) -> None:
    """Show how many members each destination could match; a list below 3,000 is small, below 1,000 too small."""
    from headrace.api.sync.v1.sync_service_pb2 import GetAudienceReadinessRequest

    request = GetAudienceReadinessRequest(name=platform.name("audiences", id))
    found = await platform.syncs.GetAudienceReadiness(request, timeout=60)
    if out.as_json:
        out.item(found)
        return
    write(f"{found.size:,} members, {found.sampled:,} looked at")
    rows = [
        {
            "destination": one.destination.rpartition("/")[2],
            "kind": plain_of(one)["kind"],
            "reachable": one.reachable_in_all,
            "level": one.problem or plain_of(one)["level"],
            "having": ", ".join(f"{name} {count:,}" for name, count in sorted(one.fields.items())),
            "left_out": ", ".join(f"{reason} {count:,}" for reason, count in sorted(one.left_out.items())),
        }
        for one in found.destinations
    ]
    out.rows(rows, ("destination", "kind", "reachable", "level", "having", "left_out"))


@command(app, "suggested")
async def suggested(platform: Platform, out: Output) -> None:
    """List audiences that most shops want, to begin with."""
    from headrace.api.audience.v1.audience_service_pb2 import ListSuggestedAudiencesRequest

    found = await platform.audiences.ListSuggestedAudiences(ListSuggestedAudiencesRequest(parent=platform.parent))
    rows = [plain_of(one) for one in found.suggestions]
    out.rows(rows, ("audience=audience_id", "who=description", "definition=definition_text"))
