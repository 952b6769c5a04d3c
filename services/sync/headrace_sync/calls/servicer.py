"""`DestinationService` and `SyncService`: protobuf to calls of the handlers and back."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

import json
from typing import Any

import msgspec

from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1 import plan_pb2 as plan
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.destination_service_pb2_grpc import DestinationServiceServicer
from headrace.api.sync.v1.sync_service_pb2_grpc import SyncServiceServicer
from headrace.connector import wire
from headrace.plugins.render import Rendering
from headrace.rpc import auth, names, scopes
from headrace.rpc.errors import invalid_argument
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager, page_size
from headrace_sdk import VendorList
from headrace_sync.alerts.hooks import hook_message
from headrace_sync.calls import destination_handlers, sync_handlers
from headrace_sync.calls.destination_handlers import DestinationHandlers
from headrace_sync.calls.destination_tests import DestinationTests
from headrace_sync.calls.requests import changed_fields, etag
from headrace_sync.calls.sync_handlers import SyncHandlers, position_of
from headrace_sync.calls.sync_messages import delivery_message, run_message, sync_message, time_message
from headrace_sync.calls.vendor_handlers import VendorHandlers
from headrace_sync.config import DestinationConfig, SyncConfig
from headrace_sync.deliveries.replays import ReplayFilter
from headrace_sync.mappings.check import MappingChecks
from headrace_sync.mappings.readiness import ReadinessHandlers
from headrace_sync.plans.dry_run import DryRuns
from headrace_sync.plans.messages import dry_run_message, plan_message
from headrace_sync.plans.pages import Position

_MOST_REPLAYED = 10_000
_MOST_PROFILES = 1_000


class DestinationServicer(DestinationServiceServicer):
    """Destinations over gRPC."""

    def __init__(
        self,
        handlers: DestinationHandlers,
        vendors: VendorHandlers,
        mappings: MappingChecks,
        tests: DestinationTests,
        request_ids: RequestIds,
        pager: Pager,
    ) -> None:
        """Serve these handlers."""
        self._mappings = mappings
        self._handlers = handlers
        self._vendors = vendors
        self._tests = tests
        self._request_ids = request_ids
        self._pager = pager

    async def ListConnectors(self, request: dest.ListConnectorsRequest, context: Any) -> dest.ListConnectorsResponse:
        """Connectors, and plugins that failed to load."""
        auth.authorize_name(scopes.DESTINATIONS_READ, request.parent, "parent")
        connectors, failures = self._handlers.connectors()
        response = dest.ListConnectorsResponse(connectors=[_connector(info) for info in connectors])
        for failure in failures:
            response.connectors.add(
                name=failure.plugin, plugin=failure.plugin, version=failure.version, error=failure.reason
            )
        return response

    async def CreateDestination(
        self, request: dest.CreateDestinationRequest, context: Any
    ) -> dest.CreateDestinationResponse:
        """Make a destination."""
        workspace_id = auth.authorize_name(scopes.DESTINATIONS_WRITE, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        id = names.check_id("destination_id", request.destination_id)

        async def act() -> dest.CreateDestinationResponse:
            made = await self._handlers.create(workspace_id, id, request.destination, request.request_id)
            return dest.CreateDestinationResponse(destination=_destination(made))

        return await self._request_ids.once(
            workspace_id, "CreateDestination", request.request_id, request, dest.CreateDestinationResponse, act
        )

    async def GetDestination(self, request: dest.GetDestinationRequest, context: Any) -> dest.GetDestinationResponse:
        """Read a destination."""
        auth.authorize_name(scopes.DESTINATIONS_READ, request.name)
        found = await self._handlers.get(*names.parse(names.DESTINATION, request.name))
        return dest.GetDestinationResponse(destination=_destination(found))

    async def ListDestinations(
        self, request: dest.ListDestinationsRequest, context: Any
    ) -> dest.ListDestinationsResponse:
        """A page of destinations."""
        workspace_id = auth.authorize_name(scopes.DESTINATIONS_READ, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        size = page_size(request.page_size)
        after = self._pager.decode("ListDestinations", [request.parent], request.page_token) or ""
        found = await self._handlers.page(workspace_id, after, size + 1)
        response = dest.ListDestinationsResponse(destinations=[_destination(d) for d in found[:size]])
        if len(found) > size:
            response.next_page_token = self._pager.encode("ListDestinations", [request.parent], found[size - 1].id)
        return response

    async def UpdateDestination(
        self, request: dest.UpdateDestinationRequest, context: Any
    ) -> dest.UpdateDestinationResponse:
        """Change a destination."""
        wanted = request.destination
        workspace_id = auth.authorize_name(scopes.DESTINATIONS_WRITE, wanted.name, "destination.name")
        ids = names.parse(names.DESTINATION, wanted.name, "destination.name")
        set_fields = [field.name for field, _ in wanted.ListFields()]
        fields = changed_fields(
            request.update_mask, set_fields, destination_handlers.CHANGEABLE, destination_handlers.FIXED
        )

        async def act() -> dest.UpdateDestinationResponse:
            changed = await self._handlers.update(ids[0], ids[1], wanted, fields)
            return dest.UpdateDestinationResponse(destination=_destination(changed))

        return await self._request_ids.once(
            workspace_id, "UpdateDestination", request.request_id, request, dest.UpdateDestinationResponse, act
        )

    async def DeleteDestination(
        self, request: dest.DeleteDestinationRequest, context: Any
    ) -> dest.DeleteDestinationResponse:
        """Delete a destination."""
        workspace_id = auth.authorize_name(scopes.DESTINATIONS_WRITE, request.name)
        ids = names.parse(names.DESTINATION, request.name)

        async def act() -> dest.DeleteDestinationResponse:
            await self._handlers.delete(ids[0], ids[1])
            return dest.DeleteDestinationResponse()

        return await self._request_ids.once(
            workspace_id, "DeleteDestination", request.request_id, request, dest.DeleteDestinationResponse, act
        )

    async def CheckDestination(
        self, request: dest.CheckDestinationRequest, context: Any
    ) -> dest.CheckDestinationResponse:
        """Ask the vendor whether a destination works."""
        auth.authorize_name(scopes.DESTINATIONS_READ, request.name)
        destination = await self._handlers.get(*names.parse(names.DESTINATION, request.name))
        found = await self._vendors.check(destination, await self._handlers.lists_of(destination))
        return dest.CheckDestinationResponse(
            checks=[dest.DestinationCheck(title=one.title, state=one.state, problem=one.problem) for one in found]
        )

    async def CheckMapping(self, request: dest.CheckMappingRequest, context: Any) -> dest.CheckMappingResponse:
        """Check a mapping against real people."""
        auth.authorize_name(scopes.DESTINATIONS_READ, request.name)
        destination = await self._handlers.get(*names.parse(names.DESTINATION, request.name))
        found = await self._mappings.check(destination, request.mapping, request.audience)
        return dest.CheckMappingResponse(
            sampled=found.sampled,
            problem=found.problem,
            fields=[
                dest.MappedField(
                    name=one.name,
                    expression=one.expression,
                    proposal=one.proposal,
                    given=one.given,
                    usable=one.usable,
                    consented=one.consented,
                    wrong_type=one.wrong_type,
                    remarks=one.remarks,
                    proposal_given=one.proposal_given,
                )
                for one in found.fields
            ],
        )

    async def TestDestination(self, request: dest.TestDestinationRequest, context: Any) -> dest.TestDestinationResponse:
        """Show what sample events become. A script can show secrets in disguise, so this takes the right to write."""
        workspace_id = auth.authorize_name(scopes.DESTINATIONS_WRITE, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        found = await self._tests.run(workspace_id, request.destination, request.mapping, request.events)
        return _tested(found)

    async def ListVendorLists(self, request: dest.ListVendorListsRequest, context: Any) -> dest.ListVendorListsResponse:
        """A page of the vendor's lists."""
        auth.authorize_name(scopes.DESTINATIONS_READ, request.parent, "parent")
        destination = await self._handlers.get(*names.parse(names.DESTINATION, request.parent, "parent"))
        page = self._pager.decode("ListVendorLists", [request.parent], request.page_token) or ""
        found = await self._vendors.lists(destination, page)
        response = dest.ListVendorListsResponse(lists=map(_vendor_list, found.lists))
        if found.next_page:
            response.next_page_token = self._pager.encode("ListVendorLists", [request.parent], found.next_page)
        return response

    async def CreateVendorList(
        self, request: dest.CreateVendorListRequest, context: Any
    ) -> dest.CreateVendorListResponse:
        """Make a list at the vendor."""
        workspace_id = auth.authorize_name(scopes.DESTINATIONS_WRITE, request.parent, "parent")
        ids = names.parse(names.DESTINATION, request.parent, "parent")
        name = names.display_name("display_name", request.display_name)

        async def act() -> dest.CreateVendorListResponse:
            made = await self._vendors.create_list(await self._handlers.get(*ids), name)
            return dest.CreateVendorListResponse(list=_vendor_list(made))

        return await self._request_ids.once(
            workspace_id, "CreateVendorList", request.request_id, request, dest.CreateVendorListResponse, act
        )


