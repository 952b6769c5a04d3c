"""A pause of hours: what was due meanwhile happens once each, in the order of its moments, as if there had been none.

The first replica runs with a clock that stands hours back, and so do the ids of what is sent to it; whoever starts then
has the real one.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from headrace_audience import worker
from headrace_audience.language.parser import parse_definition
from headrace_audience.memberships.flips import FlipWriter
from headrace_audience.offline.facts import facts_of_resolved
from headrace_audience.offline.reference import Reference
from headrace_audience.partitions.leases import Leases
from headrace_audience.settings import Settings
from headrace_audience.store import CHANGES, LEASES, SNAPSHOTS

from headrace.api.audience.v1.audience_pb2 import MembershipChangeBatch
from headrace.api.identity.v1.profile_pb2 import ResolvedBatch, ResolvedEvent
from headrace.domain.ids import partition_of
from headrace.domain.times import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from headrace.domain.times import now_us as real_now_us
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from tests.support.audience import QUICK, eventually, serving_audience
from tests.support.audience_replicas import consistent, replica_process
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

PARTITIONS = QUICK["partitions"]
PAUSE_US = 6 * HOUR_US
PEOPLE = [f"p{i:02}" for i in range(40)]
RECENT: dict[str, Any] = {"event": "Viewed", "within": "1h"}
KNOWN: dict[str, Any] = {"event": "Registered"}
AUDIENCES: dict[str, dict[str, Any]] = {
    "recent": RECENT,
    "returning": {"event": "Viewed", "older_than": "1h", "within": "2h"},
    "twice": {"event": "Viewed", "within": "2h", "count": {"gte": 2}},
    "away": {"all": [KNOWN, {"not": {"audience": "recent"}}]},
    "gone": {"all": [{"audience": "away"}, {"not": {"audience": "returning"}}]},
}
PLAIN: dict[str, dict[str, Any]] = {
    **AUDIENCES,
    "away": {"all": [KNOWN, {"not": RECENT}]},
    "gone": {"all": [KNOWN, {"not": RECENT}, {"not": AUDIENCES["returning"]}]},
}
"""The same for an evaluator that knows no other audiences."""

Change = tuple[str, str, int, bool]
"""Audience, profile, moment from which it holds, whether entered."""


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, PARTITIONS)


@contextmanager
def clock_back(by_us: int) -> Iterator[None]:
    """Let the audience service of this process live in the past."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("headrace_audience") and hasattr(module, "now_us"):
                patch.setattr(module, "now_us", lambda: real_now_us() - by_us)
        assert abs(past_now_us() - real_now_us() + by_us) < SECOND_US
        yield


def past_now_us() -> int:
    """The clock of the service."""
    moment: int = vars(worker)["now_us"]()
    return moment


async def sent_at(redis: streams.Redis, at_us: int, events: Sequence[ResolvedEvent]) -> None:
    """Send events as if it were then."""
    for number, resolved in enumerate(events):
        batch = ResolvedBatch(workspace_id="acme", events=[resolved]).SerializeToString()
        stream = names.resolved(partition_of(resolved.profile_id, PARTITIONS))
        await redis.xadd(stream, {b"b": batch}, id=f"{at_us // 1_000}-{number}")


async def stored_at(identity: FakeIdentity, resolved: ResolvedEvent) -> None:
    """Commit an event to the log as if it were when it happened."""
    resolved.decision.sequence = resolved.event.timestamp_us
    await identity.db[log.EVENTS].insert_one(log.event_document(resolved))
    identity.stored.append(resolved)


