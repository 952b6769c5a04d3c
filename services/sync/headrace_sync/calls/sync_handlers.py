"""What `SyncService` does: syncs, their passes, their deliveries, their account."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from headrace.api.sync.v1.sync_service_pb2 import IdentifierValues, Sync, SyncKind
from headrace.connector import wire
from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import now_us
from headrace.plugins.mapping import MappingError, compile_mapping
from headrace.rpc import names
from headrace.rpc.errors import already_exists, etag_mismatch, invalid_argument, not_found, wrong_state
from headrace.storage.mongo.client import Document
from headrace_sdk import Sources
from headrace_sync.calls.requests import LONGEST_TEXT, check_etag
from headrace_sync.calls.sync_lists import SyncLists, alone_on_its_list
from headrace_sync.config import SyncConfig, key_of
from headrace_sync.deliveries.replays import ReplayFilter
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.exchanges.store import ExchangeStore
from headrace_sync.ledger.accounts import Account, Accounts
from headrace_sync.lists.runner import new_run
from headrace_sync.lists.schedules import next_run
from headrace_sync.lists.store import ListStore
from headrace_sync.mappings.check import MappingChecks, wrong_types
from headrace_sync.people.audiences import Audiences
from headrace_sync.plans.store import PlanState, PlanStore
from headrace_sync.store import ConfigStore

_PLAIN = frozenset(
    {
        "mapping",
        "send_removals",
        "paused",
        "require_approval",
        "most_changed_percent",
        "identifier_values",
        "delay_seconds",
        "schedule",
    }
)
"""Fields that are stored as they are given."""
CHANGEABLE = frozenset({"display_name", "event_names", "list"}) | _PLAIN
FIXED = frozenset(
    {"name", "kind", "destination", "audience", "create_time", "update_time", "etag", "pending_plan", "deleting"}
)

_PEOPLE_CHECKED = 100
_LONGEST_DELAY_S = 7 * 86_400
_MOST_EVENT_NAMES = 500
_MOST_MAPPING_BYTES = 256 * 1024
_CAPABILITY: Mapping[int, str] = {
    SyncKind.SYNC_KIND_LIST: "list_sync",
    SyncKind.SYNC_KIND_EVENT: "event_sync",
    SyncKind.SYNC_KIND_FORWARDING: "forwarding",
}
_TRIES = 5

Position = tuple[int, str]


class SyncHandlers:
    """Syncs of workspaces."""

    def __init__(
        self,
        *,
        store: ConfigStore,
        connectors: Callable[[], Mapping[str, wire.ConnectorInfo]],
        audiences: Audiences,
        deliveries: DeliveryStore,
        lists: ListStore,
        accounts: Accounts,
        plans: PlanStore,
        exchanges: ExchangeStore,
        mappings: MappingChecks,
        sync_lists: SyncLists,
        wake_list: Callable[[str], None],
        wake_destination: Callable[[str], None],
    ) -> None:
        """Wire them."""
        self._store = store
        self._connectors = connectors
        self._audiences = audiences
        self._deliveries = deliveries
        self._lists = lists
        self._accounts = accounts
        self._plans = plans
        self._exchanges = exchanges
        self._mappings = mappings
        self._sync_lists = sync_lists
        self._wake_list = wake_list
        self._wake_destination = wake_destination

    async def create(self, workspace_id: str, sync_id: str, wanted: Sync, request_id: str) -> SyncConfig:
        """Make a sync.

        Raises:
            ApiError: INVALID_ARGUMENT, ALREADY_EXISTS, FAILED_PRECONDITION.
            grpc.aio.AioRpcError: The audience service does not answer.
        """
        if wanted.kind not in _CAPABILITY:
            raise invalid_argument("sync.kind", "must be LIST, EVENT or FORWARDING")
        destination_id = _sibling(workspace_id, names.DESTINATION, wanted.destination, "sync.destination")
        audience_id = await self._audience(workspace_id, wanted)
        now = now_us()
        sync = SyncConfig(
            doc_id=key_of(workspace_id, sync_id),
            key=new_time_ordered_id(),
            workspace_id=workspace_id,
            id=sync_id,
            display_name=names.display_name("sync.display_name", wanted.display_name),
            kind=wanted.kind,
            destination_id=destination_id,
            audience_id=audience_id,
            event_names=tuple(dict.fromkeys(wanted.event_names)),
            mapping=wanted.mapping,
            send_removals=wanted.send_removals,
            paused=wanted.paused,
            created_us=now,
            updated_us=now,
            changed_us=0,
            revision=1,
            request_id=request_id,
            require_approval=wanted.require_approval,
            most_changed_percent=wanted.most_changed_percent,
            identifier_values=wanted.identifier_values,
            delay_seconds=wanted.delay_seconds,
            schedule=wanted.schedule,
            list_id=wanted.list,
        )
        info = await self._check(sync)
        offline_only = sync.is_forwarding and info.sources is Sources.OFFLINE
        sync = dataclasses.replace(sync, created_us=now_us(), offline_only=offline_only)
        if await self._store.insert_sync(sync, alone_on_its_list(info, sync) if sync.is_list else None):
            return sync
        existing = await self._store.get_sync(workspace_id, sync.doc_id)
        if existing is not None and request_id and existing.request_id == request_id:
            await self._store.announce()
            return existing
        raise already_exists(sync.name)

    async def get(self, workspace_id: str, sync_id: str) -> SyncConfig:
        """A sync.

        Raises:
            ApiError: NOT_FOUND.
        """
        found = await self._store.get_sync(workspace_id, key_of(workspace_id, sync_id))
        if found is None:
            raise not_found(f"workspaces/{workspace_id}/syncs/{sync_id}")
        return found

    async def page(self, workspace_id: str, after_id: str, limit: int) -> list[SyncConfig]:
        """Syncs with a greater id, by id."""
        return await self._store.list_syncs(workspace_id, after_id, limit)

    async def update(self, workspace_id: str, sync_id: str, wanted: Sync, fields: set[str]) -> SyncConfig:
        """Change fields of a sync.

        Raises:
            ApiError: NOT_FOUND, INVALID_ARGUMENT, FAILED_PRECONDITION or ABORTED.
        """
        for _ in range(_TRIES):
            before = await self.get(workspace_id, sync_id)
            _refuse_deleting(before)
            check_etag(wanted.etag, before.revision)
            after = dataclasses.replace(before, updated_us=now_us(), revision=before.revision + 1)
            if "display_name" in fields:
                after = dataclasses.replace(
                    after, display_name=names.display_name("sync.display_name", wanted.display_name)
                )
            if "event_names" in fields:
                after = dataclasses.replace(after, event_names=tuple(dict.fromkeys(wanted.event_names)))
            for name in fields & _PLAIN:
                after = dataclasses.replace(after, **{name: getattr(wanted, name)})
            if "list" in fields:
                after = dataclasses.replace(after, list_id=wanted.list)
            is_other_list = after.list_id != before.list_id
            info = await self._check(after, mapping_is_new=after.mapping != before.mapping, list_is_new=is_other_list)
            if (after.event_names, after.paused) != (before.event_names, before.paused):
                after = dataclasses.replace(after, changed_us=now_us())
            check = alone_on_its_list(info, after) if is_other_list else None
            if await self._store.replace_sync(after, before.revision, check):
                # What its rows go by now is found by the next pass, in whichever process.
                self._wake_list(after.key)
                return after
        raise etag_mismatch()

    async def delete(self, workspace_id: str, sync_id: str, *, remove_members: bool) -> SyncConfig | None:
        """Delete a sync and what it remembers; with `remove_members` once everybody is off its list.

        Returns:
            The sync while people are taken off its list; None when it is gone.

        Raises:
            ApiError: NOT_FOUND, INVALID_ARGUMENT or ABORTED.
        """
        for _ in range(_TRIES):
            before = await self.get(workspace_id, sync_id)
            if not remove_members:
                await self._store.delete_sync(before)
                return None
            if not before.is_list:
                raise invalid_argument("remove_members", "is for LIST syncs only")
            if before.deleting:
                return before
            after = dataclasses.replace(before, deleting=True, updated_us=now_us(), revision=before.revision + 1)
            if await self._store.replace_sync(after, before.revision):
                return after
        raise etag_mismatch()

    async def run(self, workspace_id: str, sync_id: str, *, full: bool) -> Document:
        """Ask for a pass of a list sync; returns it as stored.

        Raises:
            ApiError: NOT_FOUND, FAILED_PRECONDITION.
        """
        sync = await self.get(workspace_id, sync_id)
        if not sync.is_list:
            raise wrong_state(SyncKind.Name(SyncKind.ValueType(sync.kind)), "Only LIST syncs have passes.")
        _refuse_deleting(sync)
        if sync.paused:
            raise wrong_state("PAUSED", "The sync is paused: set paused to false first.")
        run = new_run(sync, new_time_ordered_id(), full=full)
        await self._lists.runs.insert(run)
        self._wake_list(sync.key)
        return run

    async def approve(self, workspace_id: str, sync_id: str, plan_id: str) -> Document:
        """Approve what a list sync would change; gives the plan as stored.

        Raises:
            ApiError: NOT_FOUND, FAILED_PRECONDITION when another plan took its place.
        """
        sync = await self.get(workspace_id, sync_id)
        plan = await self._plans.approve(sync.key, plan_id, now=now_us())
        if plan is None:
            raise not_found(f"plan {plan_id[:LONGEST_TEXT]} of {sync.name}", "the sync shows which plan waits")
        if plan["st"] != PlanState.APPROVED:
            raise wrong_state("DISCARDED", "Another plan took its place: approve the one that the sync shows.")
        self._wake_list(sync.key)
        return plan

    async def pending_plans(self, syncs: Sequence[SyncConfig]) -> dict[str, Document]:
        """The plans that wait for approval, by sync key."""
        keys = [sync.key for sync in syncs if sync.is_list]
        return await self._plans.waiting(keys) if keys else {}

    async def runs(self, workspace_id: str, sync_id: str, before_id: str, limit: int) -> list[Document]:
        """Passes, newest first."""
        sync = await self.get(workspace_id, sync_id)
        return await self._lists.runs.page(sync.key, workspace_id, before_id, limit)

    async def exchanges(self, workspace_id: str, documents: Iterable[Document]) -> dict[str, Document]:
        """What is kept of the last requests of deliveries and list members, by its id."""
        return await self._exchanges.get(workspace_id, {d["ex"] for d in documents if d.get("ex")})

    async def deliveries(
        self,
        workspace_id: str,
        sync_id: str,
        *,
        state: int,
        message_id: str,
        profile_ids: Sequence[str] = (),
        before: Position | None,
        limit: int,
    ) -> list[tuple[SyncConfig, Document]]:
        """Deliveries and list members with their sync, newest first, those after a position (time, id).

        Args:
            workspace_id: The workspace.
            sync_id: One sync; empty for all.
            state: Only of this state; 0 for all.
            message_id: Only of this event; empty for all.
            profile_ids: Only of these profiles; empty for all.
            before: Position of the last one of the page before.
            limit: Most that are returned.
        """
        syncs = [await self.get(workspace_id, sync_id)] if sync_id else await self._all(workspace_id)
        by_key = {sync.key: sync for sync in syncs}
        events = [sync.key for sync in syncs if not sync.is_list]
        found: list[Document] = []
        if events:
            found += await self._deliveries.page(
                events,
                workspace_id=workspace_id,
                state=state,
                message_id=message_id,
                profile_ids=profile_ids,
                before=before,
                limit=limit,
            )
        lists = [sync.key for sync in syncs if sync.is_list]
        if lists and not message_id:
            found += await self._lists.page(
                lists, workspace_id=workspace_id, state=state, profile_ids=profile_ids, before=before, limit=limit
            )
        found.sort(key=position_of, reverse=True)
        return [(by_key[document["k"]], document) for document in found[:limit]]

    async def replay(self, workspace_id: str, sync_id: str, wanted: ReplayFilter) -> int:
        """Put failed deliveries back in the queue; returns how many.

        Raises:
            ApiError: NOT_FOUND.
        """
        sync = await self.get(workspace_id, sync_id)
        if sync.is_list:
            count = await self._lists.replay(sync.key, workspace_id, wanted, now=now_us())
            self._wake_list(sync.key)
            return count
        count = await self._deliveries.replay(sync.key, workspace_id, wanted, now=now_us())
        self._wake_destination(sync.destination_key)
        return count

    async def account(self, workspace_id: str, sync_id: str) -> Account:
        """The account of a sync.

        Raises:
            ApiError: NOT_FOUND.
            grpc.aio.AioRpcError: The audience service does not answer.
        """
        return await self._accounts.account(await self.get(workspace_id, sync_id))

    async def _all(self, workspace_id: str) -> list[SyncConfig]:
        return await self._store.list_syncs(workspace_id, "", 10_000)

    async def _audience(self, workspace_id: str, wanted: Sync) -> str:
        if wanted.kind == SyncKind.SYNC_KIND_FORWARDING:
            if wanted.audience:
                raise invalid_argument("sync.audience", "must be empty for a FORWARDING sync")
            return ""
        audience_id = _sibling(workspace_id, names.AUDIENCE, wanted.audience, "sync.audience")
        audience = await self._audiences.get(wanted.audience)
        if audience is None:
            raise invalid_argument("sync.audience", "there is no such audience")
        if json.loads(audience.definition).get("of") == "groups":
            raise invalid_argument("sync.audience", "is an audience of groups; destinations take people")
        return audience_id

    async def _check(
        self, sync: SyncConfig, *, mapping_is_new: bool = True, list_is_new: bool = True
    ) -> wire.ConnectorInfo:
        """Refuse what cannot work; gives the connector."""
        if sync.event_names and not sync.is_forwarding:
            raise invalid_argument("sync.event_names", "is for FORWARDING syncs only")
        if len(sync.event_names) > _MOST_EVENT_NAMES or any(
            not name or len(name) > LONGEST_TEXT for name in sync.event_names
        ):
            text = f"must be at most {_MOST_EVENT_NAMES} names of 1 to {LONGEST_TEXT} characters"
            raise invalid_argument("sync.event_names", text)
        if sync.send_removals and not sync.is_event:
            raise invalid_argument("sync.send_removals", "is for EVENT syncs only")
        if sync.is_guarded and not sync.is_list:
            raise invalid_argument("sync.require_approval", "and most_changed_percent are for LIST syncs only")
        if not 0 <= sync.most_changed_percent <= 100:
            raise invalid_argument("sync.most_changed_percent", "must be a share in percent, 0 to 100; 0 for no limit")
        if sync.identifier_values not in IdentifierValues.values():
            raise invalid_argument("sync.identifier_values", "must be FIRST or LAST, or not set for all")
        if sync.schedule and not sync.is_list:
            raise invalid_argument("sync.schedule", "is for LIST syncs only")
        if sync.schedule:
            try:
                next_run(sync.schedule, 0)
            except ValueError as error:
                raise invalid_argument("sync.schedule", str(error)) from None
        if sync.delay_seconds and not sync.is_forwarding:
            raise invalid_argument("sync.delay_seconds", "is for FORWARDING syncs only")
        if not 0 <= sync.delay_seconds <= _LONGEST_DELAY_S:
            raise invalid_argument("sync.delay_seconds", f"must be 0 to {_LONGEST_DELAY_S:,}, which is a week")
        destination = await self._store.get_destination(sync.workspace_id, sync.destination_key)
        if destination is None:
            raise invalid_argument("sync.destination", "there is no such destination")
        info = self._connectors().get(destination.connector)
        if info is None:
            raise wrong_state("PLUGIN_MISSING", f"The plugin of connector {destination.connector!r} is not loaded.")
        capability = _CAPABILITY[sync.kind]
        if capability not in info.capabilities:
            raise invalid_argument("sync.kind", f"connector {info.name!r} cannot do {capability}")
        if list_is_new:
            await self._sync_lists.check(info, destination, sync)
        if len(sync.mapping) > _MOST_MAPPING_BYTES:
            raise invalid_argument("sync.mapping", f"must not be longer than {_MOST_MAPPING_BYTES:,} bytes")
        try:
            compiled = compile_mapping(sync.mapping, info)
        except MappingError as error:
            field = f"sync.mapping.{error.field}" if error.field else "sync.mapping"
            raise invalid_argument(field, error.reason) from None
        if sync.mapping and mapping_is_new:
            audience = sync.audience_name if sync.audience_id else ""
            people = await self._mappings.people(sync.workspace_id, audience, _PEOPLE_CHECKED)
            wrong = wrong_types(sync.mapping, compiled, people)
            if wrong is not None:
                raise invalid_argument(f"sync.mapping.{wrong[0]}", wrong[1])
        return info


def _refuse_deleting(sync: SyncConfig) -> None:
    if sync.deleting:
        text = "The sync is being deleted: it goes when everybody is off its list, or at once without remove_members."
        raise wrong_state("DELETING", text)


def position_of(document: Document) -> Position:
    """Where a delivery or a list member stands in the order of time."""
    return (int(document["c"]) if "c" in document else int(document["u"]), str(document["_id"]))


def _sibling(workspace_id: str, pattern: str, name: str, field: str) -> str:
    """The id in the name of another resource of the same workspace."""
    owner, id = names.parse(pattern, name, field)
    if owner != workspace_id:
        raise invalid_argument(field, "must be of the same workspace")
    return id
