"""Profiles of people, asked of identity in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import grpc
import msgspec

from headrace.api.identity.v1 import profile_pb2
from headrace.api.identity.v1.profile_service_pb2 import BatchGetProfilesRequest, ListProfilesRequest
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace_sdk import Profile
from headrace_sync.batching import chunks
from headrace_sync.people.consents import Consents, consents_of

_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class Person:
    """A person as identity knows them.

    Attributes:
        profile: As connectors know it.
        consents: What they said last about each purpose, with its provenance.
    """

    profile: Profile
    consents: Consents


class Profiles:
    """Reads profiles through `ProfileService`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Ask over a channel of the service's own."""
        self._stub = ProfileServiceStub(channel)

    async def get(self, workspace_id: str, profile_ids: Iterable[str]) -> dict[str, Person]:
        """People by the profile id that was asked for; unknown ones are left out.

        A profile that was merged is answered by its survivor, whose id then differs from the one asked for.

        Raises:
            grpc.aio.AioRpcError: Identity does not answer.
        """
        ids = sorted({id for id in profile_ids if id})
        found: dict[str, Person] = {}
        for answer in await asyncio.gather(
            *(self._batch(workspace_id, list(part)) for part in chunks(ids, _AT_A_TIME))
        ):
            found.update(answer)
        return found

    async def some(self, workspace_id: str, most: int) -> list[Person]:
        """Some people of a workspace, at most 1,000.

        Raises:
            grpc.aio.AioRpcError: Identity does not answer.
        """
        request = ListProfilesRequest(parent=f"workspaces/{workspace_id}", page_size=most)
        return [person_of(profile) for profile in (await self._stub.ListProfiles(request)).profiles]

    async def _batch(self, workspace_id: str, profile_ids: list[str]) -> dict[str, Person]:
        request = BatchGetProfilesRequest(parent=f"workspaces/{workspace_id}", profile_ids=profile_ids)
        answer = await self._stub.BatchGetProfiles(request)
        return {r.profile_id: person_of(r.profile) for r in answer.results if r.HasField("profile")}


def person_of(message: profile_pb2.Profile) -> Person:
    """A person from identity's message."""
    consents = consents_of(message)
    identifiers: dict[str, list[str]] = {}
    for identifier in message.identifiers:
        identifiers.setdefault(identifier.namespace, []).append(identifier.value)
    profile = Profile(
        id=message.name.rpartition("/")[2],
        identifiers=identifiers,
        traits={trait.name: msgspec.json.decode(trait.value) for trait in message.traits},
        consents={purpose: value.status for purpose, value in consents.items()},
    )
    return Person(profile, consents)
