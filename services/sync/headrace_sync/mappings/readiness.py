"""How many members of an audience each destination could match: what a list sync would make of them, without sending.

Members go the same way as in a pass of a list sync: profile, consent, mapping, rows of the connector. So the answer is
that of the sync, and it takes no guess at what a vendor matches on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.api.sync.v1.sync_service_pb2 import ReadinessLevel, SyncKind
from headrace.rpc import names
from headrace.rpc.errors import invalid_argument, not_found
from headrace_sdk import Member
from headrace_sync.config import DestinationConfig, SyncConfig
from headrace_sync.fleet import Fleet
from headrace_sync.mappings.items import ItemBuilder
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.verdicts import Verdict, with_field
from headrace_sync.people.audiences import Audiences
from headrace_sync.store import ConfigStore

MOST_MEMBERS = 1_000
"""So many members are looked at: the answer is then within about 3 % of all, and there in a second or two."""
SMALL = 3_000
TOO_SMALL = 1_000
_PAGE = 1_000
_CAPABILITY = "list_sync"


@dataclass(slots=True)
class DestinationReadiness:
    """What one destination could match; see the proto."""

    destination: str
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
        if found.problem:
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
        profile_ids: list[str] = []
        async for member in self._audiences.members(name):
            profile_ids.append(member.profile_id)
            if len(profile_ids) >= MOST_MEMBERS:
                break
        found = [
            await self._destination(destination, audience_id, profile_ids)
            for destination in await self._destinations(workspace_id)
        ]
        size = audience.size if len(profile_ids) >= MOST_MEMBERS else len(profile_ids)
        return Readiness(size, len(profile_ids), found)

    async def _destinations(self, workspace_id: str) -> list[DestinationConfig]:
        found: list[DestinationConfig] = []
        after = ""
        while page := await self._store.list_destinations(workspace_id, after, _PAGE):
            found += page
            after = page[-1].id
        return [d for d in found if (info := self._fleet.info(d)) is None or _CAPABILITY in info.capabilities]

    async def _destination(
        self, destination: DestinationConfig, audience_id: str, profile_ids: Sequence[str]
    ) -> DestinationReadiness:
        sync = await self._sync(destination, audience_id)
        found = DestinationReadiness(destination.name)
        if sync.id:
            found.sync = names.format(names.SYNC, sync.workspace_id, sync.id)
        async with self._fleet.lent(destination) as outlet:
            if outlet is None:
                found.problem = destination.state_reason or "the destination does not deliver"
            elif profile_ids:
                await self._look(found, outlet.for_list(sync.list_id), sync, profile_ids)
        return found

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

    async def _sync(self, destination: DestinationConfig, audience_id: str) -> SyncConfig:
        """The list sync of the audience to a destination; one with the connector's own mapping when there is none."""
        workspace_id = destination.workspace_id
        for sync in await self._store.syncs_of_destination(workspace_id, destination.id):
            if sync.kind == SyncKind.SYNC_KIND_LIST and sync.audience_id == audience_id:
                return sync
        return SyncConfig(
            doc_id="",
            key=f"readiness of {destination.key}",
            workspace_id=workspace_id,
            id="",
            display_name="",
            kind=SyncKind.SYNC_KIND_LIST,
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
