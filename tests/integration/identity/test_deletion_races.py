"""Deletions that are interrupted anywhere, and that race with what happens to the person."""

from __future__ import annotations

import asyncio
import base64
import random
from typing import Any

import pytest
from headrace_identity import store
from headrace_identity.deletion.keys import KeyRing
from headrace_identity.deletion.person import Named
from headrace_identity.deletion.receipt import REMOVED, Place
from headrace_identity.deletion.records import DONE, Deletion, Deletions
from headrace_identity.deletion.removal import Remover
from headrace_identity.deletion.requests import Requests
from headrace_identity.deletion.runner import Patience, Runner
from headrace_identity.deletion.telling import CannotBeTold, Services
from headrace_identity.deletion.tombstones import Tombstones
from headrace_identity.worker import Incoming, Worker

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.ids import profile_id
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace.storage.sealing import Sealer
from tests.support.identity import WORKSPACE, event, read_stored

SEALER = Sealer(base64.b64encode(b"k" * 32).decode())


class Others(Services):
    """The other services: what each was told."""

    def __init__(self) -> None:
        super().__init__({})
        self.told: dict[str, set[str]] = {}
        self.silent: set[str] = set()

    async def tell(self, service: str, workspace_id: str, deletion_id: str, **whom: Any) -> list[Place]:
        if service in self.silent:
            raise CannotBeTold(service)
        known = self.told.setdefault(service, set())
        new = {message_id for message_id, _ in whom["messages"]} - known if "messages" in whom else set()
        known |= new
        return [Place(service, REMOVED, len(new))]


class Ended(BaseException):
    """The process ends here: nothing of it runs any more."""


