"""How many members of an audience each destination could match: what a list sync would make of them, without sending.

Members go the same way as in a pass of a list sync: profile, consent, mapping, rows of the connector. So the answer is
that of the sync, and it takes no guess at what a vendor matches on.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from headrace.api.audience.v1.audience_pb2 import Audience
from headrace.api.audience.v1.audience_pb2 import Member as AudienceMember
from headrace.api.sync.v1.sync_service_pb2 import ReadinessLevel, SyncKind
from headrace.domain.times import now_us
from headrace.plugins.errors import PluginError
from headrace.rpc import names
from headrace.rpc.errors import ApiError, invalid_argument, not_found
from headrace_sdk import Member
from headrace_sync.config import DestinationConfig, SyncConfig
from headrace_sync.deliveries.work import entry_of, membership_event
from headrace_sync.fleet import Fleet
from headrace_sync.mappings.items import ItemBuilder
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.verdicts import Verdict, with_field
from headrace_sync.people.audiences import Audiences
from headrace_sync.planning.rules import event_sync_message_id
from headrace_sync.store import ConfigStore

MOST_MEMBERS = 1_000
"""So many members are looked at: the answer is then within about 3 % of all, and there in a second or two."""
SMALL = 3_000
TOO_SMALL = 1_000
NOT_FOUND_OUT = "How large the list would be was not found out in time: `headrace audiences readiness` tells it."
_PAGE = 1_000
ADVICE_S = 3.0
"""So long who makes a list sync waits at most to be told how large its list would be."""
_LIST, _EVENT = "list_sync", "event_sync"


@dataclass(slots=True)
class DestinationReadiness:
    """What one destination could match; see the proto."""

    destination: str
    kind: SyncKind.ValueType = SyncKind.SYNC_KIND_LIST
    sync: str = ""
    reachable: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """What all destinations could match."""

    size: int
    sampled: int
    destinations: Sequence[DestinationReadiness]

    def in_all(self, found: DestinationReadiness) -> int:
        """How many members a destination could match, of all."""
        return round(self.size * found.reachable / self.sampled) if self.sampled else 0

    def level(self, found: DestinationReadiness) -> ReadinessLevel.ValueType:
        """How the number of people is judged."""
        if found.problem or found.kind != SyncKind.SYNC_KIND_LIST:
            return ReadinessLevel.READINESS_LEVEL_UNSPECIFIED
        people = self.in_all(found)
        if people >= SMALL:
            return ReadinessLevel.READINESS_LEVEL_READY
        small = people >= TOO_SMALL
        return ReadinessLevel.READINESS_LEVEL_SMALL if small else ReadinessLevel.READINESS_LEVEL_TOO_SMALL


class ReadinessHandlers:
    """Says how ready destinations are for an audience."""

    def __init__(self, store: ConfigStore, audiences: Audiences, fleet: Fleet, items: ItemBuilder) -> None:
        """Ask these."""
        self._store = store
        self._audiences = audiences
        self._fleet = fleet
        self._items = items

    async def of(self, workspace_id: str, audience_id: str) -> Readiness:
        """What each destination of the workspace that takes lists could match.

        Of others that take event syncs it is how many members they would be told of.

        Raises:
            ApiError: NOT_FOUND; INVALID_ARGUMENT, it is an audience of groups.
            grpc.aio.AioRpcError: The audience service or identity does not answer.
        """
        name = names.format(names.AUDIENCE, workspace_id, audience_id)
        audience = await self._audiences.get(name)
        if audience is None:
            raise not_found(name)
        if json.loads(audience.definition).get("of") == "groups":
            raise invalid_argument("name", "is an audience of groups; destinations take people")
        members = await self._some_members(name)
        found = []
        for destination, kind in await self._destinations(workspace_id):
            sync = await self._sync(destination, audience_id, kind)
            found.append(await self._destination(destination, sync, members))
        return Readiness(_size(audience, members), len(members), found)

    async def advice(self, sync: SyncConfig) -> list[str]:
        """What is to be known of the size of a list before a sync fills it, in sentences; nothing of other syncs.

        It never fails: what is not found out soon is said to be so.
        """
        if not sync.is_list:
            return []
        try:
            async with asyncio.timeout(ADVICE_S):
                audience = await self._audiences.get(sync.audience_name)
                destination = await self._store.get_destination(sync.workspace_id, sync.destination_key)
                if audience is None or destination is None:
                    return []
                members = await self._some_members(sync.audience_name)
                found = await self._destination(destination, sync, members)
        except (TimeoutError, grpc.aio.AioRpcError, PluginError, ApiError):
            return [NOT_FOUND_OUT]
        if found.problem:
            return [NOT_FOUND_OUT]
        return _advice(Readiness(_size(audience, members), len(members), [found]), found)

    async def _some_members(self, name: str) -> list[AudienceMember]:
        """All members of a small audience, else the first by profile id, which is chance."""
        members: list[AudienceMember] = []
        async for member in self._audiences.members(name):
            members.append(member)
            if len(members) >= MOST_MEMBERS:
                break
        return members

    async def _destinations(self, workspace_id: str) -> list[tuple[DestinationConfig, SyncKind.ValueType]]:
        """Destinations that take audiences, and how: as lists where they can."""
        found: list[DestinationConfig] = []
        after = ""
        while page := await self._store.list_destinations(workspace_id, after, _PAGE):
            found += page
            after = page[-1].id
        able = [(d, _LIST if (info := self._fleet.info(d)) is None else info.capabilities) for d in found]
        lists = [(d, SyncKind.SYNC_KIND_LIST) for d, can in able if _LIST in can]
        events = [(d, SyncKind.SYNC_KIND_EVENT) for d, can in able if _LIST not in can and _EVENT in can]
        return sorted([*lists, *events], key=lambda pair: pair[0].id)

    async def _destination(
        self, destination: DestinationConfig, sync: SyncConfig, members: Sequence[AudienceMember]
    ) -> DestinationReadiness:
        found = DestinationReadiness(destination.name, SyncKind.ValueType(sync.kind))
        if sync.id:
            found.sync = names.format(names.SYNC, sync.workspace_id, sync.id)
        async with self._fleet.lent(destination) as outlet:
            if outlet is None:
                found.problem = destination.state_reason or "the destination does not deliver"
            elif members and sync.is_list:
                await self._look(found, outlet.for_list(sync.list_id), sync, [member.profile_id for member in members])
            elif members:
                await self._look_at_events(found, outlet, sync, members)
        return found

    async def _look_at_events(
        self, found: DestinationReadiness, outlet: Outlet, sync: SyncConfig, members: Sequence[AudienceMember]
    ) -> None:
        """Count what becomes of the events with which members are told."""
        pairs = []
        for member in members:
            id = event_sync_message_id(sync.key, member.profile_id, member.version)
            event = membership_event(sync, sync.workspace_id, id, entry_of(sync, member, now_us()), now_us())
            pairs.append((sync, event, member.profile_id, ""))
        for made in await self._items.event_items(outlet, pairs):
            if isinstance(made, Verdict):
                found.left_out[made.reason] += 1
            else:
                found.reachable += 1
                found.fields.update(name for name, value in made.item.fields.items() if value)

    async def _look(
        self, found: DestinationReadiness, outlet: Outlet, sync: SyncConfig, profile_ids: Sequence[str]
    ) -> None:
        """Count what becomes of members."""
        usable: list[Member] = []
        for made in (await self._items.members(outlet, sync, profile_ids)).values():
            if isinstance(made, Verdict):
                found.left_out[made.reason] += 1
            else:
                usable.append(made.item)
        for member, answer in zip(usable, await outlet.rows(usable), strict=True):
            if isinstance(answer, Verdict):
                found.left_out[answer.reason] += 1
            elif answer.rejected is not None:
                found.left_out[with_field(answer.rejected.reason, answer.rejected.field)] += 1
            elif not answer.rows:
                found.left_out["the connector makes no row of the member"] += 1
            else:
                found.reachable += 1
                found.fields.update(name for name, value in member.fields.items() if value)

    async def _sync(self, destination: DestinationConfig, audience_id: str, kind: SyncKind.ValueType) -> SyncConfig:
        """The sync of the audience to a destination; one with the connector's own mapping when there is none."""
        workspace_id = destination.workspace_id
        for sync in await self._store.syncs_of_destination(workspace_id, destination.id):
            if sync.kind == kind and sync.audience_id == audience_id:
                return sync
        return SyncConfig(
            doc_id="",
            key=f"readiness of {destination.key}",
            workspace_id=workspace_id,
            id="",
            display_name="",
            kind=kind,
            destination_id=destination.id,
            audience_id=audience_id,
            event_names=(),
            mapping="",
            send_removals=False,
            paused=False,
            created_us=0,
            updated_us=0,
            changed_us=0,
            revision=0,
        )


def _size(audience: Audience, members: Sequence[AudienceMember]) -> int:
    """The number of members: counted, when all of them are known."""
    return audience.size if len(members) >= MOST_MEMBERS else len(members)


def _advice(readiness: Readiness, found: DestinationReadiness) -> list[str]:
    level, people = readiness.level(found), readiness.in_all(found)
    about = "" if readiness.sampled == readiness.size else "about "
    said = f"Of {readiness.size:,} members {about}{people:,} would be on the list"
    if level == ReadinessLevel.READINESS_LEVEL_TOO_SMALL:
        return [f"{said}: fewer than {TOO_SMALL:,} people are too few for most platforms."]
    if level == ReadinessLevel.READINESS_LEVEL_SMALL:
        return [f"{said}: fewer than {SMALL:,} people are a small list, of which platforms match a part."]
    return []
