"""The platform's side of configuration as code: reads what is stored, carries out steps."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from headrace.api.audience.v1 import audience_service_pb2 as audience_api
from headrace.api.audience.v1.audience_pb2 import Audience, AudienceState
from headrace.api.identity.v1 import computed_trait_service_pb2 as computed_api
from headrace.api.identity.v1 import identity_service_pb2 as identity_api
from headrace.api.ingest.v1 import source_service_pb2 as source_api
from headrace.api.sync.v1 import destination_service_pb2 as destination_api
from headrace.api.sync.v1 import sync_service_pb2 as sync_api
from headrace.cli import platform as calls
from headrace.cli.audience_changes import check_no_syncs, told, what_waits
from headrace.cli.config import plan
from headrace.cli.config.kinds import KINDS
from headrace.cli.config.plan import CREATE, UNCHANGED, UPDATE, Connector, Step, Stored
from headrace.cli.config.resources import Resource
from headrace.cli.files import new_request_id
from headrace.cli.problems import CommandFailed, say

_COMPUTED = {AudienceState.AUDIENCE_STATE_FILLING, AudienceState.AUDIENCE_STATE_ACTIVE}
_DESTINATION_PAUSED = destination_api.DestinationState.DESTINATION_STATE_PAUSED
_DESTINATION_ACTIVE = destination_api.DestinationState.DESTINATION_STATE_ACTIVE


def needed_kinds(wanted: Iterable[Resource]) -> set[str]:
    """The kinds that have to be read to compare these resources with the platform."""
    kinds = {resource.kind for resource in wanted}
    return kinds | {other for kind in kinds for other in KINDS[kind].after}


async def read_platform(platform: calls.Platform, kinds: Iterable[str]) -> plan.Platform:
    """What the platform has of some kinds."""
    resources: dict[tuple[str, str], Stored] = {}
    for kind in KINDS:
        if kind in kinds:
            for id, stored in (await _READ[kind](platform)).items():
                resources[kind, id] = stored
    connectors = await _read_connectors(platform) if "Destination" in kinds else None
    return plan.Platform(resources, connectors)


async def carry_out(platform: calls.Platform, step: Step) -> str:
    """Carry out a step.

    Returns:
        The step's action, or UNCHANGED when the platform found that its secrets are the same.
    """
    if step.action == UNCHANGED and not step.secrets:
        return UNCHANGED
    return await _CARRY_OUT[step.resource.kind](platform, step)


async def _read_sources(platform: calls.Platform) -> dict[str, Stored]:
    stub, parent = platform.sources, platform.parent
    found = await calls.listed(
        lambda size, token: stub.ListSources(
            source_api.ListSourcesRequest(parent=parent, page_size=size, page_token=token)
        ),
        "sources",
        limit=0,
        everything=True,
    )
    return {
        _id(source.name): Stored(
            {
                "display_name": source.display_name,
                "type": source.kind,
                "allowed_origins": list(source.allowed_origins),
                "mapping": _object(source.mapping),
                "disabled": source.disabled,
            },
            source.etag,
        )
        for source in found
    }


async def _read_identity_rules(platform: calls.Platform) -> dict[str, Stored]:
    request = identity_api.GetIdentityRulesRequest(name=f"{platform.parent}/identityRules")
    found = (await platform.identity.GetIdentityRules(request)).identity_rules
    if not found.version:
        return {}  # the default rules are nobody's choice
    return {KINDS["IdentityRules"].only_id: Stored({"rules": json.loads(found.rules)}, found.etag)}


async def _read_computed_traits(platform: calls.Platform) -> dict[str, Stored]:
    stub, parent = platform.computed_traits, platform.parent
    found = await calls.listed(
        lambda size, token: stub.ListComputedTraits(
            computed_api.ListComputedTraitsRequest(parent=parent, page_size=size, page_token=token)
        ),
        "computed_traits",
        limit=0,
        everything=True,
    )
    return {
        _id(trait.name): Stored(
            {"display_name": trait.display_name, "definition": json.loads(trait.definition)}, trait.etag
        )
        for trait in found
    }


async def _read_audiences(platform: calls.Platform) -> dict[str, Stored]:
    stub, parent = platform.audiences, platform.parent
    found = await calls.listed(
        lambda size, token: stub.ListAudiences(
            audience_api.ListAudiencesRequest(parent=parent, page_size=size, page_token=token, show_archived=True)
        ),
        "audiences",
        limit=0,
        everything=True,
    )
    return {
        _id(audience.name): Stored(
            {
                "display_name": audience.display_name,
                "definition": _object(audience.pending_version.definition or audience.definition),
                "active": audience.state in _COMPUTED,
                "archived": audience.state == AudienceState.AUDIENCE_STATE_ARCHIVED,
            },
            audience.etag,
            what_waits(audience),
        )
        for audience in found
    }


async def _read_destinations(platform: calls.Platform) -> dict[str, Stored]:
    stub, parent = platform.destinations, platform.parent
    found = await calls.listed(
        lambda size, token: stub.ListDestinations(
            destination_api.ListDestinationsRequest(parent=parent, page_size=size, page_token=token)
        ),
        "destinations",
        limit=0,
        everything=True,
    )
    return {
        _id(destination.name): Stored(
            {
                "display_name": destination.display_name,
                "connector": destination.connector,
                "settings": _object(destination.settings) or {},
                "required_consents": list(destination.required_consents),
                "alert_hook": _alert_hook(destination.alert_hook),
                "paused": destination.state == _DESTINATION_PAUSED,
            },
            destination.etag,
        )
        for destination in found
    }


async def _read_syncs(platform: calls.Platform) -> dict[str, Stored]:
    stub, parent = platform.syncs, platform.parent
    found = await calls.listed(
        lambda size, token: stub.ListSyncs(sync_api.ListSyncsRequest(parent=parent, page_size=size, page_token=token)),
        "syncs",
        limit=0,
        everything=True,
    )
    return {
        _id(sync.name): Stored(
            {
                "display_name": sync.display_name,
                "type": sync_api.SyncKind.Name(sync.kind).removeprefix("SYNC_KIND_").lower(),
                "destination": _id(sync.destination),
                "audience": _id(sync.audience),
                "event_names": list(sync.event_names),
                "mapping": _object(sync.mapping),
                "send_removals": sync.send_removals,
                "require_approval": sync.require_approval,
                "most_changed_percent": sync.most_changed_percent,
                "identifier_values": _values_of(sync.identifier_values),
                "delay_seconds": sync.delay_seconds,
                "schedule": sync.schedule,
                "list": sync.list,
                "paused": sync.paused,
            },
            sync.etag,
        )
        for sync in found
    }


async def _read_connectors(platform: calls.Platform) -> dict[str, Connector]:
    answer = await platform.destinations.ListConnectors(destination_api.ListConnectorsRequest(parent=platform.parent))
    return {
        c.name: Connector(_object(c.settings_schema) or {}, tuple(c.capabilities))
        for c in answer.connectors
        if not c.error
    }


async def _apply_source(platform: calls.Platform, step: Step) -> str:
    resource, values = step.resource, step.resource.values
    source = source_api.Source(
        display_name=values["display_name"],
        kind=values["type"],
        allowed_origins=values["allowed_origins"] or (),
        mapping=_json(values["mapping"]),
        disabled=values.get("disabled", False),
    )
    if step.action == CREATE:
        await platform.sources.CreateSource(
            source_api.CreateSourceRequest(
                parent=platform.parent, source_id=resource.id, source=source, request_id=new_request_id()
            )
        )
        return CREATE
    source.name, source.etag = _name(platform, resource), step.etag
    await platform.sources.UpdateSource(
        source_api.UpdateSourceRequest(source=source, update_mask=_mask(step), request_id=new_request_id())
    )
    return UPDATE


async def _apply_identity_rules(platform: calls.Platform, step: Step) -> str:
    rules = identity_api.IdentityRules(
        name=f"{platform.parent}/identityRules",
        rules=_json(step.resource.values["rules"]).encode(),
        etag=step.etag,
    )
    answer = await platform.identity.UpdateIdentityRules(
        identity_api.UpdateIdentityRulesRequest(identity_rules=rules, request_id=new_request_id())
    )
    return step.action if answer.identity_rules.version else UNCHANGED  # they are the default ones


async def _apply_computed_trait(platform: calls.Platform, step: Step) -> str:
    resource, values = step.resource, step.resource.values
    trait = computed_api.ComputedTrait(
        display_name=values["display_name"], definition=_json(values["definition"]).encode()
    )
    if step.action == CREATE:
        await platform.computed_traits.CreateComputedTrait(
            computed_api.CreateComputedTraitRequest(
                parent=platform.parent,
                computed_trait_id=resource.id,
                computed_trait=trait,
                request_id=new_request_id(),
            )
        )
        return CREATE
    trait.name, trait.etag = _name(platform, resource), step.etag
    await platform.computed_traits.UpdateComputedTrait(
        computed_api.UpdateComputedTraitRequest(
            computed_trait=trait, update_mask=_mask(step), request_id=new_request_id()
        )
    )
    return UPDATE


def _tell(title: str, audience: Audience, difference: str = "") -> None:
    """Say what is doubtful of an audience that was made or changed, and whom its new definition moves."""
    for warning in audience.warnings:
        say(f"warning: {title}: {warning}")
    if difference:
        say(f"{title}: {difference}")


async def check_archived(platform: calls.Platform, steps: Iterable[Step]) -> None:
    """Refuse to put away audiences by which syncs go. Raises CommandFailed."""
    for step in steps:
        if step.resource.kind == "Audience" and step.resource.values.get("archived") and "archived" in step.keys:
            way_on = "Nothing was changed: let them go by others first, or add --force"
            await check_no_syncs(platform, _name(platform, step.resource), way_on)


async def _apply_audience(platform: calls.Platform, step: Step) -> str:
    resource, values = step.resource, step.resource.values
    name = _name(platform, resource)
    audience = Audience(display_name=values["display_name"], definition=_json(values["definition"]))
    keys = [key for key in step.keys if key not in ("active", "archived")]
    if step.action == CREATE:
        created = await platform.audiences.CreateAudience(
            audience_api.CreateAudienceRequest(
                parent=platform.parent, audience_id=resource.id, audience=audience, request_id=new_request_id()
            )
        )
        _tell(resource.title, created.audience)
    elif keys:
        audience.name, audience.etag = name, step.etag
        updated = await platform.audiences.UpdateAudience(
            audience_api.UpdateAudienceRequest(
                audience=audience, update_mask=FieldMask(paths=keys), request_id=new_request_id()
            )
        )
        _tell(resource.title, updated.audience, told(updated) if "definition" in keys else "")
    if "archived" in step.keys and values["archived"]:
        archive = audience_api.ArchiveAudienceRequest(name=name, request_id=new_request_id())
        await platform.audiences.ArchiveAudience(archive)
    elif "active" in step.keys:
        if values["active"]:
            activate = audience_api.ActivateAudienceRequest(name=name, request_id=new_request_id())
            await platform.audiences.ActivateAudience(activate)
        elif step.action != CREATE:
            pause = audience_api.PauseAudienceRequest(name=name, request_id=new_request_id())
            await platform.audiences.PauseAudience(pause)
    return step.action


def _alert_hook(hook: destination_api.AlertHook) -> dict[str, str]:
    """A receiver of alerts as files have it."""
    found = {"url": hook.url, "secret": hook.secret}
    return {name: value for name, value in found.items() if value}


def _given_hook(id: str, values: Mapping[str, Any]) -> destination_api.AlertHook:
    """A receiver of alerts from a file."""
    unknown = values.keys() - {"url", "secret"}
    if unknown or not all(isinstance(value, str) for value in values.values()):
        raise CommandFailed(f"destination {id}: alert_hook takes url and secret, both of them text")
    return destination_api.AlertHook(url=values.get("url", ""), secret=values.get("secret", ""))


async def _apply_destination(platform: calls.Platform, step: Step) -> str:
    resource, values = step.resource, step.resource.values
    destination = destination_api.Destination(
        display_name=values["display_name"],
        connector=values["connector"],
        settings=_json(values["settings"] or {}),
        required_consents=values["required_consents"] or (),
        alert_hook=_given_hook(resource.id, values["alert_hook"] or {}),
        state=_DESTINATION_PAUSED if values.get("paused") else _DESTINATION_ACTIVE,
    )
    if step.action == CREATE:
        await platform.destinations.CreateDestination(
            destination_api.CreateDestinationRequest(
                parent=platform.parent, destination_id=resource.id, destination=destination, request_id=new_request_id()
            )
        )
        return CREATE
    destination.name, destination.etag = _name(platform, resource), step.etag
    answer = await platform.destinations.UpdateDestination(
        destination_api.UpdateDestinationRequest(
            destination=destination, update_mask=_mask(step), request_id=new_request_id()
        )
    )
    return UNCHANGED if answer.destination.etag == step.etag else UPDATE


_VALUES = {
    "all": "IDENTIFIER_VALUES_UNSPECIFIED",
    "first": "IDENTIFIER_VALUES_FIRST",
    "last": "IDENTIFIER_VALUES_LAST",
}


def _values_of(values: sync_api.IdentifierValues.ValueType) -> str:
    name = sync_api.IdentifierValues.Name(values)
    return next(word for word, stored in _VALUES.items() if stored == name)


async def _apply_sync(platform: calls.Platform, step: Step) -> str:
    resource, values = step.resource, step.resource.values
    sync = sync_api.Sync(
        display_name=values["display_name"],
        kind=sync_api.SyncKind.Value(f"SYNC_KIND_{values['type'].upper()}"),
        destination=f"{platform.parent}/destinations/{values['destination']}",
        audience=f"{platform.parent}/audiences/{values['audience']}" if values["audience"] else "",
        event_names=values["event_names"] or (),
        mapping=_json(values["mapping"]),
        send_removals=values["send_removals"],
        require_approval=values["require_approval"],
        most_changed_percent=values["most_changed_percent"],
        identifier_values=sync_api.IdentifierValues.Value(_VALUES[values["identifier_values"]]),
        delay_seconds=values["delay_seconds"],
        schedule=values["schedule"],
        list=values["list"],
        paused=values.get("paused", False),
    )
    if step.action == CREATE:
        made = await platform.syncs.CreateSync(
            sync_api.CreateSyncRequest(
                parent=platform.parent, sync_id=resource.id, sync=sync, request_id=new_request_id()
            )
        )
        for advice in made.advice:
            say(f"warning: {resource.title}: {advice}")
        return CREATE
    sync.name, sync.etag = _name(platform, resource), step.etag
    await platform.syncs.UpdateSync(
        sync_api.UpdateSyncRequest(sync=sync, update_mask=_mask(step), request_id=new_request_id())
    )
    return UPDATE


_READ: Mapping[str, Callable[[calls.Platform], Awaitable[dict[str, Stored]]]] = {
    "Source": _read_sources,
    "IdentityRules": _read_identity_rules,
    "ComputedTrait": _read_computed_traits,
    "Audience": _read_audiences,
    "Destination": _read_destinations,
    "Sync": _read_syncs,
}
_CARRY_OUT: Mapping[str, Callable[[calls.Platform, Step], Awaitable[str]]] = {
    "Source": _apply_source,
    "IdentityRules": _apply_identity_rules,
    "ComputedTrait": _apply_computed_trait,
    "Audience": _apply_audience,
    "Destination": _apply_destination,
    "Sync": _apply_sync,
}


def _mask(step: Step) -> FieldMask:
    keys = KINDS[step.resource.kind].keys
    return FieldMask(paths=[keys[key].field or key for key in step.keys])


def _name(platform: calls.Platform, resource: Resource) -> str:
    return f"{platform.parent}/{KINDS[resource.kind].collection}/{resource.id}"


def _id(name: str) -> str:
    return name.rpartition("/")[2]


def _object(text: str) -> Any:
    return json.loads(text) if text else None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if value is not None else ""