class SyncServicer(SyncServiceServicer):
    """Syncs over gRPC."""

    def __init__(
        self,
        handlers: SyncHandlers,
        readiness: ReadinessHandlers,
        dry_runs: DryRuns,
        request_ids: RequestIds,
        pager: Pager,
    ) -> None:
        """Serve these handlers."""
        self._handlers = handlers
        self._readiness = readiness
        self._dry_runs = dry_runs
        self._request_ids = request_ids
        self._pager = pager

    async def CreateSync(self, request: pb.CreateSyncRequest, context: Any) -> pb.CreateSyncResponse:
        """Make a sync."""
        workspace_id = auth.authorize_name(scopes.SYNCS_WRITE, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        id = names.check_id("sync_id", request.sync_id)

        async def act() -> pb.CreateSyncResponse:
            made = await self._handlers.create(workspace_id, id, request.sync, request.request_id)
            return pb.CreateSyncResponse(sync=await self._shown(made), advice=await self._readiness.advice(made))

        return await self._request_ids.once(
            workspace_id, "CreateSync", request.request_id, request, pb.CreateSyncResponse, act
        )

    async def GetSync(self, request: pb.GetSyncRequest, context: Any) -> pb.GetSyncResponse:
        """Read a sync."""
        auth.authorize_name(scopes.SYNCS_READ, request.name)
        found = await self._handlers.get(*names.parse(names.SYNC, request.name))
        return pb.GetSyncResponse(sync=await self._shown(found))

    async def ListSyncs(self, request: pb.ListSyncsRequest, context: Any) -> pb.ListSyncsResponse:
        """A page of syncs."""
        workspace_id = auth.authorize_name(scopes.SYNCS_READ, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        size = page_size(request.page_size)
        after = self._pager.decode("ListSyncs", [request.parent], request.page_token) or ""
        found = await self._handlers.page(workspace_id, after, size + 1)
        plans = await self._handlers.pending_plans(found[:size])
        response = pb.ListSyncsResponse(syncs=[sync_message(s, plans.get(s.key)) for s in found[:size]])
        if len(found) > size:
            response.next_page_token = self._pager.encode("ListSyncs", [request.parent], found[size - 1].id)
        return response

    async def UpdateSync(self, request: pb.UpdateSyncRequest, context: Any) -> pb.UpdateSyncResponse:
        """Change a sync."""
        wanted = request.sync
        workspace_id = auth.authorize_name(scopes.SYNCS_WRITE, wanted.name, "sync.name")
        ids = names.parse(names.SYNC, wanted.name, "sync.name")
        set_fields = [field.name for field, _ in wanted.ListFields()]
        fields = changed_fields(request.update_mask, set_fields, sync_handlers.CHANGEABLE, sync_handlers.FIXED)

        async def act() -> pb.UpdateSyncResponse:
            changed = await self._handlers.update(ids[0], ids[1], wanted, fields)
            return pb.UpdateSyncResponse(sync=await self._shown(changed))

        return await self._request_ids.once(
            workspace_id, "UpdateSync", request.request_id, request, pb.UpdateSyncResponse, act
        )

    async def DeleteSync(self, request: pb.DeleteSyncRequest, context: Any) -> pb.DeleteSyncResponse:
        """Delete a sync."""
        workspace_id = auth.authorize_name(scopes.SYNCS_WRITE, request.name)
        ids = names.parse(names.SYNC, request.name)

        async def act() -> pb.DeleteSyncResponse:
            left = await self._handlers.delete(ids[0], ids[1], remove_members=request.remove_members)
            return pb.DeleteSyncResponse(sync=sync_message(left) if left is not None else None)

        return await self._request_ids.once(
            workspace_id, "DeleteSync", request.request_id, request, pb.DeleteSyncResponse, act
        )

    async def DryRunSync(self, request: plan.DryRunSyncRequest, context: Any) -> plan.DryRunSyncResponse:
        """A page of what a sync would do."""
        auth.authorize_name(scopes.SYNCS_WRITE, request.name)
        sync = await self._handlers.get(*names.parse(names.SYNC, request.name))
        profile_ids = sorted(set(request.profile_ids))
        bound = [request.name, str(request.full), request.plan_id, request.message_id, *profile_ids]
        place = self._pager.decode("DryRunSync", bound, request.page_token)
        position, size = Position(*place) if place else Position(), page_size(request.page_size)
        if sync.is_forwarding != bool(profile_ids or request.message_id):
            missing = (
                "is required (or message_id): a FORWARDING sync has no audience, so say whose events are looked at"
            )
            unwanted = "and message_id are for FORWARDING syncs: this one looks at its audience"
            raise invalid_argument("profile_ids", missing if sync.is_forwarding else unwanted)
        if len(profile_ids) > _MOST_PROFILES:
            raise invalid_argument("profile_ids", f"must be at most {_MOST_PROFILES:,}")
        if sync.is_forwarding:
            made = await self._dry_runs.events(
                sync, position, size, profile_ids=profile_ids, message_id=request.message_id
            )
        else:
            made = await self._dry_runs.page(sync, position, size, full=request.full, plan_id=request.plan_id)
        response = dry_run_message(made)
        if not request.page_token:
            response.advice.extend(await self._readiness.advice(sync))
        if made.following is not None:
            place = [made.following.token, made.following.after]
            response.next_page_token = self._pager.encode("DryRunSync", bound, place)
        return response

    async def ApproveSync(self, request: plan.ApproveSyncRequest, context: Any) -> plan.ApproveSyncResponse:
        """Approve a plan."""
        workspace_id = auth.authorize_name(scopes.SYNCS_WRITE, request.name)
        ids = names.parse(names.SYNC, request.name)
        if not request.plan_id:
            raise invalid_argument("plan_id", "must be the id of the plan that waits")

        async def act() -> plan.ApproveSyncResponse:
            return plan.ApproveSyncResponse(
                plan=plan_message(await self._handlers.approve(ids[0], ids[1], request.plan_id))
            )

        return await self._request_ids.once(
            workspace_id, "ApproveSync", request.request_id, request, plan.ApproveSyncResponse, act
        )

    async def RunSync(self, request: pb.RunSyncRequest, context: Any) -> pb.RunSyncResponse:
        """Start a pass."""
        workspace_id = auth.authorize_name(scopes.SYNCS_WRITE, request.name)
        ids = names.parse(names.SYNC, request.name)

        async def act() -> pb.RunSyncResponse:
            return pb.RunSyncResponse(run=run_message(await self._handlers.run(ids[0], ids[1], full=request.full)))

        return await self._request_ids.once(
            workspace_id, "RunSync", request.request_id, request, pb.RunSyncResponse, act
        )

    async def ListSyncRuns(self, request: pb.ListSyncRunsRequest, context: Any) -> pb.ListSyncRunsResponse:
        """A page of passes."""
        auth.authorize_name(scopes.SYNCS_READ, request.parent, "parent")
        ids = names.parse(names.SYNC, request.parent, "parent")
        size = page_size(request.page_size)
        before = self._pager.decode("ListSyncRuns", [request.parent], request.page_token) or ""
        found = await self._handlers.runs(ids[0], ids[1], before, size + 1)
        response = pb.ListSyncRunsResponse(runs=[run_message(run) for run in found[:size]])
        if len(found) > size:
            response.next_page_token = self._pager.encode("ListSyncRuns", [request.parent], found[size - 1]["_id"])
        return response

    async def ListDeliveries(self, request: pb.ListDeliveriesRequest, context: Any) -> pb.ListDeliveriesResponse:
        """A page of deliveries."""
        workspace_id = auth.authorize_name(scopes.SYNCS_READ, request.parent, "parent")
        sync_id = ""
        if request.parent != names.format(names.WORKSPACE, workspace_id):
            sync_id = names.parse(names.SYNC, request.parent, "parent")[1]
        if request.state not in pb.DeliveryState.values():
            raise invalid_argument("state", "is no state of deliveries")
        if len(request.profile_ids) > _MOST_PROFILES:
            raise invalid_argument("profile_ids", f"must be at most {_MOST_PROFILES:,}")
        size = page_size(request.page_size)
        profile_ids = sorted(set(request.profile_ids))
        bound = [request.parent, str(request.state), request.message_id, *profile_ids]
        position = self._pager.decode("ListDeliveries", bound, request.page_token)
        found = await self._handlers.deliveries(
            workspace_id,
            sync_id,
            state=request.state,
            message_id=request.message_id,
            profile_ids=profile_ids,
            before=(position[0], position[1]) if position else None,
            limit=size + 1,
        )
        kept = await self._handlers.exchanges(workspace_id, [d for _, d in found]) if request.exchanges else {}
        response = pb.ListDeliveriesResponse(deliveries=[delivery_message(sync, d, kept) for sync, d in found[:size]])
        if len(found) > size:
            last = position_of(found[size - 1][1])
            response.next_page_token = self._pager.encode("ListDeliveries", bound, last)
        return response

    async def ReplayDeliveries(self, request: pb.ReplayDeliveriesRequest, context: Any) -> pb.ReplayDeliveriesResponse:
        """Put failed deliveries back."""
        workspace_id = auth.authorize_name(scopes.SYNCS_WRITE, request.parent, "parent")
        ids = names.parse(names.SYNC, request.parent, "parent")
        if len(request.delivery_ids) > _MOST_REPLAYED:
            raise invalid_argument("delivery_ids", f"must be at most {_MOST_REPLAYED:,}")
        wanted = ReplayFilter(
            ids=tuple(request.delivery_ids),
            reason=request.reason_contains,
            status=request.status_code,
            from_us=request.failed_from.ToMicroseconds() if request.HasField("failed_from") else 0,
            before_us=request.failed_before.ToMicroseconds() if request.HasField("failed_before") else 0,
            even_if_sent=request.even_if_sent,
        )

        async def act() -> pb.ReplayDeliveriesResponse:
            return pb.ReplayDeliveriesResponse(replayed=await self._handlers.replay(ids[0], ids[1], wanted))

        return await self._request_ids.once(
            workspace_id, "ReplayDeliveries", request.request_id, request, pb.ReplayDeliveriesResponse, act
        )

    async def GetLedger(self, request: pb.GetLedgerRequest, context: Any) -> pb.GetLedgerResponse:
        """The account of a sync."""
        auth.authorize_name(scopes.SYNCS_READ, request.name)
        account = await self._handlers.account(*names.parse(names.SYNC, request.name))
        return pb.GetLedgerResponse(
            expected=account.expected,
            delivered=account.delivered,
            warned=account.warned,
            filtered=account.filtered,
            waiting=account.waiting,
            failed=account.failed,
            unaccounted=account.unaccounted,
        )

    async def GetAudienceReadiness(
        self, request: pb.GetAudienceReadinessRequest, context: Any
    ) -> pb.GetAudienceReadinessResponse:
        """How many members of an audience each destination could match."""
        auth.authorize_name(scopes.SYNCS_READ, request.name)
        found = await self._readiness.of(*names.parse(names.AUDIENCE, request.name))
        return pb.GetAudienceReadinessResponse(
            size=found.size,
            sampled=found.sampled,
            destinations=[
                pb.DestinationReadiness(
                    destination=one.destination,
                    kind=one.kind,
                    sync=one.sync,
                    reachable=one.reachable,
                    reachable_in_all=found.in_all(one),
                    fields=one.fields,
                    left_out=one.left_out,
                    level=found.level(one),
                    problem=one.problem,
                )
                for one in found.destinations
            ],
        )

    async def _shown(self, sync: SyncConfig) -> pb.Sync:
        return sync_message(sync, (await self._handlers.pending_plans([sync])).get(sync.key))


def _connector(info: wire.ConnectorInfo) -> dest.Connector:
    return dest.Connector(
        name=info.name,
        title=info.title,
        plugin=info.plugin,
        version=info.version,
        capabilities=sorted(info.capabilities),
        settings_schema=msgspec.json.encode(info.settings_schema).decode(),
        fields=[dest.ConnectorField(name=f.name, title=f.title, required=f.required) for f in info.fields],
    )


def _tested(found: Rendering) -> dest.TestDestinationResponse:
    response = dest.TestDestinationResponse()
    for request in found.requests:
        body = request["body"] if isinstance(request["body"], str) else json.dumps(request["body"])
        response.requests.add(**{**request, "body": body})
    for skipped in found.skipped:
        response.skipped.add(**skipped, is_failure=skipped["message_id"] in found.failures)
    for warning in found.warnings:
        response.warnings.add(**warning)
    return response


def _vendor_list(found: VendorList) -> dest.VendorList:
    return dest.VendorList(id=found.id, display_name=found.name, size=found.size)


def _destination(config: DestinationConfig) -> dest.Destination:
    return dest.Destination(
        name=config.name,
        display_name=config.display_name,
        connector=config.connector,
        settings=config.masked,
        state=dest.DestinationState.ValueType(config.state),
        state_reason=config.state_reason,
        create_time=time_message(config.created_us),
        update_time=time_message(config.updated_us),
        etag=etag(config.revision),
        required_consents=config.required_consents,
        alert_hook=hook_message(config),
    )
