"""`headrace profiles ...`: people."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

from typer import Argument, Option

from headrace.cli import deletions
from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.moments import moment_us
from headrace.cli.output import Output, plain_of, time_of, write
from headrace.cli.platform import Platform, listed
from headrace.cli.problems import UsageProblem

app = group("People: find one, read traits, events and everything else, now and in the past.")
app.add_typer(deletions.app)

Id = Annotated[str, Argument(help="Profile id or resource name; a merged part's id finds the survivor.")]


@command(app, "lookup")
async def lookup(
    platform: Platform,
    out: Output,
    namespace: Annotated[str, Argument(help='Namespace, such as "email".')],
    value: Annotated[str, Argument(help="Value; normalised as events are.")],
) -> None:
    """Show the profile that holds an identifier."""
    from headrace.api.common.v1.event_pb2 import Identifier
    from headrace.api.identity.v1.profile_service_pb2 import LookupProfileRequest

    identifier = Identifier(namespace=namespace, value=value)
    request = LookupProfileRequest(parent=platform.parent, identifier=identifier)
    _show(out, (await platform.profiles.LookupProfile(request)).profile)


@command(app, "get")
async def get(platform: Platform, out: Output, id: Id) -> None:
    """Show a profile."""
    from headrace.api.identity.v1.profile_service_pb2 import GetProfileRequest

    request = GetProfileRequest(name=platform.name("profiles", id))
    _show(out, (await platform.profiles.GetProfile(request)).profile)


@command(app, "list")
async def list_(platform: Platform, out: Output, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List the profiles, merged ones left out."""
    from headrace.api.identity.v1.profile_service_pb2 import ListProfilesRequest

    stub, parent = platform.profiles, platform.parent
    found = await listed(
        lambda size, token: stub.ListProfiles(ListProfilesRequest(parent=parent, page_size=size, page_token=token)),
        "profiles",
        limit=limit,
        everything=everything,
    )
    show_profiles(out, found)


@command(app, "search")
async def search(
    platform: Platform,
    out: Output,
    text: Annotated[str, Argument(help="The beginning of an identifier; with --trait the value of a trait.")],
    namespace: Annotated[str, Option("--namespace", help='Only identifiers of this namespace, such as "email".')] = "",
    trait: Annotated[str, Option("--trait", help="Search by this trait, without regard to case.")] = "",
    prefix: Annotated[bool, Option("--prefix", help="The value of the trait begins with the text.")] = False,
    limit: Limit = DEFAULT_LIMIT,
    everything: All = False,
) -> None:
    """Find profiles by the beginning of an identifier, or by a trait."""
    from headrace.api.common.v1.event_pb2 import Identifier
    from headrace.api.identity.v1.profile_service_pb2 import SearchProfilesRequest, TraitQuery

    if (namespace and trait) or (prefix and not trait):
        raise UsageProblem("--namespace is for identifiers, --prefix for traits: use one of --namespace and --trait")
    stub, request = platform.profiles, SearchProfilesRequest(parent=platform.parent)
    if trait:
        request.trait.CopyFrom(TraitQuery(name=trait, value=text, prefix=prefix))
    else:
        request.identifier_prefix.CopyFrom(Identifier(namespace=namespace, value=text))

    def page(size: int, token: str) -> Any:
        request.page_size, request.page_token = size, token
        return stub.SearchProfiles(request)

    show_profiles(out, await listed(page, "profiles", limit=limit, everything=everything))


@command(app, "view")
async def view(
    platform: Platform,
    out: Output,
    id: Id,
    events: Annotated[int, Option("--events", min=1, max=200, help="So many of the newest events.")] = 20,
    deliveries: Annotated[int, Option("--deliveries", min=1, max=200, help="So many of the newest deliveries.")] = 20,
    trait_values: Annotated[
        int, Option("--trait-values", min=1, max=200, help="So many of the newest values of traits.")
    ] = 20,
) -> None:
    """Show everything about a person: traits, their history, consents, groups, audiences, events, deliveries, links."""
    from headrace.api.identity.v1.profile_service_pb2 import GetProfileViewRequest

    request = GetProfileViewRequest(
        name=platform.name("profiles", id),
        event_count=events,
        delivery_count=deliveries,
        trait_value_count=trait_values,
    )
    found = await platform.profiles.GetProfileView(request)
    if out.as_json:
        out.item(found)
        return
    plain = plain_of(found)
    plain["profile"] = _readable(plain["profile"])
    plain["events"] = [_event_row(e) for e in found.events]
    plain["trait_history"] = [
        {"time": time_of(t["timestamp_us"]), "trait": t["name"], "value": t["value"], "source": t["source_id"]}
        for t in plain["trait_history"]
    ]
    del plain["next_events_page_token"], plain["next_trait_history_page_token"]
    plain["audiences"] = [
        {"audience": a.audience, "since": time_of(a.since_us), "leaves_at": time_of(a.leaves_at_us)}
        for a in found.audiences
    ]
    out.item(plain)


@command(app, "at")
async def at(
    platform: Platform,
    out: Output,
    id: Id,
    time: Annotated[str, Argument(help="The moment, as ISO 8601 text; events up to and at it count.")],
) -> None:
    """Show what was known of a person at a moment of the past."""
    from headrace.api.identity.v1.profile_service_pb2 import GetProfileAtRequest

    request = GetProfileAtRequest(name=platform.name("profiles", id), at_us=moment_us(time, "time"))
    answer = await platform.profiles.GetProfileAt(request)
    if out.as_json:
        out.item(answer)
    else:
        out.item({"events": answer.event_count, **_readable(plain_of(answer.profile))})


