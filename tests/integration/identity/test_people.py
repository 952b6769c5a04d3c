"""What a person did, over gRPC on real stores: timeline, view, past, histories, watching."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import msgspec
import pytest
from headrace_identity.bootstrap import open_service
from headrace_identity.people import history as history_module
from headrace_identity.settings import Settings
from headrace_identity.worker import Incoming, Worker

from headrace.api.audience.v1 import audience_service_pb2
from headrace.api.audience.v1.audience_service_pb2_grpc import (
    AudienceServiceServicer,
    add_AudienceServiceServicer_to_server,
)
from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1 import profile_service_pb2 as pb
from headrace.api.identity.v1.profile_pb2 import ConsentStatus, ResolvedBatch
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.api.sync.v1 import sync_service_pb2
from headrace.api.sync.v1.sync_service_pb2_grpc import SyncServiceServicer, add_SyncServiceServicer_to_server
from headrace.domain.ids import partition_of, profile_id
from headrace.domain.times import DAY_US
from headrace.rpc import errors
from headrace.rpc.auth import ServiceTokenAuthenticator
from headrace.rpc.channel import connect
from headrace.rpc.server import Hosted, serving
from headrace.settings import ServiceSettings
from headrace.storage.mongo.client import Database
from headrace.storage.streams import names
from headrace.storage.streams.client import Redis, send
from tests.support.identity import START_US, WORKSPACE, event, put_in_log, segments
from tests.support.settings import MakeSettings

PARENT = f"workspaces/{WORKSPACE}"
NOBODY = "127.0.0.1:1"
OTHERS_AWAY = {"audience_address": NOBODY, "sync_address": NOBODY}


@asynccontextmanager
async def profiles_of(make_settings: MakeSettings, **overrides: Any) -> AsyncIterator[Any]:
    settings = make_settings(Settings, event_partitions=1, identity_lanes=1, **overrides)
    async with open_service(settings) as running, connect(running.grpc_address, settings) as channel:
        yield ProfileServiceStub(channel)


async def resolve(db: Database, *events: Event) -> None:
    await Worker(db).process(events[0].workspace_id, [Incoming(e, "s1", i) for i, e in enumerate(events)])


async def pages(method: Any, request: Any, field: str, size: int) -> list[Any]:
    """Everything that a method lists, page by page."""
    found: list[Any] = []
    request.page_size = size
    request.page_token = ""
    while True:
        answer = await method(request)
        assert len(getattr(answer, field)) <= size
        found += getattr(answer, field)
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


def consenting(message_id: str, *identifiers: tuple[str, str], day: float, **purposes: str) -> Event:
    made = event(message_id, *identifiers, day=day)
    made.context = msgspec.json.encode({"consent": purposes})
    return made


USER, DEVICE = ("user_id", "u1"), ("anonymous_id", "dev1")
HISTORY = [
    event("m1", USER, traits={"plan": "free", "city": "Pune"}, day=1),
    event("m2", DEVICE, traits={"plan": "trial"}, day=2, name="Purchased", source_id="shop"),
    consenting("m3", DEVICE, day=3, ads="granted", mail="denied"),
    event("m4", USER, DEVICE, traits={"plan": None}, day=4),
    event("m5a", USER, traits={"plan": "pro"}, day=5, name="Product viewed"),
    event("m5b", USER, traits={"plan": "max"}, day=5, source_id="shop"),
    consenting("m6", USER, day=6, ads="denied"),
]
PROFILE = f"{PARENT}/profiles/{profile_id(WORKSPACE, 'm1')}"
LOSER = f"{PARENT}/profiles/{profile_id(WORKSPACE, 'm2')}"


async def test_a_timeline_is_filtered(db: Database, make_settings: MakeSettings) -> None:
    await resolve(db, *HISTORY)
    async with profiles_of(make_settings) as stub:
        for filters, expected in (
            ({}, "m6 m5b m5a m4 m3 m2 m1"),
            ({"event_names": ["product_viewed", "Order Completed"]}, "m5a m2"),
            ({"source_ids": ["shop"]}, "m5b m2"),
            ({"source_ids": ["shop", "web"], "event_names": ["Viewed"]}, "m6 m5b m4 m3 m1"),
            ({"from_us": START_US + 2 * DAY_US, "to_us": START_US + 5 * DAY_US}, "m4 m3 m2"),
            ({"from_us": START_US + 5 * DAY_US}, "m6 m5b m5a"),
            ({"to_us": START_US + DAY_US}, ""),
            ({"source_ids": ["nobody"]}, ""),
        ):
            for size in (1, 2, 100):
                request = pb.ListProfileEventsRequest(parent=LOSER, **filters)
                events = await pages(stub.ListProfileEvents, request, "events", size)
                assert [e.event.message_id for e in events] == expected.split(), (filters, size)
                assert {e.profile_id for e in events} <= {PROFILE.rpartition("/")[2]}
        first = await stub.ListProfileEvents(pb.ListProfileEventsRequest(parent=PROFILE, page_size=1))
        for change in ({"from_us": 1}, {"to_us": 2**50}, {"source_ids": ["web"]}, {"event_names": ["Viewed"]}):
            request = pb.ListProfileEventsRequest(parent=PROFILE, page_token=first.next_page_token, **change)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListProfileEvents(request)
            assert errors.reason_of(caught.value) == errors.INVALID_PAGE_TOKEN, change
        for from_us, to_us in ((5, 5), (-1, 0), (0, -1)):
            wrong = pb.ListProfileEventsRequest(parent=PROFILE, from_us=from_us, to_us=to_us)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListProfileEvents(wrong)
            assert errors.reason_of(caught.value) == errors.INVALID_ARGUMENT, wrong


async def test_the_state_at_a_past_moment(db: Database, make_settings: MakeSettings) -> None:
    grouped = event("m7", USER, day=7)
    grouped.group_id = "acme"
    await resolve(db, *HISTORY, grouped)
    async with profiles_of(make_settings) as stub:

        async def at(day: float, name: str = PROFILE) -> tuple[Any, ...]:
            request = pb.GetProfileAtRequest(name=name, at_us=START_US + int(day * DAY_US))
            answer = await stub.GetProfileAt(request)
            profile = answer.profile
            assert profile.name == PROFILE
            return (
                answer.event_count,
                [f"{i.namespace}:{i.value}" for i in profile.identifiers],
                {t.name: msgspec.json.decode(t.value) for t in profile.traits},
                {c.purpose: c.status == ConsentStatus.CONSENT_STATUS_GRANTED for c in profile.consents},
                [g.group_id for g in profile.groups],
                len(profile.parts),
                profile.merge_count,
            )

        both = ["anonymous_id:dev1", "user_id:u1"]
        city = {"city": "Pune"}
        assert await at(0.5) == (0, [], {}, {}, [], 0, 0)
        assert await at(1) == (1, ["user_id:u1"], {"plan": "free", **city}, {}, [], 1, 0)
        assert await at(3) == (3, both, {"plan": "trial", **city}, {"ads": True, "mail": False}, [], 2, 0)
        assert await at(4, LOSER) == (4, both, city, {"ads": True, "mail": False}, [], 2, 1)
        now = (8, both, {"plan": "max", **city}, {"ads": False, "mail": False}, ["acme"], 2, 1)
        assert await at(7) == await at(99) == now
        current = (await stub.GetProfile(pb.GetProfileRequest(name=PROFILE))).profile
        request = pb.GetProfileAtRequest(name=PROFILE, at_us=START_US + 99 * DAY_US)
        past = (await stub.GetProfileAt(request)).profile
        assert past == current, "at the end of all events the past is the present"
        for wrong, reason in (
            (pb.GetProfileAtRequest(name=PROFILE), errors.INVALID_ARGUMENT),
            (pb.GetProfileAtRequest(name=f"{PARENT}/profiles/nobody", at_us=1), errors.NOT_FOUND),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetProfileAt(wrong)
            assert errors.reason_of(caught.value) == reason


async def test_histories_of_traits_and_consents(
    db: Database, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await resolve(db, *HISTORY[::-1])  # the order in which they come is nothing
    winner = (await _find(db)).rpartition("/")[2]
    name = f"{PARENT}/profiles/{winner}"
    async with profiles_of(make_settings) as stub:
        for most in (10_000, 1):  # with little work allowed for a page, pages are short and lead on all the same
            monkeypatch.setattr(history_module, "_MOST_EVENTS", most)
            for size in (1, 2, 3, 100):
                traits = pb.ListTraitHistoryRequest(parent=name, trait="plan")
                values = await pages(stub.ListTraitHistory, traits, "values", size)
                assert [(v.message_id, msgspec.json.decode(v.value), v.source_id) for v in values] == [
                    ("m5b", "max", "shop"),
                    ("m5a", "pro", "web"),
                    ("m4", None, "web"),
                    ("m2", "trial", "shop"),
                    ("m1", "free", "web"),
                ]
                of_all = await pages(stub.ListTraitHistory, pb.ListTraitHistoryRequest(parent=name), "values", size)
                assert [v for v in of_all if v.name == "plan"] == values
                assert {v.name for v in of_all} == {"plan", "city"}
                assert [v.timestamp_us for v in of_all] == sorted((v.timestamp_us for v in of_all), reverse=True)
                consents = pb.ListConsentHistoryRequest(parent=name)
                said = await pages(stub.ListConsentHistory, consents, "consents", size)
                granted = ConsentStatus.CONSENT_STATUS_GRANTED
                assert [(c.purpose, c.status == granted, c.message_id) for c in said] == [
                    ("ads", False, "m6"),
                    ("ads", True, "m3"),
                    ("mail", False, "m3"),
                ]
                consents.purpose = "mail"
                assert len(await pages(stub.ListConsentHistory, consents, "consents", size)) == 1
        unknown = await stub.ListTraitHistory(pb.ListTraitHistoryRequest(parent=name, trait="nothing"))
        assert not unknown.values
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListTraitHistory(pb.ListTraitHistoryRequest(parent=name, trait="t" * 513))
        assert errors.field_violations(caught.value) == [("trait", "must be at most 512 characters")]


async def _find(db: Database) -> str:
    documents = [d["_id"] async for d in db["profiles"].find({"into": {"$exists": False}}, {"_id": 1})]
    assert len(documents) == 1
    return str(documents[0]).replace("\x1f", "/")


class Peers(AudienceServiceServicer, SyncServiceServicer):
    """The other services; `asked` holds what they were asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def ListProfileAudiences(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return audience_service_pb2.ListProfileAudiencesResponse(
            audiences=[
                audience_service_pb2.ProfileAudience(
                    audience=f"{PARENT}/audiences/buyers", display_name="Buyers", since_us=1, leaves_at_us=2
                )
            ]
        )

    async def ListDeliveries(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        delivered = sync_service_pb2.DeliveryState.DELIVERY_STATE_DELIVERED
        return sync_service_pb2.ListDeliveriesResponse(
            deliveries=[
                sync_service_pb2.Delivery(sync=f"{PARENT}/syncs/one", message_id="m4", state=delivered),
                sync_service_pb2.Delivery(sync=f"{PARENT}/syncs/two", operation="add", state=delivered, reason="why"),
            ]
        )


async def test_the_view_of_a_person(db: Database, make_settings: MakeSettings) -> None:
    await resolve(db, *HISTORY)
    settings = make_settings(ServiceSettings)
    peers = Peers()  # type: ignore[abstract]  # only what a view asks
    hosted = [
        Hosted("headrace.api.audience.v1.AudienceService", lambda s: add_AudienceServiceServicer_to_server(peers, s)),
        Hosted("headrace.api.sync.v1.SyncService", lambda s: add_SyncServiceServicer_to_server(peers, s)),
    ]
    knows = ServiceTokenAuthenticator(settings.service_token.get_secret_value())
    async with (
        serving(hosted, authenticator=knows, settings=settings) as others,
        profiles_of(make_settings, audience_address=others, sync_address=others) as stub,
    ):
        view = await stub.GetProfileView(
            pb.GetProfileViewRequest(name=LOSER, event_count=3, delivery_count=5, trait_value_count=2)
        )
        assert view.profile == (await stub.GetProfile(pb.GetProfileRequest(name=PROFILE))).profile
        assert [e.event.message_id for e in view.events] == ["m6", "m5b", "m5a"]
        following = pb.ListProfileEventsRequest(parent=LOSER, page_token=view.next_events_page_token)
        rest = (await stub.ListProfileEvents(following)).events
        assert [e.event.message_id for e in rest] == ["m4", "m3", "m2", "m1"]
        history = await stub.ListTraitHistory(pb.ListTraitHistoryRequest(parent=LOSER))
        assert list(view.trait_history) == list(history.values)[:2]
        following_values = pb.ListTraitHistoryRequest(parent=LOSER, page_token=view.next_trait_history_page_token)
        assert list((await stub.ListTraitHistory(following_values)).values) == list(history.values)[2:]
        assert [(a.audience, a.display_name, a.since_us, a.leaves_at_us) for a in view.audiences] == [
            (f"{PARENT}/audiences/buyers", "Buyers", 1, 2)
        ]
        assert [(d.sync, d.item, d.state, d.detail) for d in view.deliveries] == [
            (f"{PARENT}/syncs/one", "m4", "delivered", ""),
            (f"{PARENT}/syncs/two", "add", "delivered", "why"),
        ]
        assert [m.message_id for m in view.merges] == ["m4"]
        assert not view.unavailable
        audiences, deliveries = sorted(peers.asked, key=lambda r: r.DESCRIPTOR.name, reverse=True)
        assert audiences.profile_id == PROFILE.rpartition("/")[2]
        assert set(deliveries.profile_ids) == {PROFILE.rpartition("/")[2], LOSER.rpartition("/")[2]}
        assert deliveries.page_size == 5
        whole = await stub.GetProfileView(pb.GetProfileViewRequest(name=PROFILE))
        assert (len(whole.events), whole.next_events_page_token) == (7, "")
        assert (list(whole.trait_history), whole.next_trait_history_page_token) == (list(history.values), "")


async def test_a_view_names_what_could_not_be_read(db: Database, make_settings: MakeSettings) -> None:
    await resolve(db, *HISTORY)
    async with profiles_of(make_settings, **OTHERS_AWAY) as stub:
        view = await stub.GetProfileView(pb.GetProfileViewRequest(name=PROFILE))
        assert list(view.unavailable) == ["audiences", "deliveries"]
        assert len(view.events) == 7
        for wrong, reason in (
            (pb.GetProfileViewRequest(name=f"{PARENT}/profiles/nobody"), errors.NOT_FOUND),
            (pb.GetProfileViewRequest(name=PROFILE, event_count=201), errors.INVALID_ARGUMENT),
            (pb.GetProfileViewRequest(name=PROFILE, delivery_count=-1), errors.INVALID_ARGUMENT),
            (pb.GetProfileViewRequest(name=PROFILE, trait_value_count=201), errors.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetProfileView(wrong)
            assert errors.reason_of(caught.value) == reason


async def read_until(call: Any, name: str) -> str:
    """Read a watch until it names a profile; returns the cursor."""
    async with asyncio.timeout(20):
        while True:
            answer = await call.read()
            if name in answer.names:
                return str(answer.cursor)


async def test_watching_profiles(db: Database, redis: Redis, make_settings: MakeSettings) -> None:
    async with profiles_of(make_settings, **OTHERS_AWAY) as stub:
        everything = stub.WatchProfiles(pb.WatchProfilesRequest(parent=PARENT))
        one = stub.WatchProfiles(pb.WatchProfilesRequest(parent=PARENT, names=[LOSER]))
        start = await everything.read()
        assert (list(start.names), bool(start.cursor)) == ([], True)
        await one.read()
        await put_in_log(db, redis, segments(HISTORY[:2], 2), 1)
        cursor = await read_until(everything, PROFILE)
        await read_until(one, LOSER)
        # The followed profile is merged into another, and that one is followed from then on.
        await put_in_log(db, redis, segments([event("x", ("user_id", "u1"), workspace_id="other")], 1, "other"), 1)
        await put_in_log(db, redis, segments([HISTORY[3]], 1), 1)
        await read_until(one, PROFILE)
        await put_in_log(db, redis, segments([HISTORY[4]], 1), 1)
        await read_until(one, PROFILE)
        # Going on after a cursor repeats what came since, of the workspace alone.
        again = stub.WatchProfiles(pb.WatchProfilesRequest(parent=PARENT, cursor=cursor))
        seen: set[str] = set()
        while PROFILE not in seen:
            seen.update((await again.read()).names)
        assert seen <= {PROFILE, LOSER}
        for wrong in (
            pb.WatchProfilesRequest(parent=PARENT, cursor="nonsense"),
            pb.WatchProfilesRequest(parent=PARENT, names=["workspaces/other/profiles/p1"]),
            pb.WatchProfilesRequest(parent="workspaces/other", cursor=cursor),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.WatchProfiles(wrong).read()
            assert errors.reason_of(caught.value) == errors.INVALID_ARGUMENT
        for call in (everything, one, again):
            call.cancel()


async def test_watches_end_with_the_service(db: Database, redis: Redis, make_settings: MakeSettings) -> None:
    settings = make_settings(Settings, event_partitions=1, identity_lanes=1, drain_seconds=10)
    service = open_service(settings)
    running = await service.__aenter__()
    async with connect(running.grpc_address, settings) as channel:
        stub: Any = ProfileServiceStub(channel)
        call = stub.WatchProfiles(pb.WatchProfilesRequest(parent=PARENT))
        assert (await call.read()).cursor
        ending = asyncio.create_task(service.__aexit__(None, None, None))
        async with asyncio.timeout(8):
            assert [list(answer.names) async for answer in call] == []
        assert await call.code() == grpc.StatusCode.OK
        await ending


async def test_a_cursor_that_is_too_old_is_refused(db: Database, redis: Redis, make_settings: MakeSettings) -> None:
    async with profiles_of(make_settings, partitions=1, **OTHERS_AWAY) as stub:
        batch = ResolvedBatch(workspace_id=WORKSPACE, partition=partition_of("p", 1))
        stream = names.resolved(0)
        await send(redis, [(stream, batch.SerializeToString())] * 3)
        call = stub.WatchProfiles(pb.WatchProfilesRequest(parent=PARENT))
        cursor = (await call.read()).cursor
        call.cancel()
        await send(redis, [(stream, batch.SerializeToString())] * 3)
        resumed = stub.WatchProfiles(pb.WatchProfilesRequest(parent=PARENT, cursor=cursor))
        assert (await resumed.read()).cursor
        resumed.cancel()
        await redis.xtrim(stream, maxlen=1, approximate=False)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.WatchProfiles(pb.WatchProfilesRequest(parent=PARENT, cursor=cursor)).read()
        assert caught.value.code() == grpc.StatusCode.OUT_OF_RANGE
        assert errors.reason_of(caught.value) == errors.CURSOR_EXPIRED
