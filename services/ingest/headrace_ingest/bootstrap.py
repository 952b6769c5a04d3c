"""Wires the ingest service; the only place that does."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from headrace.api.common.v1.erasure_service_pb2_grpc import add_ErasureServiceServicer_to_server
from headrace.api.ingest.v1.ingest_service_pb2_grpc import add_IngestServiceServicer_to_server
from headrace.api.ingest.v1.source_service_pb2_grpc import add_SourceServiceServicer_to_server
from headrace.domain.ids import new_time_ordered_id
from headrace.rpc.auth import ChainAuthenticator, authenticator
from headrace.rpc.channel import connect as connect_channel
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager
from headrace.rpc.server import Hosted, serving
from headrace.service import Running, background
from headrace.storage.mongo import client as mongo
from headrace.storage.mongo.watch import StoreWatch
from headrace.storage.sealing import Sealer
from headrace.storage.streams import client as streams
from headrace.telemetry.metrics import gauge_callback
from headrace_ingest.auth import WriteKeyAuthenticator
from headrace_ingest.committer import Committer
from headrace_ingest.countries import Countries
from headrace_ingest.dispatcher import Dispatcher, Streams
from headrace_ingest.erasure import Eraser
from headrace_ingest.erasure_servicer import erasure_servicer
from headrace_ingest.http import HttpApp
from headrace_ingest.http_requests import Bodies
from headrace_ingest.http_server import http_serving
from headrace_ingest.ingest_servicer import IngestServicer
from headrace_ingest.intake import Intake
from headrace_ingest.location import networks_in
from headrace_ingest.received import Received
from headrace_ingest.settings import Settings
from headrace_ingest.source_handlers import SourceHandlers
from headrace_ingest.source_servicer import SourceServicer
from headrace_ingest.sources import SecretBox, SourceCache
from headrace_ingest.sweeper import Sweeper
from headrace_ingest.tombstones import Tombstones


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Running]:
    """Serve inside the block; at its end drain in the order of the events' way.

    First no new requests, then those in flight finish, then what waits is committed and sent on.
    """
    async with AsyncExitStack() as stack:
        timeout_ms = int(settings.commit_timeout_seconds * 1000)
        client = mongo.connect(settings.mongo_url, driver=settings.mongo_driver, timeout_ms=timeout_ms)
        stack.push_async_callback(mongo.close, client)
        db = client[settings.mongo_database]
        redis = streams.connect(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        workspace_channel = connect_channel(settings.workspace_address, settings)
        stack.push_async_callback(lambda: workspace_channel.close(None))

        events = Streams(redis, partitions=settings.event_partitions, backlog=settings.stream_backlog)
        dispatcher = Dispatcher(events)
        dispatching = asyncio.create_task(dispatcher.run(), name="dispatcher")
        stack.push_async_callback(_finish, dispatcher, dispatching)
        committer = Committer(
            db,
            partitions=settings.event_partitions,
            on_committed=dispatcher.offer,
            linger_s=settings.commit_linger_seconds,
            max_events=settings.commit_max_events,
            parallel=settings.commit_parallel,
            timeout_s=settings.commit_timeout_seconds,
            queue_max=settings.queue_max_events,
        )
        committer.start()
        stack.push_async_callback(committer.close)
        loops = await stack.enter_async_context(background())
        sweeper = Sweeper(
            db,
            redis,
            events,
            dispatcher,
            name=f"{socket.gethostname()}:{os.getpid()}:{new_time_ordered_id()}",
            every_s=settings.sweep_seconds,
            grace_s=settings.sweep_grace_seconds,
            keep_days=settings.segment_days,
        )
        loops.start("sweeper", sweeper.run)
        watch = StoreWatch(client)
        await watch.look()
        loops.start("store_watch", watch.run)
        draining = False

        limits = settings.limits()
        countries = await _countries(settings)
        if countries is not None:
            loops.start("country_table", countries.follow_file)
        country_of = countries.country_of if countries is not None else None
        sources = SourceCache(db, ttl_s=settings.source_cache_seconds)
        secrets = SecretBox(settings.master_key.get_secret_value())
        identity_channel = connect_channel(settings.identity_address, settings)
        stack.push_async_callback(lambda: identity_channel.close(None))
        sealer = Sealer(settings.master_key.get_secret_value())
        tombstones = Tombstones(identity_channel, sealer, every_s=settings.tombstone_seconds)
        loops.start("tombstones", tombstones.run)
        intake = Intake(
            committer,
            limits=limits,
            raw_message_days=settings.raw_message_days,
            rejected_body_bytes=settings.rejected_body_bytes,
            is_erased=tombstones.refuses,
            speaks_of_erased=tombstones.speaks_of,
            country_of=country_of,
        )
        bodies = Bodies(limit=limits.batch_bytes, seconds=settings.body_seconds, in_work_max=settings.queue_max_bytes)
        _gauges(committer, bodies, sweeper)

        def is_ready() -> bool:
            return watch.reachable and not draining

        ingest = IngestServicer(intake, sources)
        management = SourceServicer(
            SourceHandlers(db, sources, secrets),
            Received(db, committer, sources, limits, tombstones.refuses, country_of),
            secrets=secrets,
            request_ids=RequestIds(db),
            pager=Pager(settings.service_token.get_secret_value()),
        )
        erasure = erasure_servicer(Eraser(db, redis, event_partitions=settings.event_partitions))
        grpc_address = await stack.enter_async_context(
            serving(
                [
                    Hosted(
                        "headrace.api.ingest.v1.IngestService",
                        lambda server: add_IngestServiceServicer_to_server(ingest, server),
                    ),
                    Hosted(
                        "headrace.api.ingest.v1.SourceService",
                        lambda server: add_SourceServiceServicer_to_server(management, server),
                    ),
                    Hosted(
                        "headrace.api.common.v1.ErasureService",
                        lambda server: add_ErasureServiceServicer_to_server(erasure, server),
                    ),
                ],
                authenticator=ChainAuthenticator(
                    [WriteKeyAuthenticator(sources), authenticator(settings, workspace_channel)]
                ),
                settings=settings,
                is_ready=is_ready,
            )
        )
        proxies = networks_in(settings.trusted_proxies)
        app = HttpApp(
            intake,
            sources,
            bodies,
            is_ready=is_ready,
            public_url=settings.public_url,
            trusts_proxies=bool(proxies),
        )
        http_address = await stack.enter_async_context(
            http_serving(
                app,
                host=settings.host,
                port=settings.http_port,
                drain_s=settings.drain_seconds,
                trusted_proxies=proxies,
            )
        )
        try:
            yield Running(grpc_address, http_address)
        finally:
            draining = True


async def _countries(settings: Settings) -> Countries | None:
    """The table of countries; None when none is set.

    Raises:
        UnreadableTable: The file cannot be used any more.
    """
    if not settings.country_table:
        return None
    path = Path(settings.country_table)
    countries = await asyncio.to_thread(Countries, path, every_s=settings.country_table_seconds)
    gauge_callback(
        "headrace_ingest_country_table_built",
        "When the country table in use was built, in seconds since 1970.",
        lambda: [(countries.built_s, {})],
    )
    return countries


async def _finish(dispatcher: Dispatcher, dispatching: asyncio.Task[None]) -> None:
    """Send what was committed last; what Redis does not take now stays in the log."""
    dispatcher.close()
    await dispatching


def _gauges(committer: Committer, bodies: Bodies, sweeper: Sweeper) -> None:
    gauge_callback(
        "headrace_ingest_queue_events",
        "Events and messages that wait for a group commit.",
        lambda: [(committer.waiting, {})],
    )
    gauge_callback(
        "headrace_ingest_bytes_in_work", "Bytes of requests that are in work.", lambda: [(bodies.in_work, {})]
    )
    gauge_callback(
        "headrace_ingest_undispatched_age_seconds",
        "Age of the oldest durable segment that is on no stream, in seconds.",
        lambda: [(sweeper.undispatched_age_s, {})],
    )
