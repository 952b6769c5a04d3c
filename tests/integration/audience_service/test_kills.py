"""The only replica is killed by SIGKILL in the middle of refreshes, switches of versions and archiving, and started."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.facts import facts_of_resolved
from headrace_audience.offline.groups import GroupReference
from headrace_audience.settings import Settings
from headrace_audience.store import ACTIVE, ARCHIVED, AUDIENCES, CHANGES

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.audience.v1.audience_pb2 import MembershipChangeBatch
from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from tests.support.audience import QUICK, AudienceClient, client_of, eventually, expected_members
from tests.support.audience_replicas import consistent, replica_process
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

PEOPLE = [f"p{n}" for n in range(1_600)]
LEASE_S = 1.5
NEITHER: dict[str, Any] = {"where": {"all": [{"event": "A"}, {"not": {"event": "B"}}]}}
BOTH: dict[str, Any] = {"where": {"all": [{"event": "A"}, {"event": "B"}]}}
DEFINITIONS: dict[str, dict[str, Any]] = {
    "hourly": {"refresh": "1h", **NEITHER},
    "accounts": {"of": "groups", "refresh": "1h", "where": {"members": "any", "where": BOTH["where"]}},
    "following": {"of": "groups", "where": {"members": "none", "where": BOTH["where"]}},
    "changing": NEITHER,
    "ending": NEITHER,
}

Document = Mapping[str, Any]
Point = Callable[[Document, Document, int], bool]
"""Whether to kill now: by an audience as it was before, as it is, and the number of its changes since."""

POINTS: dict[str, Point] = {
    "it has begun": lambda before, now, changes: _is_begun(before, now),
    "a partition is done": lambda before, now, changes: _is_begun(before, now) and bool(_partitions(now)),
    "changes are written": lambda before, now, changes: changes > 0,
}


def _is_begun(before: Document, now: Document) -> bool:
    return bool(now["gen"] > before["gen"] or now.get("pending"))


def _partitions(now: Document) -> Any:
    return now["pending"]["parts"] if now.get("pending") else now["done"]


class Platform:
    """A replica in a process of its own that can be killed and started, and what it should say."""

    def __init__(
        self, db: Database, identity: FakeIdentity, settings: Settings, environment: Mapping[str, str]
    ) -> None:
        self.db = db
        self.identity = identity
        self._settings = settings
        self._environment = environment

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[subprocess.Popen[bytes], AudienceClient]]:
        """Start it, and wait until it answers."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {
            **self._environment,
            "HEADRACE_GRPC_PORT": str(port),
            "HEADRACE_AUDIENCE_CONFIRM_SHARE": "1",
            "HEADRACE_AUDIENCE_CONFIRM_MEMBERS": "1000000",
        }
        with replica_process(environment, LEASE_S) as process:
            async with client_of(f"127.0.0.1:{port}", self._settings) as client:
                request = pb.ListAudiencesRequest(parent=client.parent)
                await client.stub.ListAudiences(request, wait_for_ready=True, timeout=60)
                yield process, client

    async def kill_at(self, audience_id: str, point: str, act: Callable[[], Awaitable[Any]], process: Any) -> None:
        """Let something begin, and kill the replica when a point is reached, or when all is over."""
        before, changes = await self._audience(audience_id), await self._changes(audience_id)
        acting = asyncio.ensure_future(act())
        async with asyncio.timeout(60):
            while not POINTS[point](
                before, now := await self._audience(audience_id), await self._changes(audience_id) - changes
            ):
                await asyncio.sleep(0)
                if acting.done() and now["gen"] > before["gen"] and not now["open"]:
                    break
        process.send_signal(signal.SIGKILL)
        await asyncio.gather(acting, return_exceptions=True)  # its answer may be lost

    async def settled(self, audience_id: str, state: str) -> None:
        async def is_settled() -> bool:
            now = await self._audience(audience_id)
            return bool(now["state"] == state and not now["open"] and not now.get("pending"))

        await eventually(is_settled, lambda: f"{audience_id} does not come to an end")

    async def agrees(self, client: AudienceClient, audience_id: str, definition: Mapping[str, Any]) -> None:
        """Wait until the members are those of the reference."""
        if definition.get("of") == "groups":
            reference = GroupReference(facts_of_resolved(self.identity.stored))
            expected = reference.members(parse_definition(definition), now_us())
        else:
            expected = expected_members(self.identity.stored, {}, definition, now_us())
        await client.has_members(audience_id, expected)

    async def _audience(self, audience_id: str) -> Document:
        found = await self.db[AUDIENCES].find_one({"a": audience_id})
        assert found is not None
        return found

    async def _changes(self, audience_id: str) -> int:
        return await self.db[CHANGES].count_documents({"a": audience_id})


@pytest.fixture
def platform(db: Database, redis: streams.Redis, make_settings: MakeSettings, settings_env: dict[str, str]) -> Platform:
    identity = FakeIdentity(db, redis, QUICK["partitions"])
    return Platform(db, identity, make_settings(Settings, **QUICK), settings_env)


