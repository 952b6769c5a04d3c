"""New definitions of active audiences: filled beside the present one, compared, confirmed, put in place."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from headrace_audience.answers import preview
from headrace_audience.filling import behind
from headrace_audience.filling.versions import pending
from headrace_audience.settings import Settings
from headrace_audience.store import AUDIENCES, CHANGES

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.audience.v1.audience_pb2 import (
    AUDIENCE_STATE_ACTIVE,
    AUDIENCE_STATE_FILLING,
    Audience,
    AudienceChange,
)
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.times import DAY_US, now_us
from headrace.rpc import errors
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from tests.support.audience import COUNT, QUICK, AudienceClient, eventually, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

PARTITIONS = QUICK["partitions"]
CAREFUL: dict[str, Any] = QUICK | {"audience_confirm_share": 0.5, "audience_confirm_members": 1}
"""More than half of the members must be confirmed."""
VIEWED: dict[str, Any] = {"where": {"event": "Viewed"}}


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine computing groups takes long, and resting ten times as long."""
    monkeypatch.setattr(behind, "REST", 1)


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **CAREFUL)) as serving:
        yield serving


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, PARTITIONS)


async def refused(call: object, reason: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # any awaitable
    assert errors.reason_of(caught.value) == reason, caught.value.details()
    return caught.value


async def confirm(client: AudienceClient, audience_id: str, etag: str = "") -> Audience:
    request = pb.ConfirmAudienceVersionRequest(name=client.name(audience_id), etag=etag)
    answer: Audience = (await client.stub.ConfirmAudienceVersion(request)).audience
    return answer


async def discard(client: AudienceClient, audience_id: str) -> Audience:
    request = pb.DiscardAudienceVersionRequest(name=client.name(audience_id))
    answer: Audience = (await client.stub.DiscardAudienceVersion(request)).audience
    return answer


async def archive(client: AudienceClient, audience_id: str) -> Audience:
    request = pb.ArchiveAudienceRequest(name=client.name(audience_id))
    answer: Audience = (await client.stub.ArchiveAudience(request)).audience
    return answer


async def would(client: AudienceClient, audience_id: str, definition: dict[str, Any]) -> AudienceChange:
    audience = Audience(name=client.name(audience_id), definition=json.dumps(definition))
    request = pb.UpdateAudienceRequest(audience=audience, validate_only=True)
    change: AudienceChange = (await client.stub.UpdateAudience(request)).change
    return change


async def held(client: AudienceClient, audience_id: str) -> Audience:
    """Wait until a version waits to be confirmed; the audience then."""

    async def is_held() -> bool:
        return (await client.get(audience_id)).pending_version.needs_confirmation

    await eventually(is_held)
    return await client.get(audience_id)


async def replaced(client: AudienceClient, audience_id: str, definition: dict[str, Any]) -> None:
    """Wait until a definition is in place."""

    async def is_in_place() -> bool:
        found = await client.get(audience_id)
        return json.loads(found.definition) == definition and not found.HasField("pending_version")

    await eventually(is_in_place)


def moves(change: AudienceChange) -> tuple[int, int, int, float, bool]:
    return change.enter, change.leave, change.stay, change.share, change.needs_confirmation


async def test_a_version_whose_difference_was_not_told_waits(
    client: AudienceClient, identity: FakeIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little it moves: nobody saw a number."""
    await client.start("target", COUNT)
    await identity.resolve(*(event(f"p{i}", "Purchased") for i in range(9)), event("new", "Viewed"))
    await client.has_members("target", [f"p{i}" for i in range(9)])
    monkeypatch.setattr(preview, "DIFFERENCE_S", 0.0)
    wider: dict[str, Any] = {"where": {"any": [{"event": "Purchased"}, {"event": "Viewed"}]}}
    audience = Audience(name=client.name("target"), definition=json.dumps(wider))
    answer = await client.stub.UpdateAudience(pb.UpdateAudienceRequest(audience=audience))
    assert not answer.HasField("change")
    waiting = await held(client, "target")
    assert moves(waiting.pending_version.change) == (1, 0, 9, 1 / 9, True)
    await client.pause("target")
    await client.activate("target")
    assert (await held(client, "target")).pending_version.change.enter == 1, "it still waits"
    await confirm(client, "target")
    await client.has_members("target", [*(f"p{i}" for i in range(9)), "new"])
    # One that moves nobody has nothing to show; one whose difference is told goes by its size.
    same: dict[str, Any] = {"where": {"any": [{"event": "Viewed"}, {"event": "Purchased"}, {"event": "Never"}]}}
    await client.update("target", same)
    await replaced(client, "target", same)
    monkeypatch.setattr(preview, "DIFFERENCE_S", 60.0)
    told = await client.stub.UpdateAudience(
        pb.UpdateAudienceRequest(audience=Audience(name=client.name("target"), definition=json.dumps(COUNT)))
    )
    assert moves(told.change) == (0, 1, 9, 1 / 10, False)
    assert (told.change.leave_low, told.change.leave_high, told.change.estimate) == (1, 1, False)
    await replaced(client, "target", COUNT)


async def test_only_the_difference_moves(client: AudienceClient, identity: FakeIdentity) -> None:
    await client.start("target", COUNT)
    await client.start("dependent", {"where": {"audience": "target"}})
    await identity.resolve(*(event(f"p{i}", "Purchased") for i in range(9)), event("new", "Viewed"))
    everybody = [f"p{i}" for i in range(9)]
    await client.has_members("target", everybody)
    wider: dict[str, Any] = {"where": {"any": [{"event": "Purchased"}, {"event": "Viewed"}]}}
    change = await would(client, "target", wider)
    assert moves(change) == (1, 0, 9, 1 / 9, False)
    assert json.loads((await client.get("target")).definition) == COUNT, "nothing was changed"

    updated = await client.update("target", wider)
    assert updated.state == AUDIENCE_STATE_ACTIVE and json.loads(updated.definition) == COUNT
    assert json.loads(updated.pending_version.definition) == wider
    assert not updated.pending_version.HasField("change")
    await replaced(client, "target", wider)
    await client.has_members("target", [*everybody, "new"])
    await client.has_members("dependent", [*everybody, "new"])
    changes = [c for c in await client.changes(parent=client.name("target")) if c.cause != "event"]
    assert [(c.profile_id, c.member, c.cause) for c in changes] == [("new", True, "definition")]
    await identity.resolve(event("later", "Viewed"))
    await client.has_members("target", [*everybody, "new", "later"])


async def test_an_edit_says_whom_it_moves(client: AudienceClient, identity: FakeIdentity) -> None:
    """Also one that takes effect by itself, and in text form; not where nobody relies on the members yet."""

    async def edited(audience_id: str, definition: str) -> pb.UpdateAudienceResponse:
        audience = Audience(name=client.name(audience_id), definition=definition)
        answer: pb.UpdateAudienceResponse = await client.stub.UpdateAudience(
            pb.UpdateAudienceRequest(audience=audience)
        )
        return answer

    await client.create("draft", COUNT)
    await client.start("target", COUNT)
    await identity.resolve(*(event(f"p{i}", "Purchased") for i in range(3)), event("new", "Viewed"))
    await client.has_members("target", ["p0", "p1", "p2"])
    assert not (await edited("draft", "performed Viewed")).HasField("change")
    assert not (await edited("target", "performed Purchased")).HasField("change")
    small = (await edited("target", "performed Purchased or performed Viewed")).change
    assert moves(small) == (1, 0, 3, 1 / 3, False)
    await client.has_members("target", ["new", "p0", "p1", "p2"])
    large = (await edited("target", "performed Viewed")).change
    assert moves(large) == (0, 3, 1, 3 / 4, True)


async def test_groups_have_versions_too(client: AudienceClient, identity: FakeIdentity) -> None:
    def of_groups(name: str) -> dict[str, Any]:
        return {"of": "groups", "where": {"members": "any", "where": {"event": name}}}

    def call(profile_id: str, group_id: str) -> ResolvedEvent:
        found = event(profile_id, kind="group")
        found.event.group_id = group_id
        return found

    await client.start("accounts", of_groups("Purchased"))
    await identity.resolve(call("p1", "acme"), call("p2", "globex"), event("p1", "Purchased"), event("p2", "Viewed"))
    await client.has_members("accounts", ["acme"])
    assert moves(await would(client, "accounts", of_groups("Viewed"))) == (1, 1, 0, 2.0, True)
    await client.update("accounts", of_groups("Viewed"))
    waiting = await held(client, "accounts")
    assert moves(waiting.pending_version.change) == (1, 1, 0, 2.0, True)
    assert await client.members("accounts") == ["acme"]
    # The definition that it has goes on meanwhile.
    await identity.resolve(call("p3", "initech"), event("p3", "Purchased"))
    await client.has_members("accounts", ["acme", "initech"])
    await confirm(client, "accounts")
    await client.has_members("accounts", ["globex"])
    await identity.resolve(event("p3", "Viewed"))
    await client.has_members("accounts", ["globex", "initech"])
    await client.update("accounts", of_groups("Nothing"))
    await held(client, "accounts")
    await discard(client, "accounts")
    await identity.resolve(event("p1", "Viewed"))
    await client.has_members("accounts", ["acme", "globex", "initech"])


async def test_a_large_change_waits_while_the_old_definition_stays_exact(
    client: AudienceClient, identity: FakeIdentity
) -> None:
    await client.start("target", COUNT)
    await client.create("named", {"where": {"audience": "target"}})
    await identity.resolve(event("p1", "Purchased"), event("p2", "Viewed"), event("p3", "Purchased"))
    await identity.resolve(event("p3", "Viewed"))
    await client.has_members("target", ["p1", "p3"])
    assert moves(await would(client, "target", VIEWED)) == (1, 1, 1, 1.0, True)
    await client.update("target", VIEWED)
    waiting = await held(client, "target")
    assert moves(waiting.pending_version.change) == (1, 1, 1, 1.0, True)
    assert waiting.state == AUDIENCE_STATE_ACTIVE and json.loads(waiting.definition) == COUNT

    # As long as it waits, events go by the old definition, and are known to the new one.
    await identity.resolve(event("p4", "Purchased"), event("p5", "Viewed"))
    await client.has_members("target", ["p1", "p3", "p4"])
    await refused(confirm(client, "target", "1234567"), errors.ETAG_MISMATCH)
    confirmed = await confirm(client, "target", waiting.etag)
    assert json.loads(confirmed.definition) == VIEWED and not confirmed.HasField("pending_version")
    await client.has_members("target", ["p2", "p3", "p5"])
    changes = [c for c in await client.changes(parent=client.name("target")) if c.cause == "definition"]
    assert sorted((c.profile_id, c.member) for c in changes) == [
        ("p1", False), ("p2", True), ("p4", False), ("p5", True)
    ]  # fmt: skip
    assert (await client.verify("target")).mismatched_profile_ids == []
    await refused(confirm(client, "target"), errors.WRONG_STATE)


async def test_a_version_is_discarded_in_several_ways(client: AudienceClient, identity: FakeIdentity) -> None:
    await client.start("target", COUNT)
    await identity.resolve(event("p1", "Purchased"), event("p2", "Viewed"))
    await client.has_members("target", ["p1"])
    await refused(discard(client, "target"), errors.WRONG_STATE)

    await client.update("target", VIEWED)
    await held(client, "target")
    assert not (await discard(client, "target")).HasField("pending_version")

    await client.update("target", VIEWED)
    assert not (await client.update("target", COUNT)).HasField("pending_version")


async def test_what_is_edited_while_it_is_paused_is_confirmed_before_its_members_move(
    client: AudienceClient, identity: FakeIdentity
) -> None:
    await client.start("target", COUNT)
    await identity.resolve(event("p1", "Purchased"), event("p2", "Viewed"))
    await client.has_members("target", ["p1"])
    await client.start("named", {"where": {"audience": "target"}})
    await client.pause("target")
    assert moves(await would(client, "target", VIEWED)) == (1, 1, 0, 2.0, True)
    updated = await client.update("target", VIEWED)
    assert json.loads(updated.definition) == COUNT and json.loads(updated.pending_version.definition) == VIEWED
    error = await refused(confirm(client, "target"), errors.WRONG_STATE)
    assert "activated" in str(error.details())

    assert (await client.activate("target")).state == AUDIENCE_STATE_FILLING
    waiting = await held(client, "target")
    assert waiting.state == AUDIENCE_STATE_FILLING and moves(waiting.pending_version.change) == (1, 1, 0, 2.0, True)
    # Until then neither the definition that it had nor the new one moves anybody.
    await identity.resolve(event("p3", "Purchased"), event("p4", "Viewed"))
    await client.start("witness", VIEWED)
    await client.has_members("witness", ["p2", "p4"])
    assert await client.members("target") == await client.members("named") == ["p1"]

    # Thinking about it loses nothing.
    paused = await client.pause("target")
    assert json.loads(paused.pending_version.definition) == VIEWED
    assert not paused.pending_version.needs_confirmation and not paused.pending_version.HasField("change")
    await client.activate("target")
    waiting = await held(client, "target")
    assert moves(waiting.pending_version.change) == (2, 1, 0, 3.0, True)
    confirmed = await confirm(client, "target", waiting.etag)
    assert confirmed.state == AUDIENCE_STATE_ACTIVE and json.loads(confirmed.definition) == VIEWED
    await client.has_members("target", ["p2", "p4"])
    await client.has_members("named", ["p2", "p4"])
    changes = [(c.profile_id, c.member, c.cause) for c in await client.changes(parent=client.name("target"))]
    assert sorted(changes[1:]) == [
        ("p1", False, "definition"), ("p2", True, "definition"), ("p4", True, "definition")
    ]  # fmt: skip
    assert (await client.verify("target")).mismatched_profile_ids == []


async def test_a_paused_audience_goes_on_by_its_definition_when_the_edit_is_discarded(
    client: AudienceClient, identity: FakeIdentity
) -> None:
    await client.start("target", COUNT)
    await identity.resolve(event("p1", "Purchased"), event("p2", "Viewed"))
    await client.has_members("target", ["p1"])
    await client.pause("target")
    await identity.resolve(event("p3", "Purchased"))
    for forget in (discard, lambda client, audience_id: client.update(audience_id, COUNT)):
        await client.update("target", VIEWED)
        assert not (await forget(client, "target")).HasField("pending_version"), "before it is activated"
    await client.update("target", VIEWED)
    await client.activate("target")
    await held(client, "target")
    assert not (await discard(client, "target")).HasField("pending_version")
    await client.has_members("target", ["p1", "p3"])
    await client.active("target")

    # What moves few needs nobody, and what has no members that anybody relied on has nothing to confirm.
    await client.pause("target")
    wider: dict[str, Any] = {"where": {"any": [{"event": "Purchased"}, {"event": "Viewed"}]}}
    await client.update("target", wider)
    await client.activate("target")
    await replaced(client, "target", wider)
    await client.has_members("target", ["p1", "p2", "p3"])
    await archive(client, "target")
    assert not (await client.update("target", COUNT)).HasField("pending_version")
    await client.activate("target")
    await client.has_members("target", ["p1", "p3"])


async def test_an_edit_while_it_catches_up_is_confirmed_too(client: AudienceClient, identity: FakeIdentity) -> None:
    await client.start("target", COUNT)
    await identity.resolve(event("p1", "Purchased"), event("p2", "Viewed"))
    await client.has_members("target", ["p1"])
    await client.pause("target")
    await client.activate("target")
    updated = await client.update("target", VIEWED)
    assert json.loads(updated.pending_version.definition) == VIEWED and json.loads(updated.definition) == COUNT
    assert moves((await held(client, "target")).pending_version.change) == (1, 1, 0, 2.0, True)
    assert await client.members("target") == ["p1"]
    await confirm(client, "target")
    await client.has_members("target", ["p2"])


async def test_what_means_the_same_is_not_computed_again(client: AudienceClient, db: Database) -> None:
    await client.start("target", COUNT)
    before = await db[AUDIENCES].find_one({"a": "target"})
    spaced = json.dumps({"kind": "dynamic", **COUNT}, indent=2)
    assert (await client.update("target", spaced)).definition == spaced
    after = await db[AUDIENCES].find_one({"a": "target"})
    assert before is not None and after is not None and before["gen"] == after["gen"]


async def test_what_a_version_names_is_needed(client: AudienceClient, identity: FakeIdentity) -> None:
    await client.start("target", COUNT)
    await client.start("named", VIEWED)
    await identity.resolve(event("p1", "Purchased"))
    await client.has_members("target", ["p1"])
    await client.update("target", {"where": {"audience": "named"}})
    await held(client, "target")
    await refused(client.delete("named"), errors.IN_USE)
    error = await refused(client.update("named", {"where": {"audience": "target"}}), errors.INVALID_ARGUMENT)
    assert "circle" in str(error.details())
    await discard(client, "target")
    await client.delete("named")


@pytest.mark.long
async def test_a_version_that_was_begun_is_finished_by_others(
    make_settings: MakeSettings, identity: FakeIdentity, db: Database
) -> None:
    """At whatever line a replica ends: what is in the store says how to go on."""
    settings = make_settings(Settings, **CAREFUL)
    wider: dict[str, Any] = {"where": {"any": [{"event": "Purchased"}, {"event": "Viewed"}]}}
    people = [f"p{i}" for i in range(20)]
    async with serving_audience(settings) as client:
        await client.start("target", COUNT)
        await identity.resolve(*(event(p, "Purchased") for p in people), event("new", "Viewed"))
        await client.has_members("target", people)
    base = await db[AUDIENCES].find_one({"a": "target"})
    assert base is not None
    counted = {str(p): [0, 0, 5] for p in range(PARTITIONS)}
    progress: list[tuple[dict[str, list[int]], bool, bool]] = [
        ({}, False, False),
        ({"1": [0, 0, 5]}, False, False),
        (counted, False, False),
        (counted, True, False),
        (counted, True, True),
    ]
    for state, (parts, ready, is_held) in itertools.product(("ACTIVE", "FILLING"), progress):
        document = await db[AUDIENCES].find_one({"a": "target"})
        assert document is not None
        naming = {"traits": document["traits"], "computed": document["computed"]}
        version = pending(json.dumps(wider), 99, naming)["pending"]
        version |= {"parts": parts, "ready": ready, "held": is_held}
        begun = {"def": json.dumps(COUNT), "gen": document["gen"] + 1, "open": True, "done": [], "cause": "definition"}
        begun |= {"pending": version | {"counted": now_us()}, "updated": now_us(), "state": state}
        await db[AUDIENCES].update_one({"a": "target"}, {"$set": begun})
        async with serving_audience(settings) as client, serving_audience(settings):
            if is_held:
                # One that is active goes on by its definition; the members of one that is not stay as they are.
                before = people if state == "ACTIVE" else [*people, "new"]
                await client.has_members("target", before)
                await asyncio.sleep(1.0)
                assert await client.members("target") == sorted(before), "nobody has confirmed it"
                await confirm(client, "target")
            await replaced(client, "target", wider)
            await client.has_members("target", [*people, "new"])
    changes = [d async for d in db[CHANGES].find({})]
    assert {c["a"] for c in changes} == {"target"}, "of a version nothing is written"
    assert all(c["c"] == "definition" for c in changes if c["p"] == "new")
    assert [c for c in changes if c["p"] != "new" and c["v"] > 1] == [], "who stays does not move"


async def test_static_ones_and_those_refreshed_at_intervals(client: AudienceClient, identity: FakeIdentity) -> None:
    await client.start("hourly", {"refresh": "1h", **COUNT})
    await client.start("static", {"kind": "static", **COUNT})
    await identity.resolve(event("p1", "Purchased"), event("p2", "Viewed", at_us=now_us() - DAY_US))
    await client.start("live", COUNT)
    await client.has_members("live", ["p1"])
    daily = {"refresh": "1d", **VIEWED}
    for audience_id, definition in (("hourly", daily), ("static", {"kind": "static", **VIEWED}), ("live", daily)):
        await client.update(audience_id, definition)
        waiting = await held(client, audience_id)
        assert moves(waiting.pending_version.change)[0] == 1
        await confirm(client, audience_id)
        await client.has_members(audience_id, ["p2"])
    hourly = await client.get("hourly")
    assert hourly.next_refresh_time.ToMicroseconds() == hourly.refresh_time.ToMicroseconds() + DAY_US
    # And back to a continuous one.
    await client.update("hourly", COUNT)
    await held(client, "hourly")
    await confirm(client, "hourly")
    await client.has_members("hourly", ["p1"])
    assert not (await client.get("hourly")).HasField("next_refresh_time")
    await identity.resolve(event("p3", "Purchased"))
    await client.has_members("hourly", ["p1", "p3"])