async def before_the_pause(settings: Settings, identity: FakeIdentity) -> int:
    """Run until everybody has looked at something; returns the moment of that."""
    with clock_back(PAUSE_US):
        async with serving_audience(settings) as client:
            for audience_id, where in AUDIENCES.items():
                await client.start(audience_id, {"where": where})
            begin = past_now_us()
            first = [event(p, "Registered", at_us=begin - DAY_US) for p in PEOPLE]
            first += [
                event(p, "Viewed", at_us=begin - 50 * MINUTE_US + n * MINUTE_US) for n, p in enumerate(PEOPLE[:30])
            ]
            await identity.store(first)
            await sent_at(identity.redis, begin, first)
            await client.has_members("recent", PEOPLE[:30])
            await client.has_members("away", PEOPLE[30:])
            await client.has_members("gone", PEOPLE[30:])
            return past_now_us()


async def during_the_pause(identity: FakeIdentity, begin: int) -> None:
    """What waits in the streams, in order: some of it comes and goes before anybody is back, some comes late."""
    told: list[ResolvedEvent] = []
    for n, profile_id in enumerate(PEOPLE[10:35]):
        # Half a minute apart from what is due before: who leaves and enters within a second has not moved.
        at = begin + HOUR_US + 30 * SECOND_US + n * 3 * MINUTE_US
        told.append(event(profile_id, "Viewed", at_us=at))
        told.append(event(profile_id, "Viewed", at_us=at + 20 * MINUTE_US + n * SECOND_US))
    told.append(event("late", "Viewed", at_us=begin + 5 * HOUR_US + 30 * MINUTE_US))
    for resolved in sorted(told, key=lambda e: e.event.timestamp_us):
        await stored_at(identity, resolved)
        await sent_at(identity.redis, resolved.event.timestamp_us, [resolved])


def expected(stored: Sequence[ResolvedEvent], after_us: int, until_us: int) -> list[Change]:
    """What somebody who is always there tells, by the naive evaluator at every moment at which anything can change."""
    times = {e.event.timestamp_us for e in stored}
    moments = sorted(t + w for t in times for w in (0, HOUR_US, 2 * HOUR_US) if after_us < t + w <= until_us)
    reference = Reference(facts_of_resolved(stored, {}))
    found: list[Change] = []
    for audience_id, where in PLAIN.items():
        definition = parse_definition({"where": where})
        before = set(reference.members(definition, after_us))
        for moment in moments:
            now = set(reference.members(definition, moment))
            found += [(audience_id, p, moment, p in now) for p in now ^ before]
            before = now
    return sorted(found, key=lambda c: c[2])


async def written(db: Database) -> list[Change]:
    changes = [d async for d in db[CHANGES].find({}).sort([("a", 1), ("p", 1), ("v", 1)])]
    return [(d["a"], d["p"], d["e"], d["in"]) for d in changes]


async def sent(redis: streams.Redis) -> list[Change]:
    entries = await streams.read_from(redis, {names.CHANGES: "0"}, count=100_000, block_ms=1)
    batches = [MembershipChangeBatch.FromString(e.payload) for e in entries]
    return [(c.audience_id, c.profile_id, c.effective_at_us, c.member) for b in batches for c in b.changes]


def of_each(changes: Sequence[Change]) -> dict[tuple[str, str], list[tuple[int, bool]]]:
    found: dict[tuple[str, str], list[tuple[int, bool]]] = {}
    for audience_id, profile_id, moment, member in changes:
        found.setdefault((audience_id, profile_id), []).append((moment, member))
    return found


async def all_written(db: Database, wanted: int) -> None:
    found = 0

    async def enough() -> bool:
        nonlocal found
        found = await db[CHANGES].count_documents({})
        return found >= wanted

    await eventually(enough, lambda: f"{found} of {wanted} changes were written")


async def lose_streams(redis: streams.Redis) -> None:
    """What was sent is in the log only."""
    await redis.delete(*(names.resolved(p) for p in range(PARTITIONS)))


LITTLE: dict[str, Any] = {"audience_batch_entries": 2, "audience_fill_events": 5}
"""Streams and log are read in many parts, between which time passes."""


