"""Compares what the platform found with what the simulator knows, through the public gRPC methods only."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from headrace.api.audience.v1 import audience_service_pb2 as audience_api
from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceStub
from headrace.api.common.v1.event_pb2 import Identifier
from headrace.api.identity.v1 import profile_service_pb2 as profile_api
from headrace.api.identity.v1.profile_pb2 import DECISION_ACTION_CREATED, ResolvedEvent
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.api.sync.v1 import sync_service_pb2 as sync_api
from headrace.api.sync.v1.sync_service_pb2_grpc import SyncServiceStub
from headrace.demo.sandbox import SandboxVendor
from headrace.demo.simulator import Person, Story
from headrace.domain.times import DAY_US


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    expected: Any
    found: Any

    @property
    def right(self) -> bool:
        """True when the platform found what the simulator knows."""
        return bool(self.expected == self.found)


@dataclass(frozen=True)
class Report:
    """What came of the story."""

    checks: list[Check]
    """What can be compared with the truth."""
    events: int
    """Different events that were resolved."""
    people: int
    """Profiles, merged ones not counted."""
    merges: int
    """Profiles that were merged into others: how many depends on the order in which events arrive."""

    @property
    def right(self) -> bool:
        """True when everything is as the simulator knows it."""
        return all(check.right for check in self.checks)


AUDIENCES: dict[str, Callable[[Person, int], bool]] = {
    "viewed-not-purchased": lambda p, now: (
        p.count("Product viewed", now - 90 * DAY_US, now) > 0 and p.count("Purchased", now - 90 * DAY_US, now) == 0
    ),
    "buyers": lambda p, now: p.count("Purchased", now - 30 * DAY_US, now) > 0,
    "repeat-buyers": lambda p, now: p.count("Purchased", now - 45 * DAY_US, now) >= 2,
    "gold": lambda p, now: p.traits.get("plan") == "gold",
    "just-active": lambda p, now: False,
}
"""The demo's audiences restated over the truth. Nobody is just active once the demo has waited for the report."""

LISTS = {"gold": ("6001", "gold"), "viewed-not-purchased": ("6002", "viewed-not-purchased")}
"""Destination -> (list at the sandbox vendor, audience that it mirrors)."""


class Platform:
    """The few reads that the report needs."""

    def __init__(self, identity: grpc.aio.Channel, audience: grpc.aio.Channel, sync: grpc.aio.Channel, workspace: str):
        self._profiles = ProfileServiceStub(identity)
        self._audiences = AudienceServiceStub(audience)
        self._syncs = SyncServiceStub(sync)
        self._parent = f"workspaces/{workspace}"

    async def profile_of(self, identifier: tuple[str, str]) -> str | None:
        """Id of the profile that holds an identifier; None when no profile does."""
        wanted = Identifier(namespace=identifier[0], value=identifier[1])
        request = profile_api.LookupProfileRequest(parent=self._parent, identifier=wanted)
        try:
            answer = await self._profiles.LookupProfile(request)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return None
            raise
        return str(answer.profile.name.rsplit("/", 1)[1])

    async def profiles(self) -> list[Any]:
        """All profiles of the workspace."""
        return await _pages(
            lambda token: self._profiles.ListProfiles(
                profile_api.ListProfilesRequest(parent=self._parent, page_size=1000, page_token=token)
            ),
            "profiles",
        )

    async def events(self, profile_id: str) -> list[ResolvedEvent]:
        """A profile's events with the decisions on them, newest first."""
        name = f"{self._parent}/profiles/{profile_id}"
        return await _pages(
            lambda token: self._profiles.ListProfileEvents(
                profile_api.ListProfileEventsRequest(parent=name, page_size=1000, page_token=token)
            ),
            "events",
        )

    async def members(self, audience: str) -> set[str]:
        """Profile ids of an audience's members."""
        name = f"{self._parent}/audiences/{audience}"
        members = await _pages(
            lambda token: self._audiences.ListMembers(
                audience_api.ListMembersRequest(parent=name, page_size=1000, page_token=token)
            ),
            "members",
        )
        return {m.profile_id for m in members}

    async def changes(self, audience: str) -> list[Any]:
        """History of an audience, newest first."""
        name = f"{self._parent}/audiences/{audience}"
        return await _pages(
            lambda token: self._audiences.ListMembershipChanges(
                audience_api.ListMembershipChangesRequest(parent=name, page_size=1000, page_token=token)
            ),
            "changes",
        )

    async def ledger(self, sync: str) -> sync_api.GetLedgerResponse:
        """Account of a sync."""
        return await self._syncs.GetLedger(sync_api.GetLedgerRequest(name=f"{self._parent}/syncs/{sync}"))


