"""The whole service on real stores: events in on the streams, ProfileService out over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from headrace_identity.bootstrap import open_service
from headrace_identity.rules_store import RulesStore
from headrace_identity.settings import Settings
from headrace_identity.worker import Incoming, Worker

from headrace.api.audience.v1 import audience_pb2, audience_service_pb2
from headrace.api.audience.v1.audience_service_pb2_grpc import (
    AudienceServiceServicer,
    add_AudienceServiceServicer_to_server,
)
from headrace.api.common.v1.event_pb2 import Event, Identifier
from headrace.api.identity.v1.profile_pb2 import DecisionAction
from headrace.api.identity.v1.profile_service_pb2 import (
    BatchGetProfilesRequest,
    GetEventJourneyRequest,
    GetProfileRequest,
    ListProfileEventsRequest,
    ListProfilesRequest,
    LookupProfileRequest,
)
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.api.ingest.v1 import source_service_pb2
from headrace.api.ingest.v1.source_service_pb2_grpc import SourceServiceServicer, add_SourceServiceServicer_to_server
from headrace.api.sync.v1 import sync_service_pb2
from headrace.api.sync.v1.sync_service_pb2_grpc import SyncServiceServicer, add_SyncServiceServicer_to_server
from headrace.domain.ids import profile_id
from headrace.rpc import errors
from headrace.rpc.auth import ServiceTokenAuthenticator
from headrace.rpc.channel import connect, with_token
from headrace.rpc.server import Hosted, serving
from headrace.settings import ServiceSettings
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from tests.support.identity import WORKSPACE, event, put_in_log, segments, unfinished
from tests.support.settings import MakeSettings

PARENT = f"workspaces/{WORKSPACE}"
NOBODY = "127.0.0.1:1"


@asynccontextmanager
async def profiles_of(settings: Settings) -> AsyncIterator[Any]:
    """The service's own stub, called as another service."""
    async with open_service(settings) as running, connect(running.grpc_address, settings) as channel:
        yield ProfileServiceStub(channel)


async def resolve(db: Database, events: Sequence[Event]) -> None:
    """Resolve events without the streams."""
    await Worker(db).process(WORKSPACE, [Incoming(e, "s1", i) for i, e in enumerate(events)])


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
async def test_from_the_log_to_a_profile(db: Database, redis: Redis, make_settings: MakeSettings, driver: str) -> None:
    settings = make_settings(Settings, mongo_driver=driver, event_partitions=4)
    events = [
        event("m1", ("anonymous_id", "dev1"), traits={"plan": "free", "city": "Pune"}),
        event("m2", ("user_id", "u1"), traits={"plan": "pro"}, day=1),
        event(
            "m3",
            ("user_id", "u1"),
            ("anonymous_id", "dev1"),
            ("email", "Ann@Shop.example"),
            traits={"city": None},
            day=2,
        ),
    ]
    async with profiles_of(settings) as stub:
        for one in events:
            await put_in_log(db, redis, segments([one], 1), 4)
            while await unfinished(db):
                await asyncio.sleep(0.01)
        lookup = LookupProfileRequest(
            parent=PARENT, identifier=Identifier(namespace="email", value=" ANN@shop.example")
        )
        profile = (await stub.LookupProfile(lookup)).profile
        survivor, loser = profile_id(WORKSPACE, "m1"), profile_id(WORKSPACE, "m2")
        assert profile.name == f"{PARENT}/profiles/{survivor}"
        assert [(i.namespace, i.value) for i in profile.identifiers] == [
            ("anonymous_id", "dev1"),
            ("email", "ann@shop.example"),
            ("user_id", "u1"),
        ]
        assert [(t.name, t.value, t.message_id, t.source_id) for t in profile.traits] == [
            ("plan", b'"pro"', "m2", "web")
        ]
        assert list(profile.parts) == [survivor, loser]
        assert profile.merge_count == 1
        for part in (survivor, loser):
            assert (await stub.GetProfile(GetProfileRequest(name=f"{PARENT}/profiles/{part}"))).profile == profile
        batch = BatchGetProfilesRequest(parent=PARENT, profile_ids=[loser, "unknown", survivor, loser])
        results = (await stub.BatchGetProfiles(batch)).results
        assert [r.profile_id for r in results] == [loser, "unknown", survivor, loser]
        assert [r.profile == profile for r in results] == [True, False, True, True]
        assert not results[1].HasField("profile")
        listed = await stub.ListProfiles(ListProfilesRequest(parent=PARENT))
        assert list(listed.profiles) == [profile]


