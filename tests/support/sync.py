"""What the sync service talks to, in memory behind real protocols: identity, audiences, vendors."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from aiohttp import web
from google.protobuf import field_mask_pb2
from headrace_sync.settings import Settings

from headrace.api.audience.v1.audience_pb2 import (
    Audience,
    AudienceState,
    Member,
    MembershipChange,
    MembershipChangeBatch,
)
from headrace.api.audience.v1.audience_service_pb2 import (
    GetAudienceRequest,
    GetAudienceResponse,
    ListMembershipChangesRequest,
    ListMembershipChangesResponse,
    ListMembersRequest,
    ListMembersResponse,
)
from headrace.api.audience.v1.audience_service_pb2_grpc import (
    AudienceServiceServicer,
    add_AudienceServiceServicer_to_server,
)
from headrace.api.common.v1.event_pb2 import Identifier
from headrace.api.identity.v1.profile_pb2 import ConsentStatus, Profile, ResolvedEvent, Trait
from headrace.api.identity.v1.profile_service_pb2 import (
    BatchGetProfilesRequest,
    BatchGetProfilesResponse,
    ListProfilesRequest,
    ListProfilesResponse,
    ProfileResult,
)
from headrace.api.identity.v1.profile_service_pb2_grpc import (
    ProfileServiceServicer,
    add_ProfileServiceServicer_to_server,
)
from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.destination_service_pb2_grpc import DestinationServiceStub
from headrace.api.sync.v1.sync_service_pb2_grpc import SyncServiceStub
from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import now_us
from headrace.rpc import channel
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from tests.support import resolved

WORKSPACE = "acme"
PARENT = f"workspaces/{WORKSPACE}"
AUDIENCE = f"{PARENT}/audiences/buyers"
ACCOUNTS = f"{PARENT}/audiences/accounts"
"""An audience of groups."""
PARTITIONS = 2
PLUGINS = "webhook"
"""What most tests need: loading all that are installed takes seconds."""


class People(ProfileServiceServicer):
    """Identity: profiles by id, merges by pointer."""

    def __init__(self) -> None:
        self.profiles: dict[str, Profile] = {}
        self.into: dict[str, str] = {}
        self.calls = 0

    def put(self, profile_id: str, **traits: Any) -> None:
        """A profile whose traits email and phone are identifiers too."""
        self.profiles[profile_id] = Profile(
            name=f"{PARENT}/profiles/{profile_id}",
            identifiers=[Identifier(namespace=n, value=str(traits[n])) for n in ("email", "phone") if n in traits],
            traits=[Trait(name=name, value=json.dumps(value).encode()) for name, value in traits.items()],
        )

    def say(self, profile_id: str, **purposes: bool) -> None:
        """What a person says about purposes, by an event of this moment."""
        profile = self.profiles[profile_id]
        for purpose, granted in purposes.items():
            for known in [c for c in profile.consents if c.purpose == purpose]:
                profile.consents.remove(known)
            status = ConsentStatus.CONSENT_STATUS_GRANTED if granted else ConsentStatus.CONSENT_STATUS_DENIED
            profile.consents.add(purpose=purpose, status=status, source_id="web", message_id="said", timestamp_us=7)

    def merge(self, loser: str, survivor: str) -> None:
        self.into[loser] = survivor

    async def ListProfiles(self, request: ListProfilesRequest, context: Any) -> ListProfilesResponse:
        assert request.parent == PARENT
        return ListProfilesResponse(profiles=list(self.profiles.values())[: request.page_size])

    async def BatchGetProfiles(self, request: BatchGetProfilesRequest, context: Any) -> BatchGetProfilesResponse:
        self.calls += 1
        assert request.parent == PARENT
        assert 1 <= len(request.profile_ids) <= 1_000
        return BatchGetProfilesResponse(
            results=[
                ProfileResult(profile_id=id, profile=self.profiles.get(self.into.get(id, id)))
                for id in request.profile_ids
            ]
        )


class Buyers(AudienceServiceServicer):
    """The audience service with one audience: members, versions, recorded changes, and the stream of changes."""

    def __init__(self, redis: streams.Redis) -> None:
        self.redis = redis
        self.state = AudienceState.AUDIENCE_STATE_ACTIVE
        self.member: dict[str, bool] = {}
        self.version: dict[str, int] = {}
        self.changed: dict[str, int] = {}
        self.history: list[MembershipChange] = []

    def change(self, profile_id: str, member: bool, *, cause: str = "event", merged_into: str = "") -> MembershipChange:
        """A change as it is recorded, not yet told."""
        self.member[profile_id] = member
        self.version[profile_id] = self.version.get(profile_id, 0) + 1
        self.changed[profile_id] = now_us()
        made = MembershipChange(
            audience_id="buyers",
            profile_id=profile_id,
            member=member,
            version=self.version[profile_id],
            effective_at_us=self.changed[profile_id],
            changed_at_us=self.changed[profile_id],
            cause=cause,
            merged_into=merged_into,
        )
        self.history.append(made)
        return made

    async def tell(self, *changes: MembershipChange) -> None:
        """Send changes to the stream."""
        batch = MembershipChangeBatch(workspace_id=WORKSPACE, changes=changes)
        await streams.send(self.redis, [(names.CHANGES, batch.SerializeToString())])

    async def enter(self, *profile_ids: str) -> None:
        await self.tell(*(self.change(p, True) for p in profile_ids))

    async def leave(self, *profile_ids: str) -> None:
        await self.tell(*(self.change(p, False) for p in profile_ids))

    @property
    def members(self) -> list[str]:
        return sorted(p for p, member in self.member.items() if member)

    async def GetAudience(self, request: GetAudienceRequest, context: Any) -> GetAudienceResponse:
        if request.name == ACCOUNTS:
            of_groups = '{"of": "groups", "where": {"trait": "plan", "eq": "pro"}}'
            return GetAudienceResponse(audience=Audience(name=ACCOUNTS, definition=of_groups, state=self.state))
        if request.name != AUDIENCE:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such audience")
        audience = Audience(
            name=AUDIENCE,
            display_name="Buyers",
            definition='{"where": {"event": "Purchased"}}',
            state=self.state,
            size=len(self.members),
        )
        return GetAudienceResponse(audience=audience)

    async def ListMembers(self, request: ListMembersRequest, context: Any) -> ListMembersResponse:
        assert request.parent == AUDIENCE
        page = [p for p in self.members if p > request.page_token][: request.page_size]
        members = [Member(profile_id=p, since_us=self.changed[p], version=self.version[p]) for p in page]
        more = bool(page) and page[-1] != self.members[-1]
        return ListMembersResponse(members=members, next_page_token=page[-1] if more else "")

    async def ListMembershipChanges(
        self, request: ListMembershipChangesRequest, context: Any
    ) -> ListMembershipChangesResponse:
        assert request.parent == AUDIENCE
        newest_first = self.history[::-1]
        start = int(request.page_token or 0)
        end = start + request.page_size
        token = str(end) if end < len(newest_first) else ""
        return ListMembershipChangesResponse(changes=newest_first[start:end], next_page_token=token)


Answer = Callable[[web.Request, Any], Awaitable[web.StreamResponse | None]]


class Hooks:
    """A receiver of webhooks: knows what it accepted, by Idempotency-Key, and can be made to misbehave.

    `answer(request, body)` may give another answer than 200; what it answers is not counted as accepted.
    """

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        self.bodies: dict[str, Any] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.attempts: Counter[str] = Counter()
        self.answer: Answer | None = None
        self.url = ""

    @property
    def total_attempts(self) -> int:
        return sum(self.attempts.values())

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        events = body if isinstance(body, list) else [body]
        ids = [event["message_id"] for event in events]
        self.attempts.update(ids)
        if self.answer is not None:
            answer = await self.answer(request, body)
            if answer is not None:
                return answer
        self.accept(request, events)
        return web.json_response({"ok": True})

    def accept(self, request: web.Request, events: Sequence[Any]) -> None:
        for event in events:
            self.accepted[event["message_id"]] += 1
            self.bodies[event["message_id"]] = event
            self.headers[event["message_id"]] = {k.lower(): v for k, v in request.headers.items()}


@asynccontextmanager
async def hooks() -> AsyncIterator[Hooks]:
    """A receiver that serves on a free port."""
    receiver = Hooks()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


class Others:
    """The services beside sync."""

    def __init__(self, redis: streams.Redis) -> None:
        self.people = People()  # type: ignore[abstract]  # answers only what sync asks
        self.buyers = Buyers(redis)  # type: ignore[abstract]  # likewise
        self.address = ""


@asynccontextmanager
async def others(redis: streams.Redis) -> AsyncIterator[Others]:
    """Identity and audience, served."""
    found = Others(redis)
    server = grpc.aio.server()
    add_ProfileServiceServicer_to_server(found.people, server)
    add_AudienceServiceServicer_to_server(found.buyers, server)
    found.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield found
    finally:
        await server.stop(None)


class Line(resolved.FakeIdentity):
    """Identity's end of the line: events with segments, resolved and sent on."""

    def make(self, count: int, name: str = "Purchased", profile_id: str = "p1", **more: Any) -> list[ResolvedEvent]:
        """New events of one segment."""
        segment = new_time_ordered_id()
        events = [resolved.event(profile_id, name, **more) for _ in range(count)]
        for index, event in enumerate(events):
            event.event.message_id = f"m-{segment[:12]}-{segment[-6:]}-{index}"
            event.segment_id, event.segment_index = segment, index
        return events

    async def send_new(self, count: int, name: str = "Purchased", profile_id: str = "p1", **more: Any) -> list[str]:
        """Resolve new events; returns their message ids."""
        events = self.make(count, name, profile_id, **more)
        await self.resolve(*events)
        return [event.event.message_id for event in events]


