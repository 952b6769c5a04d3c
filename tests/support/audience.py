"""The audience service in this process, on the stores of the tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from headrace_audience.bootstrap import open_service
from headrace_audience.definitions.computed_traits import ComputedTraits
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.facts import facts_of_resolved
from headrace_audience.offline.reference import Reference
from headrace_audience.settings import Settings

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.audience.v1.audience_pb2 import AUDIENCE_STATE_ACTIVE, Audience
from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceStub
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.rpc.channel import with_token

QUICK: dict[str, Any] = {
    "partitions": 4,
    "audience_lease_seconds": 10.0,
    "audience_sweep_seconds": 0.1,
    "audience_snapshot_seconds": 0.5,
    "audience_groups_seconds": 0.2,
    "archive_interval_seconds": 0.3,
    "archive_settle_seconds": 0.2,
    "archive_compact_files": 3,
    "archive_query_threads": 1,
    "audience_check_seconds": 3600.0,
}
"""Settings with which everything happens within a second."""

COUNT = {"where": {"event": "Purchased"}}


class NoComputedTraits(ComputedTraits):
    """No workspace has any."""

    def __init__(self) -> None:
        """Ask nobody."""

    async def all(self, workspace_id: str) -> dict[str, str]:
        return {}


class AudienceClient:
    """Calls of one workspace."""

    def __init__(self, stub: Any, workspace_id: str = "acme") -> None:
        self.stub = stub
        self.parent = f"workspaces/{workspace_id}"

    def name(self, audience_id: str) -> str:
        return f"{self.parent}/audiences/{audience_id}"

    async def create(self, audience_id: str, definition: Mapping[str, Any] | str, **fields: Any) -> Audience:
        text = definition if isinstance(definition, str) else json.dumps(definition)
        request = pb.CreateAudienceRequest(
            parent=self.parent,
            audience_id=audience_id,
            audience=Audience(display_name=fields.pop("display_name", audience_id), definition=text),
            **fields,
        )
        answer: Audience = (await self.stub.CreateAudience(request)).audience
        return answer

    async def get(self, audience_id: str) -> Audience:
        answer: Audience = (await self.stub.GetAudience(pb.GetAudienceRequest(name=self.name(audience_id)))).audience
        return answer

    async def activate(self, audience_id: str) -> Audience:
        request = pb.ActivateAudienceRequest(name=self.name(audience_id))
        answer: Audience = (await self.stub.ActivateAudience(request)).audience
        return answer

    async def pause(self, audience_id: str) -> Audience:
        answer: Audience = (
            await self.stub.PauseAudience(pb.PauseAudienceRequest(name=self.name(audience_id)))
        ).audience
        return answer

    async def delete(self, audience_id: str) -> None:
        await self.stub.DeleteAudience(pb.DeleteAudienceRequest(name=self.name(audience_id)))

    async def update(self, audience_id: str, definition: Mapping[str, Any] | str) -> Audience:
        text = definition if isinstance(definition, str) else json.dumps(definition)
        request = pb.UpdateAudienceRequest(audience=Audience(name=self.name(audience_id), definition=text))
        answer: Audience = (await self.stub.UpdateAudience(request)).audience
        return answer

    async def start(self, audience_id: str, definition: Mapping[str, Any]) -> None:
        """Create, activate and wait until it is filled."""
        await self.create(audience_id, definition)
        await self.activate(audience_id)
        await self.active(audience_id)

    async def active(self, audience_id: str) -> None:
        async def is_active() -> bool:
            return (await self.get(audience_id)).state == AUDIENCE_STATE_ACTIVE

        await eventually(is_active)

    async def members(self, audience_id: str) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            request = pb.ListMembersRequest(parent=self.name(audience_id), page_size=1_000, page_token=token)
            answer = await self.stub.ListMembers(request)
            found += [m.profile_id for m in answer.members]
            token = answer.next_page_token
            if not token:
                return found

    async def has_members(self, audience_id: str, expected: list[str]) -> None:
        """Wait until the members are these."""
        found: list[str] = []

        async def same() -> bool:
            nonlocal found
            found = await self.members(audience_id)
            return found == sorted(expected)

        await eventually(same, lambda: f"members of {audience_id} are {found}, not {sorted(expected)}")

    async def changes(self, **fields: Any) -> list[Any]:
        """Changes, oldest first."""
        fields.setdefault("parent", self.parent)
        answer = await self.stub.ListMembershipChanges(pb.ListMembershipChangesRequest(page_size=1_000, **fields))
        return list(reversed(answer.changes))

    async def verify(self, audience_id: str, *, repair: bool = False) -> Any:
        return await self.stub.VerifyAudience(pb.VerifyAudienceRequest(name=self.name(audience_id), repair=repair))


@asynccontextmanager
async def serving_audience(settings: Settings, workspace_id: str = "acme") -> AsyncIterator[AudienceClient]:
    """A replica, and a client of it."""
    async with open_service(settings) as running, client_of(running.grpc_address, settings, workspace_id) as client:
        yield client


@asynccontextmanager
async def client_of(address: str, settings: Settings, workspace_id: str = "acme") -> AsyncIterator[AudienceClient]:
    """A client of a replica."""
    channel = with_token(address, settings.service_token.get_secret_value())
    try:
        yield AudienceClient(AudienceServiceStub(channel), workspace_id)
    finally:
        await channel.close(grace=None)


async def eventually(
    condition: Callable[[], Awaitable[bool]], what: Callable[[], str] = lambda: "", timeout_s: float = 60.0
) -> None:
    """Wait until a condition holds; a minute is long enough on any machine and none that works needs it."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(what() or "the condition did not come to hold")
        await asyncio.sleep(0.03)


def expected_members(
    stored: Iterable[ResolvedEvent], into: Mapping[str, str], definition: Mapping[str, Any], at_us: int
) -> list[str]:
    """Who the naive reference says is in, of everything that is in the log."""

    def survivor(profile_id: str) -> str:
        while profile_id in into:
            profile_id = into[profile_id]
        return profile_id

    facts = facts_of_resolved(stored, {p: survivor(p) for p in into})
    return Reference(facts).members(parse_definition(definition), at_us)