async def test_pages_continue_exactly(db: Database, make_settings: MakeSettings) -> None:
    """Over parts, with many events of one time, and while newer ones arrive."""
    history = [event(f"m{i:02}", ("anonymous_id", f"dev{i % 3}"), day=i // 8, name=f"N{i % 2}") for i in range(40)]
    history += [event("join1", ("user_id", "u1"), ("anonymous_id", "dev0"), ("anonymous_id", "dev1"), day=9)]
    history += [event("join2", ("user_id", "u1"), ("anonymous_id", "dev2"), day=9)]
    await resolve(db, history)
    await resolve(db, [event("other", ("user_id", "u9"))])
    parent = f"{PARENT}/profiles/{profile_id(WORKSPACE, 'm02')}"  # a merged part
    async with profiles_of(make_settings(Settings)) as stub:
        expected = sorted(history, key=lambda e: (-e.timestamp_us, -history.index(e)))
        for names in ([], ["N0"], ["N1", "Viewed"]):
            found: list[str] = []
            token = ""
            while True:
                request = ListProfileEventsRequest(parent=parent, page_size=7, page_token=token, event_names=names)
                page = await stub.ListProfileEvents(request)
                found += [e.event.message_id for e in page.events]
                assert {e.profile_id for e in page.events} == {profile_id(WORKSPACE, "m00")}
                token = page.next_page_token
                if not token:
                    break
                newer = event(f"newer{len(found)}{names}", ("user_id", "u1"), day=50, name="N0")
                await resolve(db, [newer])
            assert found == [e.message_id for e in expected if not names or e.name in names]
            await db[log.EVENTS].delete_many({"t": {"$gt": history[-1].timestamp_us}})

        people: list[str] = []
        token = ""
        while True:
            page_of_people = await stub.ListProfiles(ListProfilesRequest(parent=PARENT, page_size=1, page_token=token))
            people += [p.name for p in page_of_people.profiles]
            token = page_of_people.next_page_token
            if not token:
                break
        assert people == sorted(f"{PARENT}/profiles/{profile_id(WORKSPACE, m)}" for m in ("m00", "other"))


async def test_a_look_up_goes_by_the_rules_of_now(db: Database, make_settings: MakeSettings) -> None:
    rules = RulesStore(db)
    await rules.write(WORKSPACE, {"default_country": "IN"})
    await resolve(db, [event("m1", ("phone", "98765 43210"))])
    async with profiles_of(make_settings(Settings, workspace_address=NOBODY)) as stub:
        assert (await stub.LookupProfile(_lookup("phone", "98765 43210"))).profile.identifiers[
            0
        ].value == "+919876543210"
        await rules.write(WORKSPACE, {"default_country": "IN", "blocked": [{"equals": "+919876543210"}]})
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.LookupProfile(_lookup("phone", "98765 43210"))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await rules.write(WORKSPACE, {"default_country": "FR"})
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.LookupProfile(_lookup("phone", "06 12 34 56 78"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        await rules.write(WORKSPACE, {"default_country": "IN"})
        assert (await stub.LookupProfile(_lookup("phone", "98765 43210"))).profile.identifiers[
            0
        ].value == "+919876543210"


async def test_wrong_calls_are_refused(db: Database, make_settings: MakeSettings) -> None:
    await resolve(db, [event("m1", ("user_id", "u1"))])
    settings = make_settings(Settings, workspace_address=NOBODY)
    async with profiles_of(settings) as stub:
        calls: list[tuple[Any, Any, str, str]] = [
            (stub.LookupProfile, LookupProfileRequest(parent="shop"), "INVALID_ARGUMENT", "parent"),
            (stub.LookupProfile, LookupProfileRequest(parent=PARENT), "INVALID_ARGUMENT", "identifier.namespace"),
            (stub.LookupProfile, _lookup("email", " "), "INVALID_ARGUMENT", "identifier.value"),
            (stub.LookupProfile, _lookup("email", "no-address"), "INVALID_ARGUMENT", "identifier"),
            (stub.LookupProfile, _lookup("user_id", "u2"), "NOT_FOUND", ""),
            (stub.GetProfile, GetProfileRequest(name=f"{PARENT}/profiles"), "INVALID_ARGUMENT", "name"),
            (stub.GetProfile, GetProfileRequest(name=f"{PARENT}/profiles/p1"), "NOT_FOUND", ""),
            (
                stub.GetProfile,
                GetProfileRequest(name=f"workspaces/other/profiles/{profile_id(WORKSPACE, 'm1')}"),
                "NOT_FOUND",
                "",
            ),
            (stub.BatchGetProfiles, BatchGetProfilesRequest(parent=PARENT), "INVALID_ARGUMENT", "profile_ids"),
            (
                stub.BatchGetProfiles,
                BatchGetProfilesRequest(parent=PARENT, profile_ids=["p"] * 1001),
                "INVALID_ARGUMENT",
                "profile_ids",
            ),
            (stub.ListProfiles, ListProfilesRequest(parent=PARENT, page_size=-1), "INVALID_ARGUMENT", "page_size"),
            (stub.ListProfiles, ListProfilesRequest(parent=PARENT, page_token="x"), "INVALID_PAGE_TOKEN", "page_token"),
            (
                stub.ListProfileEvents,
                ListProfileEventsRequest(parent=f"{PARENT}/profiles/p1"),
                "NOT_FOUND",
                "",
            ),
            (
                stub.ListProfileEvents,
                ListProfileEventsRequest(parent=f"{PARENT}/profiles/p1", event_names=[str(i) for i in range(101)]),
                "INVALID_ARGUMENT",
                "event_names",
            ),
            (stub.GetEventJourney, GetEventJourneyRequest(parent=PARENT), "INVALID_ARGUMENT", "message_id"),
        ]
        for call, request, reason, field in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request)
            assert errors.reason_of(caught.value) == reason, request
            assert [f for f, _ in errors.field_violations(caught.value)] == ([field] if field else []), request
            assert "no-address" not in (caught.value.details() or "")


async def test_a_token_without_a_workspace_service_is_unavailable(make_settings: MakeSettings) -> None:
    settings = make_settings(Settings, workspace_address=NOBODY)
    async with open_service(settings) as running:
        for token, code in (("hr_" + "x" * 43, "UNAVAILABLE"), ("", "UNAUTHENTICATED"), ("wrong", "UNAUTHENTICATED")):
            async with with_token(running.grpc_address, token) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ProfileServiceStub(channel).ListProfiles(ListProfilesRequest(parent=PARENT))
                assert caught.value.code().name == code


class Peers(AudienceServiceServicer, SyncServiceServicer, SourceServiceServicer):
    """The other services, as far as a journey asks them; two pages of deliveries."""

    async def ListMembershipChanges(
        self, request: audience_service_pb2.ListMembershipChangesRequest, context: Any
    ) -> audience_service_pb2.ListMembershipChangesResponse:
        assert (request.parent, request.message_id) == (PARENT, "m1")
        change = audience_pb2.MembershipChange(
            audience_id="buyers", member=True, version=1, changed_at_us=4_000_000_000_000_000, cause="event"
        )
        return audience_service_pb2.ListMembershipChangesResponse(changes=[change])

    async def ListDeliveries(
        self, request: sync_service_pb2.ListDeliveriesRequest, context: Any
    ) -> sync_service_pb2.ListDeliveriesResponse:
        assert (request.parent, request.message_id) == (PARENT, "m1")
        second = request.page_token == "second"
        delivery = sync_service_pb2.Delivery(
            sync=f"{PARENT}/syncs/{'two' if second else 'one'}",
            operation="event",
            state=sync_service_pb2.DELIVERY_STATE_FAILED if second else sync_service_pb2.DELIVERY_STATE_DELIVERED,
            attempts=1,
            status_code=400 if second else 200,
            reason="the field is missing" if second else "",
        )
        delivery.update_time.FromSeconds(4_000_000_001 + second)
        return sync_service_pb2.ListDeliveriesResponse(
            deliveries=[delivery], next_page_token="" if second else "second"
        )

    async def ListRejectedMessages(
        self, request: source_service_pb2.ListRejectedMessagesRequest, context: Any
    ) -> source_service_pb2.ListRejectedMessagesResponse:
        messages = [
            source_service_pb2.RejectedMessage(
                source=f"{PARENT}/sources/web", code="missing_identifier", reason="no identifier", message_id=m
            )
            for m in ("refused", "another")
            if m == request.message_id
        ]
        return source_service_pb2.ListRejectedMessagesResponse(messages=messages)


async def test_journeys(db: Database, redis: Redis, make_settings: MakeSettings) -> None:
    first = event("m1", ("user_id", "u1"), ("email", "none"))
    await resolve(db, [first])
    parked = event("bad", ("user_id", "u2"))
    parked.traits = b"[]"
    await resolve(db, [parked])
    settings = make_settings(Settings)
    peers = Peers()  # type: ignore[abstract]  # only what a journey asks
    hosted = [
        Hosted("headrace.api.audience.v1.AudienceService", lambda s: add_AudienceServiceServicer_to_server(peers, s)),
        Hosted("headrace.api.sync.v1.SyncService", lambda s: add_SyncServiceServicer_to_server(peers, s)),
        Hosted("headrace.api.ingest.v1.SourceService", lambda s: add_SourceServiceServicer_to_server(peers, s)),
    ]
    knows = ServiceTokenAuthenticator(settings.service_token.get_secret_value())
    async with serving(hosted, authenticator=knows, settings=make_settings(ServiceSettings)) as others:
        addresses = {"audience_address": others, "sync_address": others, "ingest_address": others}
        async with profiles_of(make_settings(Settings, **addresses)) as stub:
            # Only in the log: its stream is not dispatched.
            await log.append_segments(db, segments([event("waits", ("user_id", "u3"))], 1), [0])

            async def steps(message_id: str) -> list[tuple[str, str, str]]:
                answer = await stub.GetEventJourney(GetEventJourneyRequest(parent=PARENT, message_id=message_id))
                assert answer.HasField("event") == (message_id == "m1")
                return [(s.stage, s.outcome, s.resource) for s in answer.steps]

            assert await steps("m1") == [
                ("accepted", "accepted", f"{PARENT}/sources/web"),
                ("resolved", "created", f"{PARENT}/profiles/{profile_id(WORKSPACE, 'm1')}"),
                ("membership", "entered", f"{PARENT}/audiences/buyers"),
                ("delivery", "delivered", f"{PARENT}/syncs/one"),
                ("delivery", "failed", f"{PARENT}/syncs/two"),
            ]
            answer = await stub.GetEventJourney(GetEventJourneyRequest(parent=PARENT, message_id="m1"))
            assert answer.event.decision.action == DecisionAction.DECISION_ACTION_CREATED
            assert answer.steps[1].detail == "rule create; by user_id; email blocked (blocked:value)"
            assert await steps("bad") == [
                ("accepted", "accepted", f"{PARENT}/sources/web"),
                ("resolved", "parked", ""),
            ]
            assert await steps("waits") == [("accepted", "accepted", f"{PARENT}/sources/web")]
            assert await steps("refused") == [("accepted", "rejected", f"{PARENT}/sources/web")]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await steps("unknown")
            assert errors.reason_of(caught.value) == errors.NOT_FOUND


async def test_a_journey_says_who_did_not_answer(db: Database, make_settings: MakeSettings) -> None:
    await resolve(db, [event("m1", ("user_id", "u1"))])
    away = {"audience_address": NOBODY, "sync_address": NOBODY, "ingest_address": NOBODY}
    async with profiles_of(make_settings(Settings, **away)) as stub:
        answer = await stub.GetEventJourney(GetEventJourneyRequest(parent=PARENT, message_id="m1"))
        assert [(s.stage, s.outcome) for s in answer.steps] == [
            ("accepted", "accepted"),
            ("resolved", "created"),
            ("membership", "unavailable"),
            ("delivery", "unavailable"),
        ]
        unknown = await stub.GetEventJourney(GetEventJourneyRequest(parent=PARENT, message_id="unknown"))
        assert [(s.stage, s.outcome) for s in unknown.steps] == [("accepted", "unavailable")]


def _lookup(namespace: str, value: str) -> LookupProfileRequest:
    return LookupProfileRequest(parent=PARENT, identifier=Identifier(namespace=namespace, value=value))
