"""Dry runs: what a sync would do for each person or event, with the exact requests. Nothing is sent or changed.

Members go the same way as in a pass of a list sync, changes of memberships the same way as in an event sync, and events
of the log the same way as in forwarding, up to the requests: so what is shown is what would be sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from headrace.api.audience.v1.audience_pb2 import Member
from headrace.api.common.v1.event_pb2 import EventKind
from headrace.api.sync.v1.plan_pb2 import PlannedOperation
from headrace.domain.times import now_us
from headrace.plugins.errors import PluginError
from headrace.plugins.render import Rendering
from headrace.rpc.errors import not_found, wrong_state
from headrace.storage.mongo.client import Document
from headrace_sdk import Row
from headrace_sync.calls.requests import LONGEST_TEXT
from headrace_sync.config import SyncConfig
from headrace_sync.deliveries.log_events import LogEvents
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.deliveries.work import entry_of, membership_event
from headrace_sync.fleet import Fleet
from headrace_sync.lists import targets
from headrace_sync.lists.diff import MemberRecord, leave_behind, removable, resend_everything
from headrace_sync.lists.following import Following
from headrace_sync.lists.looking import Looked, Looker
from headrace_sync.lists.store import ListStore, record_of
from headrace_sync.mappings.items import ItemBuilder
from headrace_sync.outlets.batch import ADD_MEMBERS, REMOVE_MEMBERS, SEND_EVENTS
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.verdicts import Verdict
from headrace_sync.people.audiences import Audiences
from headrace_sync.people.consents import Consents, evidence
from headrace_sync.people.profiles import Profiles
from headrace_sync.planning.rules import MERGED, event_sync_message_id
from headrace_sync.plans.pages import Position, next_position
from headrace_sync.plans.rules import Operation, digest, operation_of
from headrace_sync.store import ConfigStore


@dataclass(frozen=True, slots=True)
class Change:
    """What would be done for one person; see the proto."""

    profile_id: str
    operation: PlannedOperation.ValueType
    reason: str = ""
    added: int = 0
    removed: int = 0
    message_id: str = ""
    event_name: str = ""
    fields: Sequence[tuple[str, str, str]] = ()
    consents: Consents = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What it is about: an event, or else a person."""
        return self.message_id or self.profile_id


@dataclass(slots=True)
class DryRun:
    """A page of a dry run.

    Attributes:
        changes: What would be done, by profile id.
        requests: The requests, each {"method", "url", "headers", "body", "message_ids"}; the last are ids of changes.
        warnings: Remarks of the connector.
        unchanged: People for whom nothing is to be done.
        audience_size: Members of the audience.
        following: Where the next page begins; None on the last.
    """

    changes: list[Change] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unchanged: int = 0
    audience_size: int = 0
    following: Position | None = None

    def take(self, rendering: Rendering) -> None:
        """Take over requests, and what the connector left out in the end."""
        self.requests += rendering.requests
        self.warnings += dict.fromkeys(remark["reason"] for remark in rendering.warnings)
        left_out = {skip["message_id"]: skip["reason"] for skip in rendering.skipped}
        self.changes = [
            replace(
                change,
                operation=PlannedOperation.PLANNED_OPERATION_SKIP,
                reason=left_out[change.id],
                added=0,
                removed=0,
            )
            if change.id in left_out
            else change
            for change in self.changes
        ]