class Setting:
    """A database with a runner, whom anybody can ask to end at a step."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.others = Others()
        self.ends_at = ""
        self.steps: list[str] = []
        self.keys = KeyRing(db, SEALER)
        self.tombstones = Tombstones(db, self.keys)
        self.requests = Requests(db, self.keys, self.tombstones, wait_us=0)

    def worker(self) -> Worker:
        return Worker(self.db, tombstones=Tombstones(self.db, KeyRing(self.db, SEALER)))

    def runner(self) -> Runner:
        """A new process."""

        async def at_step(step: str) -> None:
            self.steps.append(step)
            if step == self.ends_at:
                raise Ended

        keys = KeyRing(self.db, SEALER)
        tombstones = Tombstones(self.db, keys)
        return Runner(self.db, keys, tombstones, Remover(self.db), self.others, Patience(), at_step=at_step)

    async def finish(self, deletion: Deletion) -> Deletion:
        """Another process takes over what is left, as soon as it may."""
        self.ends_at = ""
        await self.db[store.DELETIONS].update_many({"l": {"$exists": True}}, {"$set": {"l.1": 0}})
        await self.db[store.DELETIONS].update_many({"next": {"$exists": True}}, {"$set": {"next": 0}})
        await self.runner().work()
        found = await Deletions(self.db).get(WORKSPACE, deletion.id)
        assert found is not None and found.state == DONE
        return found


@pytest.fixture
def setting(db: Database) -> Setting:
    return Setting(db)


HISTORY = [
    event("1", ("anonymous_id", "device-1")),
    event("2", ("user_id", "user-1"), ("email", "One@Shop.example")),
    event("3", ("user_id", "user-1"), ("anonymous_id", "device-1")),
    event("4", ("user_id", "user-2"), ("email", "two@shop.example")),
]
STEPS = ["begin", "forms", "told sync", "told audience", "told ingest", "tell", "removed events", "removed people"]
STEPS += ["remove", "again"]


async def test_the_steps(setting: Setting) -> None:
    await resolve(setting, HISTORY)
    deletion = await setting.requests.delete(WORKSPACE, Named(("user_id", "user-1")), "")
    await setting.finish(deletion)
    assert setting.steps == [*STEPS, "receipt"]


async def test_another_process_goes_on_after_a_crash_at_any_step(setting: Setting) -> None:
    left = set()
    for number, step in enumerate(STEPS):
        a, b, c, d, e = (f"{i}-{number}" for i in range(1, 6))
        device, user, email = (
            ("anonymous_id", f"device-{number}"),
            ("user_id", f"user-{number}"),
            f"{number}@Shop.example",
        )
        history = [event(a, device), event(b, user, ("email", email)), event(c, user, device)]
        await resolve(setting, [*history, event(d, ("user_id", f"other-{number}"))])
        left.add(d)
        deletion = await setting.requests.delete(WORKSPACE, Named(("email", email.lower())), "")
        setting.ends_at = step
        with pytest.raises(Ended):
            await setting.runner().work()
        assert await setting.runner().work() is False  # the lease of the dead process still holds
        await resolve(setting, [history[0], event(e, ("email", email))])
        done = await setting.finish(deletion)
        counts = {place.name: place.count for place in done.places}
        assert (counts["events"], counts["profiles"], counts["identifiers"]) == (3, 2, 3), step
        assert all({a, b, c} <= told for told in setting.others.told.values()), step
        stored = await read_stored(setting.db)
        assert {found.event.message_id for found in stored.events} == left, step
        assert stored.graph.profiles.keys() == {profile_id(WORKSPACE, m) for m in left}, step


async def test_who_is_silent_holds_up_the_removal(setting: Setting) -> None:
    """What the silent one must be told could not be found any more."""
    await resolve(setting, HISTORY)
    deletion = await setting.requests.delete(WORKSPACE, Named(("user_id", "user-1")), "")
    setting.others.silent = {"audience"}
    await setting.runner().work()
    waiting = await Deletions(setting.db).get(WORKSPACE, deletion.id)
    assert waiting is not None and waiting.waiting_for == "audience cannot be reached."
    assert await setting.db[log.EVENTS].count_documents({}) == 4
    setting.others.silent = set()
    await setting.finish(deletion)
    assert setting.others.told["audience"] == {"1", "2", "3"}


@pytest.mark.parametrize("seed", range(4))
async def test_a_deletion_while_the_person_is_merged(setting: Setting, seed: int) -> None:
    """Whoever is quicker: what joined the person before is deleted, what comes after is refused or is somebody else."""
    rng = random.Random(seed)
    await resolve(setting, HISTORY)
    await resolve(setting, [event("6", ("anonymous_id", "device-2"))])
    joining = [
        event("7", ("user_id", "user-1"), ("anonymous_id", "device-2")),
        *(event(f"more-{i}", ("anonymous_id", f"device-{1 + i % 3}")) for i in range(6)),
    ]
    rng.shuffle(joining)

    async def join() -> None:
        for one in joining:
            await asyncio.sleep(rng.random() / 100)
            await resolve(setting, [one])

    async def delete() -> None:
        await asyncio.sleep(rng.random() / 30)
        deletion = await setting.requests.delete(WORKSPACE, Named(("user_id", "user-1")), "")
        await setting.runner().work()
        await setting.finish(deletion) if not await done(deletion) else None

    async def done(deletion: Deletion) -> bool:
        found = await Deletions(setting.db).get(WORKSPACE, deletion.id)
        return found is not None and found.state == DONE

    await asyncio.gather(join(), delete())
    stored = await read_stored(setting.db)
    # Nobody's events, profiles or identifiers lead to somebody who is gone, and nothing of user-1 is left.
    assert stored.graph.profiles.keys() >= {e.profile_id for e in stored.events if e.profile_id}
    assert stored.graph.profiles.keys() >= set(stored.graph.holders.values())
    for one in stored.events:
        named = {(i.namespace, i.value) for i in one.event.identifiers}
        assert named.isdisjoint({("user_id", "user-1"), ("anonymous_id", "device-1")})
    assert ("user_id", "user-1") not in stored.graph.holders
    # device-2 went with the person if and only if it had joined.
    gone = {"6", "7"} - {e.event.message_id for e in stored.events}
    assert gone in ({"7"}, {"6", "7"})
    assert (("anonymous_id", "device-2") in stored.graph.holders) == ("6" not in gone)


async def resolve(setting: Setting, events: list[Event]) -> None:
    await setting.worker().process(WORKSPACE, [Incoming(e, "s1", i) for i, e in enumerate(events)])