class Api:
    """Calls of a client of the sync service."""

    def __init__(self, opened: grpc.aio.Channel, address: str) -> None:
        self.address = address
        self.destinations = DestinationServiceStub(opened)
        self.syncs = SyncServiceStub(opened)

    async def destination(
        self, id: str, url: str, connector: str = "webhook", *, required_consents: Sequence[str] = (), **settings: Any
    ) -> str:
        """Make a destination; returns its name."""
        answer = await self.destinations.CreateDestination(
            dest.CreateDestinationRequest(
                parent=PARENT,
                destination_id=id,
                destination=dest.Destination(
                    display_name=id,
                    connector=connector,
                    settings=json.dumps({"url": url, **settings} if url else settings),
                    required_consents=required_consents,
                ),
            )
        )
        return answer.destination.name

    async def require(self, destination: str, *purposes: str) -> None:
        """Change which consents a destination requires."""
        changed = dest.Destination(name=destination, required_consents=purposes)
        await self.destinations.UpdateDestination(
            dest.UpdateDestinationRequest(
                destination=changed, update_mask=field_mask_pb2.FieldMask(paths=["required_consents"])
            )
        )

    async def forwarding(self, id: str, destination: str, **more: Any) -> str:
        """Make a forwarding sync; returns its name."""
        return await self.sync(id, destination, pb.SyncKind.SYNC_KIND_FORWARDING, **more)

    async def sync(self, id: str, destination: str, kind: pb.SyncKind.ValueType, **more: Any) -> str:
        """Make a sync; returns its name."""
        sync = pb.Sync(display_name=id, kind=kind, destination=destination, **more)
        answer = await self.syncs.CreateSync(pb.CreateSyncRequest(parent=PARENT, sync_id=id, sync=sync))
        return answer.sync.name

    async def ledger(self, name: str) -> pb.GetLedgerResponse:
        return await self.syncs.GetLedger(pb.GetLedgerRequest(name=name))

    async def deliveries(self, parent: str, **more: Any) -> list[pb.Delivery]:
        return list(
            (
                await self.syncs.ListDeliveries(pb.ListDeliveriesRequest(parent=parent, page_size=1_000, **more))
            ).deliveries
        )


