"""The journey of an event: what every service knows of a message id, in order of time.

A service that cannot be asked is a step of the journey that says so, never a reason to hide the others' answers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import NamedTuple

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.audience.v1.audience_pb2 import MembershipChange
from headrace.api.audience.v1.audience_service_pb2 import ListMembershipChangesRequest
from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceStub
from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.api.identity.v1.profile_service_pb2 import JourneyStep
from headrace.api.ingest.v1.source_service_pb2 import ListRejectedMessagesRequest, RejectedMessage
from headrace.api.ingest.v1.source_service_pb2_grpc import SourceServiceStub
from headrace.api.sync.v1.sync_service_pb2 import Delivery, DeliveryState, ListDeliveriesRequest
from headrace.api.sync.v1.sync_service_pb2_grpc import SyncServiceStub
from headrace.domain.ids import time_ordered_floor
from headrace.domain.times import DAY_US, HOUR_US, MINUTE_US, now_us
from headrace.rpc import names
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace_identity.parked import ParkedEvent, find_parked
from headrace_identity.people.profiles import Profiles
from headrace_identity.resolving.replay import ACTION_NAMES

ACCEPTED = "accepted"
RESOLVED = "resolved"
MEMBERSHIP = "membership"
DELIVERY = "delivery"
UNAVAILABLE = "unavailable"

_TIMEOUT_S = 5.0
_PAGE = 500
_MOST_PAGES = 20
_LOOK_BACK_US = (10 * MINUTE_US, 3 * HOUR_US, 7 * DAY_US)
_MOST_SEGMENTS = 1_000
_SEGMENTS_AT_ONCE = 50


class Journey(NamedTuple):
    """What is known of an event: with its decision, once it is resolved, and the steps in order of time."""

    event: ResolvedEvent | None
    steps: list[JourneyStep]


class Journeys:
    """Follows events through all services."""

    def __init__(
        self,
        db: Database,
        profiles: Profiles,
        *,
        ingest: grpc.aio.Channel,
        audience: grpc.aio.Channel,
        sync: grpc.aio.Channel,
    ) -> None:
        """Ask the other services over channels that carry the service token."""
        self._db = db
        self._profiles = profiles
        self._sources = SourceServiceStub(ingest)
        self._audiences = AudienceServiceStub(audience)
        self._syncs = SyncServiceStub(sync)

    async def follow(self, workspace_id: str, message_id: str) -> Journey | None:
        """The journey of an event, None when nobody knows its message id."""
        resolved = await self._profiles.event(workspace_id, message_id)
        if resolved is None:
            steps = await self._unresolved(workspace_id, message_id)
            return Journey(None, _by_time(steps)) if steps else None
        steps = [_accepted(resolved.event, f"segment {resolved.segment_id}, place {resolved.segment_index}")]
        steps.append(_resolved(resolved))
        for answers in await asyncio.gather(
            self._asked(MEMBERSHIP, "audience", self._memberships(workspace_id, message_id)),
            self._asked(DELIVERY, "sync", self._deliveries(workspace_id, message_id)),
        ):
            steps += answers
        return Journey(resolved, _by_time(steps))

    async def _unresolved(self, workspace_id: str, message_id: str) -> list[JourneyStep]:
        parked = await find_parked(self._db, workspace_id, message_id)
        if parked is not None:
            return [_accepted(parked.event, f"segment {parked.segment_id}"), _parked(parked)]
        waiting = await self._in_log(workspace_id, message_id)
        if waiting is not None:
            return [_accepted(waiting[1], f"segment {waiting[0]}; it waits to be resolved")]
        return await self._asked(ACCEPTED, "ingest", self._rejected(workspace_id, message_id))

    async def _in_log(self, workspace_id: str, message_id: str) -> tuple[str, Event] | None:
        """An event that is accepted and not resolved yet, with its segment; the newest segments are looked at first."""
        now = now_us()
        newer = now + MINUTE_US  # the clock of another machine may be ahead
        for back_us in _LOOK_BACK_US:
            older = now - back_us
            segment_ids = await log.unfinished_segments(
                self._db, time_ordered_floor(older), time_ordered_floor(newer), _MOST_SEGMENTS
            )
            for start in range(0, len(segment_ids), _SEGMENTS_AT_ONCE):
                for _, batch in await log.read_segments(self._db, segment_ids[start : start + _SEGMENTS_AT_ONCE]):
                    if batch.workspace_id != workspace_id:
                        continue
                    for event in batch.events:
                        if event.message_id == message_id:
                            return batch.segment_id, event
            newer = older
        return None

    async def _asked(self, stage: str, service: str, steps: Awaitable[list[JourneyStep]]) -> list[JourneyStep]:
        try:
            return await steps
        except grpc.aio.AioRpcError as error:
            detail = f"{service} did not answer ({error.code().name}): what it knows is missing here"
            return [JourneyStep(stage=stage, time=_time(now_us()), outcome=UNAVAILABLE, detail=detail)]

    async def _memberships(self, workspace_id: str, message_id: str) -> list[JourneyStep]:
        parent = names.format(names.WORKSPACE, workspace_id)
        token = ""
        steps: list[JourneyStep] = []
        for _ in range(_MOST_PAGES):
            request = ListMembershipChangesRequest(
                parent=parent, message_id=message_id, page_size=_PAGE, page_token=token
            )
            answer = await self._audiences.ListMembershipChanges(request, timeout=_TIMEOUT_S)
            steps += [_membership(workspace_id, change) for change in answer.changes]
            token = answer.next_page_token
            if not token:
                break
        return steps

    async def _deliveries(self, workspace_id: str, message_id: str) -> list[JourneyStep]:
        parent = names.format(names.WORKSPACE, workspace_id)
        token = ""
        steps: list[JourneyStep] = []
        for _ in range(_MOST_PAGES):
            request = ListDeliveriesRequest(parent=parent, message_id=message_id, page_size=_PAGE, page_token=token)
            answer = await self._syncs.ListDeliveries(request, timeout=_TIMEOUT_S)
            steps += [_delivery(delivery) for delivery in answer.deliveries]
            token = answer.next_page_token
            if not token:
                break
        return steps

    async def _rejected(self, workspace_id: str, message_id: str) -> list[JourneyStep]:
        request = ListRejectedMessagesRequest(
            parent=names.format(names.WORKSPACE, workspace_id), message_id=message_id, page_size=_PAGE
        )
        answer = await self._sources.ListRejectedMessages(request, timeout=_TIMEOUT_S)
        return [_rejected(message) for message in answer.messages]


def _accepted(event: Event, detail: str) -> JourneyStep:
    resource = names.format(names.SOURCE, event.workspace_id, event.source_id) if event.source_id else ""
    return JourneyStep(
        stage=ACCEPTED, time=_time(event.received_at_us), outcome="accepted", resource=resource, detail=detail
    )


def _resolved(resolved: ResolvedEvent) -> JourneyStep:
    """The decision in a sentence, with namespaces and without values."""
    decision = resolved.decision
    sentences = [f"rule {decision.rule}"]
    if decision.identifiers:
        sentences.append(f"by {', '.join(i.namespace for i in decision.identifiers)}")
    if decision.merges:
        sentences.append(f"{len(decision.merges)} merged into {decision.merges[0].survivor}")
    for (action, namespace, rule), _ in Counter(
        (s.action, s.identifier.namespace, s.rule) for s in decision.set_aside
    ).items():
        sentences.append(f"{namespace} {action} ({rule})")
    workspace_id = resolved.event.workspace_id
    resource = names.format(names.PROFILE, workspace_id, resolved.profile_id) if resolved.profile_id else ""
    return JourneyStep(
        stage=RESOLVED,
        time=_time(resolved.resolved_at_us),
        outcome=ACTION_NAMES[decision.action],
        resource=resource,
        detail="; ".join(sentences),
    )


def _parked(parked: ParkedEvent) -> JourneyStep:
    detail = f"it could not be processed ({' from '.join(parked.reason)}) and waits to be replayed"
    return JourneyStep(stage=RESOLVED, time=_time(parked.parked_at_us), outcome="parked", detail=detail)


def _rejected(message: RejectedMessage) -> JourneyStep:
    return JourneyStep(
        stage=ACCEPTED,
        time=message.receive_time,
        outcome="rejected",
        resource=message.source,
        detail=f"{message.code}: {message.reason}",
    )


def _membership(workspace_id: str, change: MembershipChange) -> JourneyStep:
    return JourneyStep(
        stage=MEMBERSHIP,
        time=_time(change.changed_at_us),
        outcome="entered" if change.member else "left",
        resource=names.format(names.AUDIENCE, workspace_id, change.audience_id),
        detail=f"version {change.version}, by {change.cause}",
    )


def _delivery(delivery: Delivery) -> JourneyStep:
    sentences = [f"{delivery.operation}, {delivery.attempts} attempts"]
    if delivery.status_code:
        sentences.append(f"status {delivery.status_code}")
    if delivery.reason:
        sentences.append(delivery.reason)
    time = delivery.update_time if delivery.HasField("update_time") else delivery.create_time
    return JourneyStep(
        stage=DELIVERY,
        time=time,
        outcome=DeliveryState.Name(delivery.state).removeprefix("DELIVERY_STATE_").lower(),
        resource=delivery.sync,
        detail="; ".join(sentences),
    )


def _time(moment_us: int) -> Timestamp:
    return Timestamp(seconds=moment_us // 1_000_000, nanos=moment_us % 1_000_000 * 1_000)


def _by_time(steps: list[JourneyStep]) -> list[JourneyStep]:
    """In order of time; who did not answer comes last, and stages keep their order within one moment."""
    return sorted(steps, key=lambda s: (1, 0, 0) if s.outcome == UNAVAILABLE else (0, s.time.seconds, s.time.nanos))
