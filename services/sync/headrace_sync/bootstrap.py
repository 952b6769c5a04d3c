"""Wires the sync service: stores, plugins, workers, passes, servicers. The only place that does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
from pymongo.errors import PyMongoError

from headrace.api.common.v1.erasure_service_pb2_grpc import add_ErasureServiceServicer_to_server
from headrace.api.sync.v1.destination_service_pb2_grpc import add_DestinationServiceServicer_to_server
from headrace.api.sync.v1.sync_service_pb2_grpc import add_SyncServiceServicer_to_server
from headrace.domain.ids import new_time_ordered_id
from headrace.plugins import PluginHost
from headrace.rpc import auth, channel
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager
from headrace.rpc.server import Hosted, serving
from headrace.service import Loops, Running, background
from headrace.storage.mongo import client as mongo
from headrace.storage.sealing import Sealer
from headrace.storage.streams import client as streams
from headrace.telemetry import logs
from headrace_sync.alerts.hooks import Hook, Hooks
from headrace_sync.alerts.sender import Alerts
from headrace_sync.alive import Alive
from headrace_sync.calls.destination_handlers import DestinationHandlers
from headrace_sync.calls.destination_tests import DestinationTests
from headrace_sync.calls.servicer import DestinationServicer, SyncServicer
from headrace_sync.calls.sync_handlers import SyncHandlers
from headrace_sync.calls.sync_lists import SyncLists
from headrace_sync.calls.vendor_handlers import VendorHandlers
from headrace_sync.consumer import ChangesConsumer, ChangeTaker, ResolvedConsumer
from headrace_sync.deliveries.handover import Handover
from headrace_sync.deliveries.log_events import LogEvents
from headrace_sync.deliveries.reassigned import Reassigned
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.erasure.eraser import Eraser
from headrace_sync.erasure.servicer import erasure_servicer
from headrace_sync.erasure.store import ErasureStore
from headrace_sync.exchanges.store import ExchangeStore
from headrace_sync.fleet import Fleet
from headrace_sync.jobs.follower import JobFollower
from headrace_sync.jobs.store import JobStore
from headrace_sync.leases import Leases
from headrace_sync.ledger.accounts import Accounts
from headrace_sync.ledger.reconcile import Reconciler
from headrace_sync.ledger.retention import Retention
from headrace_sync.lists.following import Following
from headrace_sync.lists.runner import Lists
from headrace_sync.lists.store import ListStore
from headrace_sync.mappings.check import MappingChecks
from headrace_sync.mappings.items import ItemBuilder
from headrace_sync.mappings.readiness import ReadinessHandlers
from headrace_sync.outlets.http import VendorClient
from headrace_sync.outlets.rates import RateLimiter
from headrace_sync.outlets.tokens import TokenStore
from headrace_sync.people.audiences import Audiences
from headrace_sync.people.profiles import Profiles
from headrace_sync.people.visits import Visits
from headrace_sync.planning.planner import Planner
from headrace_sync.planning.recovery import Recovery
from headrace_sync.planning.streams import Lag
from headrace_sync.plans.dry_run import DryRuns
from headrace_sync.plans.keeper import PlanKeeper
from headrace_sync.plans.store import PlanStore
from headrace_sync.registry import Registry
from headrace_sync.settings import Settings
from headrace_sync.store import ConfigStore

log = logs.get_logger(__name__)

_BRING_BACK_EVERY_S = 15.0
_MEASURE_EVERY_S = 10.0
_MEASURE_REST = 100
"""How many times as long as measuring takes is rested before the next time."""
_PING_EVERY_S = 1.0


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Running]:
    """Serve inside the block; drain and close at its end.

    Args:
        settings: The service's settings. Indexes must exist.

    Yields:
        Where it can be reached.
    """
    async with contextlib.AsyncExitStack() as stack:
        client = mongo.connect(settings.mongo_url, driver=settings.mongo_driver)
        stack.push_async_callback(mongo.close, client)
        redis = streams.connect(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        host = PluginHost.of(settings.plugin_options())
        stack.push_async_callback(host.close)
        await host.start()
        vendors = VendorClient(allow_private=settings.allow_private_destinations)
        stack.push_async_callback(vendors.close)
        identity, audience, workspace = [
            await stack.enter_async_context(_channel(address, settings))
            for address in (settings.identity_address, settings.audience_address, settings.workspace_address)
        ]
        parts = _Parts(settings, client, redis, host, vendors, identity, audience)
        loops = await stack.enter_async_context(background())
        # Draining ends before the loops are cancelled: what is under way may still finish.
        stack.push_async_callback(parts.close)
        token = settings.service_token.get_secret_value()
        request_ids, pager = RequestIds(parts.db), Pager(token)
        destinations = DestinationServicer(
            parts.destination_handlers,
            parts.vendor_handlers,
            parts.mappings,
            parts.destination_tests,
            request_ids,
            pager,
        )
        syncs = SyncServicer(parts.sync_handlers, parts.readiness, parts.dry_runs, request_ids, pager)
        erasure = erasure_servicer(parts.eraser)
        hosted = [
            Hosted(
                "headrace.api.sync.v1.DestinationService",
                lambda server: add_DestinationServiceServicer_to_server(destinations, server),
            ),
            Hosted("headrace.api.sync.v1.SyncService", lambda server: add_SyncServiceServicer_to_server(syncs, server)),
            Hosted(
                "headrace.api.common.v1.ErasureService",
                lambda server: add_ErasureServiceServicer_to_server(erasure, server),
            ),
        ]
        authenticator = auth.authenticator(settings, workspace)
        address = await stack.enter_async_context(
            serving(hosted, authenticator=authenticator, settings=settings, is_ready=lambda: parts.ready)
        )
        parts.start(loops)
        yield Running(grpc_address=address)


@asynccontextmanager
async def _channel(address: str, settings: Settings) -> AsyncIterator[grpc.aio.Channel]:
    opened = channel.connect(address, settings)
    try:
        yield opened
    finally:
        await opened.close(None)


class _Parts:
    """Everything of the service, wired."""

    def __init__(
        self,
        settings: Settings,
        client: mongo.Client,
        redis: streams.Redis,
        host: PluginHost,
        vendors: VendorClient,
        identity: grpc.aio.Channel,
        audience: grpc.aio.Channel,
    ) -> None:
        self.db = db = client[settings.mongo_database]
        self.ready = False
        owner = new_time_ordered_id()
        config_store, deliveries, list_store = ConfigStore(db), DeliveryStore(db), ListStore(db)
        sealer = Sealer(settings.master_key.get_secret_value())
        audiences = Audiences(audience)
        self.registry = registry = Registry(config_store)
        profiles = Profiles(identity)
        self.mappings = MappingChecks(host, profiles, audiences)
        items = ItemBuilder(profiles, audiences, Visits(db), registry.is_erased)
        leases = Leases(db, owner=owner, ttl_s=settings.lease_seconds)
        tokens, limiter = TokenStore(db, sealer, leases, vendors), RateLimiter(redis)
        jobs = JobStore(db)
        self.exchanges = exchanges = ExchangeStore(db, days=settings.delivery_days)
        self.alerts = alerts = Alerts(
            db,
            vendors,
            leases,
            Hooks(
                Hook(settings.alert_url, settings.alert_secret.get_secret_value()),
                sealer,
                registry.destination,
            ),
        )
        self.fleet = fleet = Fleet(
            settings=settings,
            registry=registry,
            config_store=config_store,
            store=deliveries,
            items=items,
            events=LogEvents(db),
            client=vendors,
            limiter=limiter,
            connectors=host.connectors(),
            open_connector=host.open,
            sealer=sealer,
            tokens=tokens,
            jobs=jobs,
            exchanges=exchanges,
            alerts=alerts,
            owner=owner,
        )
        fleet.register_metrics()
        plans = PlanStore(db)
        following = Following(db, list_store, plans)
        self.lists = lists = Lists(
            registry=registry,
            fleet=fleet,
            lists=list_store,
            items=items,
            leases=leases,
            plans=PlanKeeper(plans, list_store, items, alerts),
            jobs=jobs,
            following=following,
            delete=config_store.delete_sync,
            debounce_s=settings.list_debounce_seconds,
            every_s=settings.list_pass_seconds,
        )
        handover = Handover(deliveries, taker_of=fleet.worker, lease_s=settings.delivery_lease_seconds)
        planner = Planner(deliveries, handover)
        erasures = ErasureStore(db)
        accounts = Accounts(db, deliveries, list_store, audiences)
        reassigned = Reassigned(
            lists=list_store,
            deliveries=deliveries,
            events=LogEvents(db),
            accounts=accounts,
            erasures=erasures,
            wake_list=lists.wake,
            give_back=fleet.give_back,
        )
        self.resolved = ResolvedConsumer(
            redis,
            partitions=settings.partitions,
            owner=owner,
            registry=registry,
            planner=planner,
            lists=list_store,
            reassigned=reassigned,
            wake_list=lists.wake,
        )
        taker = ChangeTaker(list_store, handover, lists.wake)
        self.changes = ChangesConsumer(redis, owner=owner, registry=registry, taker=taker)
        self.lag = Lag(redis, settings.partitions)
        self.recovery = Recovery(
            db=db,
            redis=redis,
            partitions=settings.partitions,
            leases=leases,
            registry=registry,
            planner=planner,
            consumer=self.resolved,
            reassigned=reassigned,
            accounts=accounts,
            wake_workers=fleet.wake_all,
            mark_every_s=settings.plan_mark_seconds,
            check_every_s=settings.reconcile_seconds,
        )
        self.eraser = Eraser(
            config_store=config_store,
            registry=registry,
            erasures=erasures,
            lists=list_store,
            new_leases=lambda: Leases(db, owner=new_time_ordered_id(), ttl_s=settings.lease_seconds),
            fleet=fleet,
            items=items,
            jobs=jobs,
            exchanges=exchanges,
        )
        self.job_follower = JobFollower(
            jobs=jobs,
            fleet=fleet,
            deliveries=deliveries,
            lists=list_store,
            leases=Leases(db, owner=new_time_ordered_id(), ttl_s=settings.lease_seconds),
            owner=owner,
            plugin_attempts=settings.plugin_attempts,
            following=following,
        )
        self.reconciler = Reconciler(
            db=db,
            leases=leases,
            registry=registry,
            audiences=audiences,
            lists=list_store,
            deliveries=deliveries,
            handover=handover,
            accounts=accounts,
            wake_list=lists.wake,
            every_s=settings.reconcile_seconds,
            look_every_s=settings.config_poll_seconds,
        )
        self.retention = Retention(db, config_store, registry, accounts, leases, days=settings.delivery_days)
        self.alive = Alive(
            db=db,
            owner=owner,
            deliveries=deliveries,
            jobs=jobs,
            registry=registry,
            wake_workers=fleet.wake_all,
            ttl_s=1.5 * settings.lease_seconds,
        )
        self.destination_handlers = DestinationHandlers(
            config_store, host, sealer, allow_private=settings.allow_private_destinations
        )
        self.destination_tests = DestinationTests(self.destination_handlers, host)
        self.vendor_handlers = VendorHandlers(host, sealer, tokens, vendors, limiter)
        self.readiness = ReadinessHandlers(config_store, audiences, fleet, items)
        self.dry_runs = DryRuns(
            store=config_store,
            audiences=audiences,
            fleet=fleet,
            items=items,
            lists=list_store,
            deliveries=deliveries,
            profiles=profiles,
            events=LogEvents(db),
            following=following,
        )
        self.sync_handlers = SyncHandlers(
            store=config_store,
            connectors=host.connectors,
            audiences=audiences,
            deliveries=deliveries,
            lists=list_store,
            accounts=accounts,
            plans=plans,
            exchanges=exchanges,
            mappings=self.mappings,
            sync_lists=SyncLists(host, sealer),
            wake_list=lists.wake,
            wake_destination=fleet.wake,
        )

    async def close(self) -> None:
        """Drain."""
        await self.fleet.close()
        try:
            await self.alive.leave()
        except PyMongoError:
            log.warning("the store did not take the farewell: others find out by themselves")

    def start(self, loops: Loops) -> None:
        """Start everything that runs by itself."""
        running: dict[str, Callable[[], Awaitable[None]]] = {
            "configuration": self.fleet.run,
            "resolved": self.resolved.run,
            "changes": self.changes.run,
            "lists": self.lists.run,
            "jobs": self.job_follower.run,
            "exchanges": self.exchanges.run,
            "recovery": self.recovery.run,
            "alive": self.alive.run,
            "reconcile": self.reconciler.run,
            "measure": self._measure,
            "alerts": self.alerts.run,
            "retention": self.retention.run,
            "breakers": self._watch_breakers,
            "resumed": self._bring_back,
            "lag": self.lag.run,
            "store_watch": self._watch,
        }
        for name, loop in running.items():
            loops.start(name, loop)

    async def _measure(self) -> None:
        while True:
            began = time.monotonic()
            await self.fleet.measure()
            # What waits at destinations that take nothing may be a lot: counting it is not to cost the others.
            await asyncio.sleep(max(_MEASURE_EVERY_S, _MEASURE_REST * (time.monotonic() - began)))

    async def _watch_breakers(self) -> None:
        while True:
            await self.fleet.watch_breakers()
            await asyncio.sleep(_PING_EVERY_S)

    async def _bring_back(self) -> None:
        while True:
            await self.fleet.bring_back()
            await asyncio.sleep(_BRING_BACK_EVERY_S)

    async def _watch(self) -> None:
        """Know whether the store answers: without it nothing can be done."""
        while True:
            try:
                await self.db.command("ping")
                self.ready = True
            except PyMongoError:
                self.ready = False
            await asyncio.sleep(_PING_EVERY_S)
