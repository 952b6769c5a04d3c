"""Wires the audience service: stores, archive, worker, gRPC server, loops. The only place that does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.api.audience.v1.audience_service_pb2_grpc import add_AudienceServiceServicer_to_server
from headrace.api.common.v1.erasure_service_pb2_grpc import add_ErasureServiceServicer_to_server
from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import SECOND_US
from headrace.rpc import auth
from headrace.rpc.channel import connect
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager
from headrace.rpc.server import Hosted, serving
from headrace.service import Running, background
from headrace.storage.mongo import client as mongo
from headrace.storage.streams import client as streams
from headrace_audience.answers.explaining import Explaining
from headrace_audience.answers.history import Histories
from headrace_audience.answers.outlook import Outlooks
from headrace_audience.answers.preview import Preview
from headrace_audience.archive.files import Files
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.archive.registry import Registry
from headrace_audience.archiving import Archiving, SampleCheck
from headrace_audience.calls.handlers import Audiences
from headrace_audience.calls.servicer import AudienceServicer
from headrace_audience.calls.watching import Watching
from headrace_audience.checks.repairs import Repairs
from headrace_audience.checks.verify import Verifier
from headrace_audience.checks.verify_batch import BatchVerifier
from headrace_audience.definitions.computed_traits import ComputedTraits
from headrace_audience.definitions.following import ComputedFollower
from headrace_audience.filling.versions import Limits
from headrace_audience.partitions.leases import Leases
from headrace_audience.people.erasure import Eraser
from headrace_audience.people.erasure_servicer import erasure_servicer
from headrace_audience.settings import Settings
from headrace_audience.worker import Worker

SERVICE = "headrace.api.audience.v1.AudienceService"
ERASURE_SERVICE = "headrace.api.common.v1.ErasureService"


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Running]:
    """Serve inside the block; drain, store snapshots and close at its end.

    Args:
        settings: The service's settings. Indexes must exist.

    Yields:
        Where it can be reached.
    """
    client = mongo.connect(settings.mongo_url, driver=settings.mongo_driver)
    redis = streams.connect(settings.redis_url)
    workspaces = connect(settings.workspace_address, settings)
    identity = connect(settings.identity_address, settings)
    try:
        db = client[settings.mongo_database]
        replica = new_time_ordered_id()
        partition_leases = Leases(
            db,
            group="partition",
            count=settings.partitions,
            owner=replica,
            ttl_s=settings.audience_lease_seconds,
        )
        archive_leases = Leases(db, group="archive", count=1, owner=replica, ttl_s=settings.audience_lease_seconds)
        registry = Registry(client, db)
        files = Files(settings.archive_dir)
        reader = ArchiveReader(
            db,
            registry,
            files,
            margin_us=int(settings.archive_margin_seconds * SECOND_US),
            threads=settings.archive_query_threads,
            memory_mb=settings.archive_query_memory_mb,
        )
        worker = Worker(client, db, redis, partition_leases, reader, settings)
        computed_traits = ComputedTraits(identity)
        audiences = Audiences(client, db, computed_traits, settings.partitions, on_change=worker.wake)
        follower = ComputedFollower(db, computed_traits, audiences, settings.audience_computed_seconds)
        batch = BatchVerifier(db, reader, int(settings.archive_margin_seconds * SECOND_US))
        verifier = Verifier(db, audiences, reader, Repairs(db, settings.partitions), batch)
        servicer = AudienceServicer(
            audiences,
            Outlooks(db, worker, reader),
            Preview(db, audiences, computed_traits, reader),
            verifier,
            Explaining(db, audiences, reader),
            Histories(db, audiences),
            Limits(settings.audience_confirm_share, settings.audience_confirm_members),
            Watching(db, settings.partitions),
            Pager(settings.service_token.get_secret_value()),
            RequestIds(db),
        )
        archiving = Archiving(db, registry, files, archive_leases, settings)
        check = SampleCheck(
            db, verifier, archive_leases, settings.audience_check_seconds, repair=settings.audience_repair
        )
        erasure = erasure_servicer(Eraser(db, redis, partitions=settings.partitions))
        hosted = [
            Hosted(SERVICE, lambda server: add_AudienceServiceServicer_to_server(servicer, server)),
            Hosted(ERASURE_SERVICE, lambda server: add_ErasureServiceServicer_to_server(erasure, server)),
        ]
        # The worker ends before the leases do, so that its snapshots are stored under them.
        async with (
            background() as lease_loops,
            background() as loops,
            serving(
                hosted,
                authenticator=auth.authenticator(settings, workspaces),
                settings=settings,
                is_ready=lambda: partition_leases.is_alive,
            ) as address,
        ):
            lease_loops.start("partition_leases", partition_leases.run)
            lease_loops.start("archive_leases", archive_leases.run)
            loops.start("worker", worker.run)
            loops.start("archive", archiving.run)
            loops.start("sample_check", check.run)
            loops.start("computed_traits", follower.run)
            yield Running(grpc_address=address)
    finally:
        await workspaces.close(grace=None)
        await identity.close(grace=None)
        await redis.aclose()
        await mongo.close(client)