@pytest.mark.parametrize("lost", [False, True], ids=["from the streams", "from the log"])
async def test_all_that_was_due_happens_once_and_in_order(
    make_settings: MakeSettings,
    db: Database,
    redis: streams.Redis,
    identity: FakeIdentity,
    lost: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = make_settings(Settings, **(QUICK | LITTLE))
    events_between = log.events_between

    async def slowly(*args: Any) -> AsyncIterator[ResolvedEvent]:
        async for resolved in events_between(*args):
            await asyncio.sleep(0.02)  # the clock, if nothing held it back, would be at its end long before
            yield resolved

    monkeypatch.setattr(log, "events_between", slowly)
    begin = await before_the_pause(settings, identity)
    told_before = len(await sent(redis))
    assert told_before == await db[CHANGES].count_documents({})
    await during_the_pause(identity, begin)
    if lost:
        await lose_streams(redis)
    now = real_now_us()
    wanted = expected(identity.stored, begin, now)
    passing = of_each(wanted)["returning", "p12"]
    assert [member for _, member in passing] == [True, False, True, False], "people come and go meanwhile"
    async with serving_audience(settings) as client:
        await all_written(db, told_before + len(wanted))
        await identity.resolve(event("last", "Viewed"))
        await client.has_members("recent", ["last", "late"])
        told = [c for c in (await sent(redis))[told_before:] if c[1] != "last"]
        assert [c[2] for c in told] == [c[2] for c in wanted]
        assert sorted(told) == sorted(wanted)
        caused = {(c.profile_id, c.member): c.cause for c in await client.changes(parent=client.name("recent"))}
        assert (caused["p12", True], caused["p12", False]) == ("event", "time")
        for audience_id in AUDIENCES:
            assert (await client.verify(audience_id)).mismatch_count == 0
    await consistent(db)


@pytest.mark.parametrize(
    "lost", [pytest.param(False, marks=pytest.mark.long), True], ids=["from the streams", "from the log"]
)
async def test_killed_in_the_middle_of_catching_up(
    make_settings: MakeSettings,
    settings_env: dict[str, str],
    db: Database,
    redis: streams.Redis,
    identity: FakeIdentity,
    lost: bool,
) -> None:
    settings = make_settings(Settings, **QUICK)
    settings_env = settings_env | {f"HEADRACE_{name.upper()}": str(value) for name, value in LITTLE.items()}
    begin = await before_the_pause(settings, identity)
    told_before = await db[CHANGES].count_documents({})
    await during_the_pause(identity, begin)
    if lost:
        await lose_streams(redis)
    wanted = expected(identity.stored, begin, real_now_us())
    for part in (0.2, 0.5):
        with replica_process(settings_env, 1.5):
            await all_written(db, told_before + int(part * len(wanted)))
    done = await db[CHANGES].count_documents({}) - told_before
    assert 0 < done < len(wanted), "it was killed in the middle"
    with replica_process(settings_env, 1.5):
        await all_written(db, told_before + len(wanted))
        await identity.resolve(event("last", "Registered"))
        await all_written(db, told_before + len(wanted) + 2)
    assert of_each([c for c in await written(db) if c[1] != "last" and c[2] > begin]) == of_each(wanted)
    heard = of_each([c for c in await sent(redis) if c[1] != "last" and c[2] > begin])
    once = {key: list(dict.fromkeys(changes)) for key, changes in heard.items()}
    assert once == of_each(wanted), "what is sent again is sent in order"
    assert await db[SNAPSHOTS].count_documents({"moment": {"$gt": begin}}) == PARTITIONS
    await consistent(db)


async def test_a_stop_while_catching_up(make_settings: MakeSettings, db: Database, identity: FakeIdentity) -> None:
    """One that ends in order leaves what it had not reached to the next one."""
    settings = make_settings(Settings, **QUICK)
    begin = await before_the_pause(settings, identity)
    told_before = await db[CHANGES].count_documents({})
    await during_the_pause(identity, begin)
    wanted = expected(identity.stored, begin, real_now_us())
    async with serving_audience(settings):
        await all_written(db, told_before + 10)
    async with serving_audience(settings):
        await all_written(db, told_before + len(wanted))
    assert of_each([c for c in await written(db) if c[2] > begin]) == of_each(wanted)
    await consistent(db)


@pytest.mark.long
async def test_another_replica_comes_while_one_catches_up(
    make_settings: MakeSettings, db: Database, identity: FakeIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes one partition after the other: none may come to it that has farther to go than those that it has."""
    settings = make_settings(Settings, **QUICK)
    begin = await before_the_pause(settings, identity)
    told_before = await db[CHANGES].count_documents({})
    await during_the_pause(identity, begin)
    wanted = expected(identity.stored, begin, real_now_us())
    write, release = FlipWriter.write, Leases.release

    async def slow_write(*args: Any) -> int:
        await asyncio.sleep(0.1)
        return await write(*args)

    async def slow_release(self: Leases, share: int) -> None:
        await release(self, share)
        await asyncio.sleep(1.5)  # longer than between two looks for free leases

    monkeypatch.setattr(FlipWriter, "write", slow_write)
    monkeypatch.setattr(Leases, "release", slow_release)
    async with serving_audience(settings):
        await all_written(db, told_before + 5)
        async with serving_audience(settings):
            await all_written(db, told_before + len(wanted))
    assert of_each([c for c in await written(db) if c[2] > begin]) == of_each(wanted)
    await consistent(db)


@pytest.mark.long
async def test_what_one_replica_had_not_reached_comes_to_one_that_is_farther(
    make_settings: MakeSettings, settings_env: dict[str, str], db: Database, identity: FakeIdentity
) -> None:
    """Of two that catch up one is killed: its partitions go on where they stood, though the other's are at now."""
    settings = make_settings(Settings, **QUICK)
    begin = await before_the_pause(settings, identity)
    told_before = await db[CHANGES].count_documents({})
    await during_the_pause(identity, begin)
    wanted = expected(identity.stored, begin, real_now_us())
    # One that does nothing: each of the others has two partitions.
    later = datetime.now(UTC) + timedelta(hours=1)
    await db[LEASES].insert_one(
        {"_id": "partition:replica:ghost", "g": "partition", "replica": "ghost", "expires": later}
    )
    with replica_process(settings_env, 1.5) as killed, replica_process(settings_env, 1.5) as other:
        other.send_signal(signal.SIGSTOP)
        await all_written(db, told_before + 10)
        killed.send_signal(signal.SIGSTOP)
        await db[LEASES].update_many({"owner": {"$ne": None}}, {"$set": {"expires": later}})
        slow = {d["q"] async for d in db[CHANGES].find({"f": {"$gt": begin + HOUR_US}}, {"q": 1})}
        assert len(slow) == PARTITIONS // 2
        there = await db[CHANGES].count_documents({}) - told_before
        own = [c for c in wanted if partition_of(c[1], PARTITIONS) in slow]
        assert there < len(own), "it was stopped in the middle"
        other.send_signal(signal.SIGCONT)
        await all_written(db, told_before + there + len(wanted) - len(own))
        near = next(f"near{i}" for i in range(100) if partition_of(f"near{i}", PARTITIONS) not in slow)
        await identity.resolve(event(near, "Registered"))
        await all_written(db, told_before + there + len(wanted) - len(own) + 2)
        killed.kill()
        await db[LEASES].update_many({"expires": later}, {"$set": {"expires": datetime.now(UTC)}})
        await all_written(db, told_before + len(wanted) + 2)
        last = next(f"last{i}" for i in range(100) if partition_of(f"last{i}", PARTITIONS) in slow)
        await identity.resolve(event(last, "Registered"), event(near, "Viewed"))
        await all_written(db, told_before + len(wanted) + 2 + 2 + 3)  # one becomes "recent", and is "away" no more
    assert of_each([c for c in await written(db) if c[1] not in (near, last) and c[2] > begin]) == of_each(wanted)
    await consistent(db)
