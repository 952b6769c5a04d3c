"""Wires the identity service: lanes over the streams, ProfileService. The only place that does."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from headrace.api.identity.v1.computed_trait_service_pb2_grpc import add_ComputedTraitServiceServicer_to_server
from headrace.api.identity.v1.group_service_pb2_grpc import add_GroupServiceServicer_to_server
from headrace.api.identity.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server
from headrace.api.identity.v1.profile_service_pb2_grpc import add_ProfileServiceServicer_to_server
from headrace.domain.times import DAY_US, HOUR_US
from headrace.rpc.auth import authenticator
from headrace.rpc.channel import connect
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager
from headrace.rpc.server import Hosted, serving
from headrace.service import Running, background
from headrace.storage.mongo import client as mongo
from headrace.storage.sealing import Sealer
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from headrace_identity.alarms import Alarms
from headrace_identity.calls.computed_servicer import ComputedTraitServicer
from headrace_identity.calls.deletion_servicer import DeletionCalls
from headrace_identity.calls.graph_servicer import GraphCalls
from headrace_identity.calls.group_servicer import GroupServicer
from headrace_identity.calls.identity_handlers import Corrections
from headrace_identity.calls.identity_servicer import IdentityServicer
from headrace_identity.calls.link_servicer import LinkCalls
from headrace_identity.calls.people_calls import PeopleCalls
from headrace_identity.calls.profile_calls import ProfileCalls
from headrace_identity.calls.rules_servicer import RulesCalls
from headrace_identity.calls.servicer import ProfileServicer
from headrace_identity.computed.filling import Filler
from headrace_identity.computed.reading import ComputedValues
from headrace_identity.computed.store import ComputedTraitStore
from headrace_identity.consumer import Lane, Sending
from headrace_identity.deletion.keys import KeyRing
from headrace_identity.deletion.refusing import Refusals
from headrace_identity.deletion.removal import Remover
from headrace_identity.deletion.requests import Requests
from headrace_identity.deletion.runner import Patience, Runner
from headrace_identity.deletion.telling import Services
from headrace_identity.deletion.tombstones import Tombstones
from headrace_identity.explaining.graph_view import GraphView
from headrace_identity.groups.store import GroupReader
from headrace_identity.links_store import LinksStore
from headrace_identity.outbox import Outbox
from headrace_identity.people.finder import Finder
from headrace_identity.people.history import Histories
from headrace_identity.people.journey import Journeys
from headrace_identity.people.profiles import Profiles
from headrace_identity.people.view import Viewer
from headrace_identity.people.watching import Watching
from headrace_identity.reassign.reassigner import Reassigner
from headrace_identity.rebuilds.runner import Rebuilder
from headrace_identity.rebuilds.store import RebuildStore
from headrace_identity.rules_store import RulesStore
from headrace_identity.settings import Settings
from headrace_identity.watch import Watch
from headrace_identity.worker import Worker
from headrace_identity.workspaces import Workspaces


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Running]:
    """Serve inside the block; drain and close at its end.

    Args:
        settings: The service's settings. Indexes must exist.

    Yields:
        Where it can be reached.
    """
    async with AsyncExitStack() as stack:
        client = mongo.connect(settings.mongo_url, driver=settings.mongo_driver)
        stack.push_async_callback(mongo.close, client)
        db = client[settings.mongo_database]
        redis = streams.connect(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        workspace, ingest, audience, sync = [
            await stack.enter_async_context(connect(address, settings))
            for address in (
                settings.workspace_address,
                settings.ingest_address,
                settings.audience_address,
                settings.sync_address,
            )
        ]
        profiles = Profiles(db)
        pager = Pager(settings.service_token.get_secret_value())
        histories = Histories(db)
        journeys = Journeys(db, profiles, ingest=ingest, audience=audience, sync=sync)
        watching = Watching(db, redis, settings.partitions, settings.resolved_stream_entries)
        outbox = Outbox(db, redis, _sending(settings))
        keys = KeyRing(db, Sealer(settings.master_key.get_secret_value()))
        tombstones = Tombstones(db, keys)
        refusals = Refusals(db, ingest)
        wait_us = int(settings.deletion_wait_hours * HOUR_US)
        deletions = Requests(db, keys, tombstones, wait_us=wait_us)
        runner = Runner(
            db,
            keys,
            tombstones,
            Remover(db, committed=outbox.wake),
            Services({"sync": sync, "audience": audience, "ingest": ingest}),
            Patience(settings.deletion_seconds, int(settings.deletion_give_up_days * DAY_US)),
        )
        servicer = ProfileServicer(  # type: ignore[abstract]  # its parts have the methods
            ProfileCalls(profiles, RulesStore(db), journeys, pager),
            PeopleCalls(
                profiles,
                RulesStore(db),
                Finder(db, profiles),
                Viewer(db, profiles, histories, deletions, audience=audience, sync=sync),
                histories,
                ComputedValues(db),
                watching,
                pager,
            ),
            DeletionCalls(deletions, keys, tombstones, refusals, RequestIds(db), pager),
        )
        reassigner = Reassigner(
            db, most_events=settings.identity_reassign_events, committed=outbox.wake, tombstones=tombstones
        )
        rebuild_store = RebuildStore(db, RulesStore(db))
        rebuilder = Rebuilder(db, rebuild_store, reassigner, tombstones=tombstones)
        groups = GroupServicer(GroupReader(db), profiles, pager)
        identity = IdentityServicer(  # type: ignore[abstract]  # its parts have the methods
            GraphCalls(GraphView(db), Workspaces(db), LinksStore(db), pager),
            LinkCalls(Corrections(db, Workspaces(db), LinksStore(db), reassigner), RequestIds(db), pager),
            RulesCalls(db, RulesStore(db), rebuild_store, RequestIds(db), pager, rebuilder.wake),
        )
        filler = Filler(db)
        computed = ComputedTraitServicer(db, ComputedTraitStore(db, filler.wake), profiles, pager, RequestIds(db))
        watch = Watch(db, redis, settings.event_partitions)
        loops = await stack.enter_async_context(background())
        loops.start("watch", watch.run)
        loops.start("computed-traits", filler.run)
        loops.start("outbox", outbox.run)
        loops.start("deletions", runner.run)
        loops.start("rebuilds", rebuilder.run)
        alarms = Alarms(db)
        loops.start("alarms", alarms.run)
        own = lanes(settings, db, redis, alarms, tombstones, refusals)
        for number, lane in enumerate(own):
            loops.start(f"lane-{number}", lane.run)
        stack.push_async_callback(_drain, own, settings.drain_seconds)
        api = "headrace.api.identity.v1"
        hosted = [
            Hosted(f"{api}.ProfileService", lambda s: add_ProfileServiceServicer_to_server(servicer, s)),
            Hosted(f"{api}.IdentityService", lambda s: add_IdentityServiceServicer_to_server(identity, s)),
            Hosted(f"{api}.GroupService", lambda s: add_GroupServiceServicer_to_server(groups, s)),
            Hosted(f"{api}.ComputedTraitService", lambda s: add_ComputedTraitServiceServicer_to_server(computed, s)),
        ]
        address = await stack.enter_async_context(
            serving(
                hosted,
                authenticator=authenticator(settings, workspace),
                settings=settings,
                is_ready=lambda: watch.ready,
            )
        )
        stack.callback(watching.close)  # before the server waits for calls in progress
        yield Running(grpc_address=address)


async def _drain(lanes: Sequence[Lane], seconds: float) -> None:
    with suppress(TimeoutError):  # what is left is claimed by another replica, or by this one after its restart
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(lane.stop() for lane in lanes))


def lanes(
    settings: Settings,
    db: mongo.Database,
    redis: streams.Redis,
    alarms: Alarms | None = None,
    tombstones: Tombstones | None = None,
    refusals: Refusals | None = None,
) -> list[Lane]:
    """The lanes of a replica: each reads its share of the events streams, under a consumer name of its own."""
    count = min(settings.identity_lanes, settings.event_partitions)
    replica = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
    sending = _sending(settings)
    made = []
    for number in range(count):
        own = [names.events(q) for q in range(number, settings.event_partitions, count)]
        reader = streams.GroupReader(
            redis,
            own,
            group=names.IDENTITY_GROUP,
            consumer=f"{replica}-{number}",
            claim_idle_ms=int(settings.identity_claim_idle_seconds * 1_000),
        )
        made.append(
            Lane(
                db,
                redis,
                reader,
                Worker(db, alarms=alarms, tombstones=tombstones),
                sending,
                streams=len(own),
                batch_events=settings.identity_batch_events,
                claim_every_s=settings.identity_claim_idle_seconds / 2,
                refusals=refusals,
            )
        )
    return made


def _sending(settings: Settings) -> Sending:
    return Sending(settings.partitions, settings.resolved_stream_entries)