async def compare(story: Story, platform: Platform, sandbox: SandboxVendor, now_us: int) -> Report:
    """The whole report, at one moment in microseconds since 1970 UTC."""
    found = await _profiles_of_people(story.people, platform)
    profiles = [profile.name.rsplit("/", 1)[1] for profile in await platform.profiles()]
    timelines = await _timelines(profiles, platform)
    decisions = [event.decision for events in timelines.values() for event in events]
    created = sum(decision.action == DECISION_ACTION_CREATED for decision in decisions)
    merges = sum(len(decision.merges) for decision in decisions)
    checks = [
        Check("people found", len(story.people), len(profiles)),
        Check("profiles created, less those merged into others", len(story.people), created - merges),
        Check("people whose identifiers all lead to one profile of their own", len(story.people), _alone(found)),
        Check("people with exactly their own events", len(story.people), _with_own_events(story, found, timelines)),
    ]
    people = {next(iter(ids)): person for person, ids in found if len(ids) == 1}
    for audience, belongs in AUDIENCES.items():
        expected = {p.key for p in story.people if belongs(p, now_us)}
        members = {people[m].key if m in people else m for m in await platform.members(audience)}
        checks.append(Check(f"audience {audience}: size", len(expected), len(members)))
        checks.append(Check(f"audience {audience}: people in or out by mistake", 0, len(expected ^ members)))
    history = await platform.changes("just-active")
    checks.append(Check("just-active: left by time alone", True, _all_left_by_time(history)))
    for name, (list_id, audience) in LISTS.items():
        people_wanted = [p for p in story.people if AUDIENCES[audience](p, now_us)]
        hashes = {h for person in people_wanted for h in _emails(person)}
        rows = sandbox.lists.get(list_id, set())
        held = {value for row in rows for key, value in row if key == "EMAIL"}
        checks.append(Check(f"sandbox list {name}: rows", len(hashes), len(rows)))
        checks.append(Check(f"sandbox list {name}: e-mail addresses missing or wrong", 0, len(hashes ^ held)))
    ledger = await platform.ledger("purchases")
    checks += [
        Check("events in the ledger", story.distinct_events, ledger.expected),
        Check("purchases delivered to the webhook", len(story.purchases), len(sandbox.webhook_ids)),
        Check("purchases delivered more than once", 0, sum(1 for n in sandbox.webhook_ids.values() if n > 1)),
        Check("events not accounted for", 0, ledger.unaccounted + ledger.waiting + ledger.failed),
    ]
    return Report(checks, events=len(decisions), people=len(profiles), merges=merges)


async def _profiles_of_people(people: Iterable[Person], platform: Platform) -> list[tuple[Person, set[str | None]]]:
    limit = asyncio.Semaphore(32)

    async def one(person: Person) -> tuple[Person, set[str | None]]:
        async with limit:
            return person, {await platform.profile_of(i) for i in sorted(person.identifiers)}

    return await asyncio.gather(*(one(p) for p in people))


def _alone(found: list[tuple[Person, set[str | None]]]) -> int:
    owners: dict[str | None, int] = {}
    for _, ids in found:
        for profile_id in ids:
            owners[profile_id] = owners.get(profile_id, 0) + 1
    return sum(1 for _, ids in found if len(ids) == 1 and None not in ids and owners[next(iter(ids))] == 1)


async def _timelines(profiles: Iterable[str], platform: Platform) -> dict[str, list[ResolvedEvent]]:
    limit = asyncio.Semaphore(32)

    async def one(profile_id: str) -> tuple[str, list[ResolvedEvent]]:
        async with limit:
            return profile_id, await platform.events(profile_id)

    return dict(await asyncio.gather(*(one(p) for p in profiles)))


def _with_own_events(
    story: Story, found: list[tuple[Person, set[str | None]]], timelines: dict[str, list[ResolvedEvent]]
) -> int:
    from_simulator = {m for p in story.people for m in p.message_ids}

    def has_own(person: Person, ids: set[str | None]) -> bool:
        profile_id = next(iter(ids))
        if len(ids) != 1 or profile_id is None:
            return False
        # The CRM's messages get their ids on arrival; only the simulator's own can be compared by id.
        events = {event.event.message_id for event in timelines.get(profile_id, ())}
        return events & from_simulator == person.message_ids

    return sum(has_own(person, ids) for person, ids in found)


def _all_left_by_time(history: list[Any]) -> bool:
    entered = {c.profile_id for c in history if c.member}
    left = {c.profile_id for c in history if not c.member and c.cause == "time"}
    return bool(entered) and entered == left


def _emails(person: Person) -> set[str]:
    emails = [value for namespace, value in person.identifiers if namespace == "email"]
    return {hashlib.sha256(e.encode()).hexdigest() for e in emails}


async def _pages(call: Callable[[str], Awaitable[Any]], field: str) -> list[Any]:
    items: list[Any] = []
    token = ""
    while True:
        page = await call(token)
        items += getattr(page, field)
        token = page.next_page_token
        if not token:
            return items