class DryRuns:
    """Makes dry runs."""

    def __init__(
        self,
        *,
        store: ConfigStore,
        audiences: Audiences,
        fleet: Fleet,
        items: ItemBuilder,
        lists: ListStore,
        deliveries: DeliveryStore,
        profiles: Profiles,
        events: LogEvents,
        following: Following,
    ) -> None:
        """Wire them."""
        self._following = following
        self._profiles = profiles
        self._log = events
        self._store = store
        self._audiences = audiences
        self._fleet = fleet
        self._items = items
        self._lists = lists
        self._deliveries = deliveries

    async def page(self, sync: SyncConfig, position: Position, size: int, *, full: bool, plan_id: str = "") -> DryRun:
        """A page of a dry run.

        Args:
            sync: A list or event sync; `events` is for forwarding.
            position: Where the page begins.
            size: About so many people are looked at.
            full: List sync: as a full run would do.
            plan_id: List sync: only people whom this plan holds.

        Raises:
            ApiError: FAILED_PRECONDITION when the destination's plugin is not loaded or fails; NOT_FOUND when the
                audience is gone.
            grpc.aio.AioRpcError: Identity or the audience service does not answer.
        """
        audience = await self._audiences.get(sync.audience_name)
        if audience is None:
            raise not_found(sync.audience_name)
        made = DryRun(audience_size=audience.size)
        if plan_id:
            await self._plan(made, sync, position, size, plan_id)
            return made
        members, next_token = await self._audiences.page(sync.audience_name, size, position.token)
        known = await self._lists.known(sync.key, after=position.after, limit=size) if sync.is_list else []
        made.following = next_position(
            position,
            members=[member.profile_id for member in members],
            next_token=next_token,
            known=[document["p"] for document in known],
            size=size,
        )
        upto = made.following.after if made.following else None

        def is_here(profile_id: str) -> bool:
            return profile_id > position.after and (upto is None or profile_id <= upto)

        here = [member for member in members if is_here(member.profile_id)]
        async with self._outlet(sync) as outlet:
            if sync.is_list:
                documents = {d["p"]: d for d in known if is_here(d["p"])}
                await self._list(made, sync, outlet, {m.profile_id for m in here}, documents, full=full)
            else:
                await self._events(made, sync, outlet, here)
        return made

    async def events(
        self, sync: SyncConfig, position: Position, size: int, *, profile_ids: Sequence[str], message_id: str
    ) -> DryRun:
        """A page of a dry run of a forwarding sync, as if it were not paused and had been there before the events.

        Args:
            sync: The sync.
            position: Where the page begins.
            size: So many events are looked at.
            profile_ids: Looks at the events of these profiles, newest first.
            message_id: Looks at this event, when it is given.

        Raises:
            ApiError: As for `page`; NOT_FOUND when there is no such event.
            grpc.aio.AioRpcError: Identity does not answer.
        """
        made = DryRun()
        if message_id:
            found = await self._log.one(sync.workspace_id, message_id)
            if not found:
                raise not_found(f"event {message_id[:LONGEST_TEXT]}")
        else:
            time, _, sequence = position.token.partition(":")
            before = (int(time), int(sequence)) if position.token else None
            found = await self._log.newest(sync.workspace_id, profile_ids, before=before, limit=size)
            if len(found) == size:
                made.following = Position(token=":".join(map(str, found[-1][0])))
        events = [event for _, event in found]
        people = await self._profiles.get(sync.workspace_id, {e.profile_id for e in events})
        async with self._outlet(sync) as outlet:
            required = outlet.required_consents
            pairs = [(sync, event.event, event.profile_id, "") for event in events]
            items = await self._items.event_items(outlet, pairs)
            sources = self._items.mapping(sync, outlet.info).sources()
            sending = []
            for event, item in zip(events, items, strict=True):
                person = people.get(event.profile_id)
                change = Change(
                    event.profile_id,
                    PlannedOperation.PLANNED_OPERATION_SEND,
                    message_id=event.event.message_id,
                    event_name=event.event.name or EventKind.Name(event.event.kind).removeprefix("EVENT_KIND_").lower(),
                    consents=evidence(required, person.consents) if person else {},
                )
                reason = replace(sync.forwarding, paused=False).filter_reason(event)
                if reason or isinstance(item, Verdict):
                    reason = reason or getattr(item, "reason", "")
                    change = replace(change, operation=PlannedOperation.PLANNED_OPERATION_SKIP, reason=reason)
                else:
                    change = replace(change, fields=_filled(sources, item.item.fields))
                    sending.append((event.event.message_id, item.item))
                made.changes.append(change)
            made.take(await outlet.preview(SEND_EVENTS, sending))
        return made

    async def _plan(self, made: DryRun, sync: SyncConfig, position: Position, size: int, plan_id: str) -> None:
        """What is held by a plan, as it is now."""
        documents = await self._lists.planned(sync.key, plan_id, after=position.after, limit=size)
        if len(documents) == size:
            made.following = Position(after=documents[-1]["p"])
        present = {d["p"] for d in documents if d["desired"]}
        async with self._outlet(sync) as outlet:
            await self._list(made, sync, outlet, present, {d["p"]: d for d in documents}, plan_id=plan_id)

    @asynccontextmanager
    async def _outlet(self, sync: SyncConfig) -> AsyncIterator[Outlet]:
        destination = await self._store.get_destination(sync.workspace_id, sync.destination_key)
        if destination is None:
            raise not_found(sync.destination_key)
        async with self._fleet.lent(destination, stopped_too=True) as outlet:
            if outlet is None:
                raise wrong_state("PLUGIN_MISSING", f"The plugin of connector {destination.connector!r} is not loaded.")
            try:
                yield outlet.for_list(sync.list_id)
            except PluginError as error:
                raise wrong_state("PLUGIN_FAILED", f"The plugin failed: {error.reason}.") from None

    async def _list(
        self,
        made: DryRun,
        sync: SyncConfig,
        outlet: Outlet,
        present: Set[str],
        documents: Mapping[str, Document],
        *,
        full: bool = False,
        plan_id: str = "",
    ) -> None:
        """What a pass would do for the members who are present, and for who was one."""
        is_elsewhere = await self._following.change(sync, outlet.place) is targets.Change.LIST
        looked: list[Looked] = []
        for profile_id in sorted(present | documents.keys()):
            document = documents.get(profile_id, {})
            record = record_of(document) if document else MemberRecord(profile_id)
            record.desired = profile_id in present
            if not record.desired and record.merged_into and record.rows:
                made.changes.append(Change(profile_id, PlannedOperation.PLANNED_OPERATION_SKIP, MERGED))
                continue
            if full:
                resend_everything(record)
            if is_elsewhere:
                leave_behind(record)
            looked.append(Looked(document, record))
        await Looker(sync, outlet, self._items).look(looked)
        removing, adding = await self._rows(sync, looked)
        for member in looked:
            _note(made, member, plan_id)
        made.changes.sort(key=lambda change: change.profile_id)
        # Removals first, as in a pass.
        for operation, rows in ((REMOVE_MEMBERS, removing), (ADD_MEMBERS, adding)):
            made.take(await outlet.preview(operation, rows))

    async def _rows(
        self, sync: SyncConfig, looked: Sequence[Looked]
    ) -> tuple[list[tuple[str, Row]], list[tuple[str, Row]]]:
        """The (profile id, row) pairs to remove and to add; rows that another member holds are not removed."""
        keys = [key for member in looked for key in member.changes.remove]
        others: set[str] = set()
        if keys:
            others = await self._lists.holders(sync.key, keys, besides=[member.record.profile_id for member in looked])
        others |= {key for member in looked if member.record.desired for key in member.wanted}
        removing: list[tuple[str, Row]] = []
        adding: list[tuple[str, Row]] = []
        for member in looked:
            id = member.record.profile_id
            to_send, _ = removable(member.changes.remove, others)
            removing += [(id, Row(key=key, data=member.changes.remove[key])) for key in to_send]
            adding += [(id, Row(key=key, data=data)) for key, data in member.changes.add.items()]
        return removing, adding

    async def _events(self, made: DryRun, sync: SyncConfig, outlet: Outlet, members: Sequence[Member]) -> None:
        """What is not told yet of these members."""
        ids = {event_sync_message_id(sync.key, m.profile_id, m.version): m for m in members}
        told = await self._deliveries.existing(sync.key, ids) if ids else set()
        made.unchanged += len(told)
        untold = [(id, member) for id, member in ids.items() if id not in told]
        pairs = [
            (
                sync,
                membership_event(sync, sync.workspace_id, id, entry_of(sync, member, now_us()), now_us()),
                member.profile_id,
                "",
            )
            for id, member in untold
        ]
        sending = []
        for (_, member), item in zip(untold, await self._items.event_items(outlet, pairs), strict=True):
            if isinstance(item, Verdict):
                skip = Change(member.profile_id, PlannedOperation.PLANNED_OPERATION_SKIP, item.reason)
                made.changes.append(skip)
            else:
                made.changes.append(Change(member.profile_id, PlannedOperation.PLANNED_OPERATION_SEND))
                sending.append((member.profile_id, item.item))
        made.take(await outlet.preview(SEND_EVENTS, sending))


def _filled(sources: Mapping[str, str], values: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(field, expression, value as JSON or empty) of each field that the mapping has an expression for."""
    return [
        (name, source, msgspec.json.encode(values[name]).decode() if name in values else "")
        for name, source in sources.items()
    ]


def _note(made: DryRun, member: Looked, plan_id: str) -> None:
    operation = operation_of(member.record, member.changes)
    reason = member.kept_out.reason if member.kept_out else ""
    if plan_id and member.document["pn"][1] != digest(member.changes):
        reason = reason or "changed since the plan was made: it is not sent with it"
    id = member.record.profile_id
    if operation is not Operation.NOTHING:
        planned = PlannedOperation.ValueType(operation)
        made.changes.append(Change(id, planned, reason, len(member.changes.add), len(member.changes.remove)))
    elif reason:
        made.changes.append(Change(id, PlannedOperation.PLANNED_OPERATION_SKIP, reason))
    else:
        made.unchanged += 1
