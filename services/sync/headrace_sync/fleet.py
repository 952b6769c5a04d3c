"""All destinations that deliver: an outlet and a worker each, following the configuration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from pymongo.errors import PyMongoError

from headrace.api.sync.v1.destination_service_pb2 import DestinationState
from headrace.connector import wire
from headrace.domain.times import SECOND_US, now_us
from headrace.plugins.errors import PluginError, PluginErrorKind
from headrace.storage.sealing import Sealer, SealError
from headrace.telemetry import logs, metrics
from headrace_sync.alerts.sender import Alerts, breaker_opened, unauthorized
from headrace_sync.config import DestinationConfig, SyncConfig, sealing_place
from headrace_sync.deliveries.log_events import LogEvents
from headrace_sync.deliveries.results import Results
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.deliveries.worker import FAR_US, Worker
from headrace_sync.exchanges.recorder import Recorder
from headrace_sync.exchanges.store import ExchangeStore
from headrace_sync.jobs.store import JobStore
from headrace_sync.lists.targets import place_of, with_list
from headrace_sync.mappings.items import ItemBuilder
from headrace_sync.outlets.breaker import BreakerState
from headrace_sync.outlets.http import VendorClient
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.rates import RateLimiter, limits_of
from headrace_sync.outlets.sending import Connector
from headrace_sync.outlets.signing import Signer
from headrace_sync.outlets.tokens import TokenStore
from headrace_sync.registry import Registry, Snapshot
from headrace_sync.settings import Settings
from headrace_sync.store import ConfigStore

log = logs.get_logger(__name__)

OpenConnector = Callable[[str, Mapping[str, object]], Awaitable[Connector]]

_RESTART_AFTER_S = 1.0


class Fleet:
    """The outlets and workers of this process."""

    def __init__(
        self,
        *,
        settings: Settings,
        registry: Registry,
        config_store: ConfigStore,
        store: DeliveryStore,
        items: ItemBuilder,
        events: LogEvents,
        client: VendorClient,
        limiter: RateLimiter,
        connectors: Mapping[str, wire.ConnectorInfo],
        open_connector: OpenConnector,
        sealer: Sealer,
        tokens: TokenStore,
        jobs: JobStore,
        exchanges: ExchangeStore,
        alerts: Alerts,
        owner: str,
    ) -> None:
        """Wire the fleet; `follow` starts it."""
        self._settings = settings
        self._registry = registry
        self._config_store = config_store
        self._store = store
        self._items = items
        self._events = events
        self._client = client
        self._limiter = limiter
        self._connectors = connectors
        self._open_connector = open_connector
        self._sealer = sealer
        self._tokens = tokens
        self._jobs = jobs
        self._exchanges = exchanges
        self._alerts = alerts
        self._owner = owner
        self._outlets: dict[str, tuple[DestinationConfig, Outlet]] = {}
        self._workers: dict[str, tuple[Worker, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._summary: dict[str, tuple[int, int]] = {}
        self._closing = False
        self._silent: set[str] = set()

    def worker(self, destination_key: str) -> Worker | None:
        """The worker of a destination; None when it does not deliver here."""
        found = self._workers.get(destination_key)
        return found[0] if found else None

    def outlet(self, destination_key: str) -> Outlet | None:
        """The outlet of a destination; None when it does not deliver."""
        found = self._outlets.get(destination_key)
        return found[1] if found else None

    def outlet_of(self, sync: SyncConfig) -> Outlet | None:
        """The way to what a sync fills; None when its destination does not deliver."""
        outlet = self.outlet(sync.destination_key)
        return outlet.for_list(sync.list_id) if outlet is not None else None

    def info(self, destination: DestinationConfig) -> wire.ConnectorInfo | None:
        """What a destination's connector is; None when its plugin is not loaded."""
        return self._connectors.get(destination.connector)

    @asynccontextmanager
    async def lent(self, destination: DestinationConfig, *, stopped_too: bool = False) -> AsyncIterator[Outlet | None]:
        """The outlet of a destination inside the block, though no sync may use it; None when it does not deliver.

        Args:
            destination: The destination.
            stopped_too: Also of one that is paused or unauthorized: for what sends nothing.
        """
        own = self.outlet(destination.key)
        info = self.info(destination)
        if own is not None or info is None or not (destination.is_active or stopped_too):
            yield own
            return
        outlet = self._make_outlet(destination, info)
        try:
            yield outlet
        finally:
            await outlet.close()

    def wake(self, destination_key: str) -> None:
        """Let a destination's worker look at the store now."""
        worker = self.worker(destination_key)
        if worker is not None:
            worker.wake()

    def give_back(self, destination_key: str) -> None:
        """Let a destination's worker take again from the store what it holds in memory."""
        worker = self.worker(destination_key)
        if worker is not None:
            self._spawn(worker.give_back())

    def wake_all(self) -> None:
        """Let all workers look at the store now."""
        for worker, _ in list(self._workers.values()):
            worker.wake()

    async def run(self) -> None:
        """Follow the configuration until cancelled."""
        known = Snapshot()
        while True:
            try:
                current = await self._registry.refresh()
                if current is not known:
                    await self.follow(known, current)
                    known = current
            except PyMongoError:
                log.exception("the configuration could not be read")
            await asyncio.sleep(self._settings.config_poll_seconds)

    async def follow(self, before: Snapshot, after: Snapshot) -> None:
        """Start, replace and stop workers so that they fit the configuration."""
        if self._closing:
            return
        wanted = {sync.destination_key for sync in after.syncs.values()}
        active = {key: d for key, d in after.destinations.items() if d.is_active and key in wanted}
        for key, (config, _) in list(self._outlets.items()):
            if active.get(key) != config:
                self._stop(key)
        for key, destination in active.items():
            info = self._connectors.get(destination.connector)
            if key in self._outlets or info is None:
                continue
            self._outlets[key] = (destination, self._make_outlet(destination, info))
            if info.capabilities & {"event_sync", "forwarding"}:
                worker = self._make_worker(destination, self._outlets[key][1])
                self._workers[key] = (worker, asyncio.create_task(self._keep_running(worker)))
            if key in before.destinations:
                # It was stopped or changed: what waits for a later try is tried at once.
                await self._store.wake({"d": key}, now=now_us())
                self.wake(key)
        await self.bring_back()

    async def bring_back(self) -> None:
        """Let what was put off while its sync was paused be tried, of syncs that are paused no more.

        What was put off just after its sync was resumed, or is to be brought back by a process that ended, is found by
        whoever asks next.
        """
        going_on: dict[str, list[str]] = {}
        for key, sync in self._registry.current.syncs.items():
            if not sync.paused and sync.destination_key in self._workers:
                going_on.setdefault(sync.destination_key, []).append(key)
        now = now_us()
        for key, syncs in going_on.items():
            if await self._store.wake({"d": key, "k": {"$in": syncs}, "na": {"$gt": now + FAR_US // 2}}, now=now):
                self.wake(key)

    async def close(self) -> None:
        """Finish what is being sent, give everything else back, stop."""
        self._closing = True
        for key in list(self._outlets):
            self._stop(key)
        if self._ending:
            await asyncio.wait(self._ending, timeout=self._settings.drain_seconds + 5)

    async def watch_breakers(self) -> None:
        """Tell of destinations that do not answer."""
        now = now_us()
        for destination, outlet in list(self._outlets.values()):
            if outlet.breaker.state(now) is BreakerState.CLOSED:
                self._silent.discard(destination.key)
            elif destination.key not in self._silent:
                await self._alerts.add(destination.key, breaker_opened(destination.name, now))
                self._silent.add(destination.key)

    async def measure(self) -> None:
        """Read how much waits, for the metrics."""
        syncs, summary = self._registry.current.syncs, dict[str, tuple[int, int]]()
        found = await self._store.waiting_summary(list(syncs)) if syncs else {}
        for sync_key, (count, planned_us) in found.items():
            key = syncs[sync_key].destination_key
            before, oldest_us = summary.get(key, (0, planned_us))
            summary[key] = (before + count, min(oldest_us, planned_us))
        self._summary = summary

    def register_metrics(self) -> None:
        """Let the metrics endpoint show waiting deliveries and breakers."""
        metrics.gauge_callback("headrace_deliveries_waiting", "Deliveries that wait, by connector.", self._read_waiting)
        metrics.gauge_callback(
            "headrace_oldest_waiting_seconds",
            "Age of the oldest waiting delivery in seconds, by connector.",
            self._ages,
        )
        metrics.gauge_callback(
            "headrace_breakers", "Destinations by connector and state of their breaker.", self._read_breakers
        )

    def _read_waiting(self) -> list[tuple[float, Mapping[str, str | int | bool]]]:
        sums: dict[str, int] = {}
        for key, (count, _) in self._summary.items():
            connector = self._connector_of(key)
            sums[connector] = sums.get(connector, 0) + count
        return [(count, {"connector": connector}) for connector, count in sums.items()]

    def _ages(self) -> list[tuple[float, Mapping[str, str | int | bool]]]:
        now, oldest = now_us(), dict[str, int]()
        for key, (_, planned_us) in self._summary.items():
            connector = self._connector_of(key)
            oldest[connector] = min(oldest.get(connector, now), planned_us)
        return [((now - at) / SECOND_US, {"connector": connector}) for connector, at in oldest.items()]

    def _read_breakers(self) -> list[tuple[float, Mapping[str, str | int | bool]]]:
        now, counts = now_us(), dict[tuple[str, str], int]()
        for _, outlet in list(self._outlets.values()):
            label = (outlet.info.name, outlet.breaker.state(now).name.lower())
            counts[label] = counts.get(label, 0) + 1
        return [(n, {"connector": connector, "state": state}) for (connector, state), n in counts.items()]

    def _connector_of(self, destination_key: str) -> str:
        destination = self._registry.current.destinations.get(destination_key)
        return destination.connector if destination else "unknown"

    def _make_outlet(self, destination: DestinationConfig, info: wire.ConnectorInfo) -> Outlet:
        def read_settings() -> dict[str, Any]:
            try:
                text = self._sealer.open(destination.sealed, sealing_place(destination.key))
            except SealError as error:
                raise PluginError(PluginErrorKind.LOAD, info.plugin, f"the settings cannot be read: {error}") from None
            return msgspec.json.decode(text, type=dict[str, Any])

        async def open_connector() -> Connector:
            return await self._open_connector(destination.connector, read_settings())

        async def open_for_list(list_id: str) -> Connector:
            return await self._open_connector(destination.connector, with_list(info, read_settings(), list_id))

        async def halt(reason: str) -> None:
            # Why is stored with the destination: it may be the vendor's own words, and those may name a person.
            log.warning("a destination is stopped", destination=destination.name)
            self._spawn(self._store_halt(destination, reason))

        try:
            limits = limits_of(info, destination.key, read_settings())
        except PluginError:  # opening the connector says so
            limits = []
        return Outlet(
            info=info,
            open_connector=open_connector,
            client=self._client,
            limiter=self._limiter,
            limits=limits,
            signer=Signer(destination.key, info.auth, read_settings, self._tokens),
            halt=halt,
            recorder=Recorder(self._exchanges, destination.key, every_s=self._settings.delivery_log_every_seconds),
            required_consents=destination.required_consents,
            consents_changed_us=destination.consents_changed_us,
            place=place_of(info, destination),
            open_for_list=open_for_list if info.list_setting else None,
        )

    async def _store_halt(self, destination: DestinationConfig, reason: str) -> None:
        """Write down that a destination is stopped, unless it was changed meanwhile."""
        alert = unauthorized(destination, reason)
        while not self._closing:
            try:
                await self._alerts.add(destination.key, alert)
                await self._config_store.set_destination_state(
                    destination,
                    state=DestinationState.DESTINATION_STATE_UNAUTHORIZED,
                    reason=reason,
                    now_us=now_us(),
                )
            except PyMongoError:
                log.exception("the state of a destination could not be stored yet", destination=destination.name)
                await asyncio.sleep(_RESTART_AFTER_S)
            else:
                return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background, until the end of draining."""
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _make_worker(self, destination: DestinationConfig, outlet: Outlet) -> Worker:
        settings, key, begins_us = self._settings, destination.key, destination.updated_us
        return Worker(
            key=key,
            outlet=outlet,
            store=self._store,
            items=self._items,
            load_events=self._events.load,
            sync_of=self._sync_of,
            owner=self._owner,
            queue_size=settings.delivery_queue,
            lease_s=settings.delivery_lease_seconds,
            poll_s=settings.delivery_poll_seconds,
            results=Results(self._store, outlet.info, settings.plugin_attempts, begins_us),
            jobs=self._jobs,
            begins_us=begins_us,
        )

    def _sync_of(self, sync_key: str) -> SyncConfig | None:
        return self._registry.current.syncs.get(sync_key)

    async def _keep_running(self, worker: Worker) -> None:
        while True:
            try:
                await worker.run()
            except Exception:
                log.exception("a delivery worker failed and starts again", connector=worker.outlet.info.name)
                await asyncio.sleep(_RESTART_AFTER_S)

    def _stop(self, key: str) -> None:
        """End a destination's worker in the background: others are not to wait for it."""
        _, outlet = self._outlets.pop(key)
        running = self._workers.pop(key, None)

        async def end() -> None:
            if running is not None:
                await running[0].drain(running[1], self._settings.drain_seconds)
            await outlet.close()

        self._spawn(end())