Act = Callable[[AudienceClient], Awaitable[Any]]
Check = Callable[[AudienceClient, int], Awaitable[None]]
"""What must hold after so many acts."""


async def survives(platform: Platform, audience_id: str, acts: Sequence[Act], check: Check) -> None:
    """Fill an audience; then act, be killed at a point, and be started, once for each of the points.

    Everybody did A, and a group is named by two people each.
    """
    calls = [event(p, "A") for p in PEOPLE]
    for n, call in enumerate(calls):
        call.event.group_id = f"g{n // 2}"
    for start in range(0, len(calls), 500):
        await platform.identity.resolve(*calls[start : start + 500])
    async with platform.running() as (_, client):
        await client.start(audience_id, DEFINITIONS[audience_id])
    for number, (act, point) in enumerate(zip(acts, POINTS, strict=True)):
        async with platform.running() as (process, client):
            await check(client, number)
            await platform.kill_at(audience_id, point, partial(act, client), process)
    async with platform.running() as (_, client):
        await check(client, len(POINTS))


async def everything_is_told_once(platform: Platform, redis: streams.Redis) -> None:
    """The history is without gaps, and the stream tells each change, those of a membership in their order.

    Who dies after sending and before storing that it was sent is followed by one who sends the same versions again.
    """
    await consistent(platform.db)
    stored = {(d["a"], d["p"], d["v"]) async for d in platform.db[CHANGES].find({})}

    async def is_sent() -> bool:
        return set(await told(redis)) == stored

    await eventually(is_sent, lambda: "the stream does not tell what is stored")
    last: dict[tuple[str, str], int] = {}
    for audience_id, profile_id, version in await told(redis):
        before = last.get((audience_id, profile_id), 0)
        assert version <= before + 1, "nothing is left out"
        last[audience_id, profile_id] = max(before, version)


async def told(redis: streams.Redis) -> list[tuple[str, str, int]]:
    """(audience, member, version) of all changes on the stream, in order."""
    entries = await streams.read_from(redis, {names.CHANGES: "0-0"}, count=100_000, block_ms=1)
    batches = [MembershipChangeBatch.FromString(entry.payload) for entry in entries]
    return [(c.audience_id, c.profile_id, c.version) for batch in batches for c in batch.changes]


MOVED = [PEOPLE[n::8] for n in range(len(POINTS))]
"""Who does B before each kill."""


@pytest.mark.parametrize("audience_id", [pytest.param("hourly", marks=pytest.mark.long), "accounts"])
async def test_killed_in_a_refresh(platform: Platform, redis: streams.Redis, audience_id: str) -> None:
    async def act(client: AudienceClient, moved: list[str]) -> None:
        await platform.identity.resolve(*(event(p, "B") for p in moved))
        await client.stub.RefreshAudience(pb.RefreshAudienceRequest(name=client.name(audience_id)))

    async def check(client: AudienceClient, number: int) -> None:
        await platform.settled(audience_id, ACTIVE)
        await platform.agrees(client, audience_id, DEFINITIONS[audience_id])

    await survives(platform, audience_id, [partial(act, moved=moved) for moved in MOVED], check)
    await everything_is_told_once(platform, redis)


@pytest.mark.long
async def test_killed_while_groups_follow(platform: Platform, redis: streams.Redis) -> None:
    async def act(client: AudienceClient, moved: list[str]) -> None:
        await platform.identity.resolve(*(event(p, "B") for p in moved))

    async def check(client: AudienceClient, number: int) -> None:
        await platform.agrees(client, "following", DEFINITIONS["following"])

    await survives(platform, "following", [partial(act, moved=moved) for moved in MOVED], check)
    await everything_is_told_once(platform, redis)


@pytest.mark.long
async def test_killed_in_a_switch_of_versions(platform: Platform, redis: streams.Redis) -> None:
    definitions = [NEITHER, BOTH, NEITHER, BOTH]

    async def check(client: AudienceClient, number: int) -> None:
        if number == 0:
            await platform.identity.resolve(*(event(p, "B") for p in PEOPLE[::2]))
        await platform.settled("changing", ACTIVE)
        await platform.agrees(client, "changing", definitions[number])

    acts = [partial(AudienceClient.update, audience_id="changing", definition=d) for d in definitions[1:]]
    await survives(platform, "changing", acts, check)
    await everything_is_told_once(platform, redis)


@pytest.mark.long
async def test_killed_while_members_leave(platform: Platform, redis: streams.Redis) -> None:
    async def act(client: AudienceClient) -> None:
        await client.stub.ArchiveAudience(pb.ArchiveAudienceRequest(name=client.name("ending")))

    async def check(client: AudienceClient, number: int) -> None:
        if number > 0:
            await platform.settled("ending", ARCHIVED)
            assert await client.members("ending") == []
            await client.activate("ending")
        await platform.settled("ending", ACTIVE)
        await platform.agrees(client, "ending", DEFINITIONS["ending"])

    await survives(platform, "ending", [act] * len(POINTS), check)
    await everything_is_told_once(platform, redis)