@command(app, "history")
async def history(
    platform: Platform,
    out: Output,
    id: Id,
    trait: Annotated[str, Argument(help="Name of the trait, default: all; with --consent of the purpose.")] = "",
    consent: Annotated[bool, Option("--consent", help="What the person said about purposes.")] = False,
    limit: Limit = DEFAULT_LIMIT,
    everything: All = False,
) -> None:
    """List every value that a trait or all traits had, or what was said about purposes, newest first."""
    from headrace.api.identity.v1.profile_service_pb2 import ListConsentHistoryRequest, ListTraitHistoryRequest

    stub, parent = platform.profiles, platform.name("profiles", id)
    if consent:
        found = await listed(
            lambda size, token: stub.ListConsentHistory(
                ListConsentHistoryRequest(parent=parent, purpose=trait, page_size=size, page_token=token)
            ),
            "consents",
            limit=limit,
            everything=everything,
        )
        columns = ["time", "purpose", "status", "source=source_id", "message_id"]
    else:
        found = await listed(
            lambda size, token: stub.ListTraitHistory(
                ListTraitHistoryRequest(parent=parent, trait=trait, page_size=size, page_token=token)
            ),
            "values",
            limit=limit,
            everything=everything,
        )
        columns = ["time", "trait=name", "value", "source=source_id", "message_id"]
    if out.as_json:
        out.rows(found, ())
        return
    out.rows([{**plain_of(value), "time": time_of(value.timestamp_us)} for value in found], columns)


@command(app, "watch")
async def watch(
    platform: Platform,
    out: Output,
    ids: Annotated[list[str] | None, Argument(help="Only these profiles; default: all.")] = None,
    cursor: Annotated[str, Option("--cursor", help="Go on after this cursor, which --json shows.")] = "",
    limit: Annotated[int | None, Option("--limit", min=1, help="End after so many changes; default: go on.")] = None,
) -> None:
    """Follow the profiles that change, one a line, until it is interrupted."""
    import json

    from headrace.api.identity.v1.profile_service_pb2 import WatchProfilesRequest

    names = [platform.name("profiles", id) for id in ids or ()]
    seen = 0
    async for answer in platform.profiles.WatchProfiles(
        WatchProfilesRequest(parent=platform.parent, names=names, cursor=cursor)
    ):
        for name in () if out.as_json else answer.names:
            write(name)
        if out.as_json:
            write(json.dumps({"names": list(answer.names), "cursor": answer.cursor}))
        sys.stdout.flush()
        seen += len(answer.names)
        if limit is not None and seen >= limit:
            return


@command(app, "events")
async def events(
    platform: Platform,
    out: Output,
    id: Id,
    event: Annotated[list[str] | None, Option("--event", help="Only events of this name; may be repeated.")] = None,
    source: Annotated[list[str] | None, Option("--source", help="Only of this source; may be repeated.")] = None,
    since: Annotated[str, Option("--since", help="Only at or after this time, as ISO 8601 text.")] = "",
    until: Annotated[str, Option("--until", help="Only before this time.")] = "",
    limit: Limit = DEFAULT_LIMIT,
    everything: All = False,
) -> None:
    """List a profile's events over all merged parts, newest first."""
    from headrace.api.identity.v1.profile_service_pb2 import ListProfileEventsRequest

    stub = platform.profiles
    request = ListProfileEventsRequest(
        parent=platform.name("profiles", id),
        event_names=event or (),
        source_ids=source or (),
        from_us=moment_us(since, "--since") if since else 0,
        to_us=moment_us(until, "--until") if until else 0,
    )

    def page(size: int, token: str) -> Any:
        request.page_size, request.page_token = size, token
        return stub.ListProfileEvents(request)

    show_events(out, await listed(page, "events", limit=limit, everything=everything))


def show_profiles(out: Output, found: Sequence[Any]) -> None:
    """Write profiles, one a row."""
    if out.as_json:
        out.rows(found, ())
        return
    rows = [{**plain_of(p), "identifiers": _identifiers(p), "parts": len(p.parts)} for p in found]
    out.rows(rows, ("name", "identifiers", "parts", "create_time"))


def show_events(out: Output, found: Sequence[Any]) -> None:
    """Write resolved events, one a row."""
    if out.as_json:
        out.rows(found, ())
        return
    out.rows([_event_row(e) for e in found], ("time", "message_id", "kind", "name", "source", "decision"))


def _event_row(resolved: Any) -> dict[str, Any]:
    plain = plain_of(resolved.event)
    return {
        "time": time_of(resolved.event.timestamp_us),
        "message_id": plain["message_id"],
        "kind": plain["kind"],
        "name": plain["name"],
        "source": plain["source_id"],
        "decision": plain_of(resolved.decision)["action"],
    }


def _identifiers(profile: Any) -> list[str]:
    return [f"{i.namespace}:{i.value}" for i in profile.identifiers]


def _readable(profile: dict[str, Any]) -> dict[str, Any]:
    """A plain profile for people: what is a list of messages on the wire is short."""
    short = dict(profile)
    short["identifiers"] = [f"{i['namespace']}:{i['value']}" for i in profile["identifiers"]]
    short["traits"] = {t["name"]: t["value"] for t in profile["traits"]}
    short["consents"] = {c["purpose"]: c["status"] for c in profile["consents"]}
    short["groups"] = [g["group_id"] for g in profile["groups"]]
    short["computed_traits"] = {c["computed_trait_id"]: c["value"] for c in profile["computed_traits"]}
    return short


def _show(out: Output, profile: Any) -> None:
    plain = plain_of(profile)
    out.item(plain if out.as_json else _readable(plain))