@asynccontextmanager
async def api(address: str, token: str) -> AsyncIterator[Api]:
    """A client with this token."""
    opened = channel.with_token(address, token)
    try:
        yield Api(opened, address)
    finally:
        await opened.close(None)


def quick_settings(make_settings: Callable[..., Any], found: Others, **more: Any) -> Settings:
    """Settings of a service that polls quickly and may reach this machine."""
    values: dict[str, Any] = {
        "allow_private_destinations": True,
        "plugins": PLUGINS,
        "partitions": PARTITIONS,
        "identity_address": found.address,
        "audience_address": found.address,
        "delivery_poll_seconds": 0.1,
        "delivery_lease_seconds": 60.0,
        "list_debounce_seconds": 0.02,
        "list_pass_seconds": 0.2,
        "config_poll_seconds": 0.1,
        "plan_mark_seconds": 0.2,
        "reconcile_seconds": 600.0,
    }
    settings: Settings = make_settings(Settings, **{**values, **more})
    return settings


async def until(
    check: Callable[[], bool | Awaitable[bool]], what: str, *, within_s: float = 30.0, every_s: float = 0.05
) -> None:
    """Wait until something holds; the time only bounds a failing test."""
    deadline = time.monotonic() + within_s
    while True:
        answer = check()
        if (await answer) if isinstance(answer, Awaitable) else answer:
            return
        assert time.monotonic() < deadline, f"did not happen: {what}"
        await asyncio.sleep(every_s)


async def settled(client: Api, name: str, *, within_s: float = 30.0) -> pb.GetLedgerResponse:
    """Wait until nothing waits and nothing is unaccounted at a sync; returns its ledger."""
    ledger = pb.GetLedgerResponse()

    async def check() -> bool:
        nonlocal ledger
        ledger = await client.ledger(name)
        return ledger.waiting == 0 and ledger.unaccounted == 0

    try:
        await until(check, f"the ledger of {name} settles", within_s=within_s)
    except AssertionError:
        for delivery in await client.deliveries(name):
            if delivery.state == pb.DeliveryState.DELIVERY_STATE_WAITING:
                print(delivery)
        raise
    return ledger


async def count(db: Database, collection: str) -> int:
    return await db[collection].count_documents({})


def once(ids: Iterable[str]) -> Counter[str]:
    """Each of them exactly once."""
    return Counter(ids)
