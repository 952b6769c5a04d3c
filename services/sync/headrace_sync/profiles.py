"""Profiles of people, asked of identity in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc
import msgspec

from headrace.api.identity.v1 import profile_pb2
from headrace.api.identity.v1.profile_service_pb2 import BatchGetProfilesRequest
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace_sdk import Profile
from headrace_sync.batching import chunks

_AT_A_TIME = 500


class Profiles:
    """Reads profiles through `ProfileService`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Ask over a channel of the service's own."""
        self._stub = ProfileServiceStub(channel)

    async def get(self, workspace_id: str, profile_ids: Iterable[str]) -> dict[str, Profile]:
        """Profiles by the id that was asked for; unknown ones are left out.

        A profile that was merged is answered by its survivor, whose id then differs from the one asked for.

        Raises:
            grpc.aio.AioRpcError: Identity does not answer.
        """
        ids = sorted({id for id in profile_ids if id})
        found: dict[str, Profile] = {}
        for answer in await asyncio.gather(
            *(self._batch(workspace_id, list(part)) for part in chunks(ids, _AT_A_TIME))
        ):
            found.update(answer)
        return found

    async def _batch(self, workspace_id: str, profile_ids: list[str]) -> dict[str, Profile]:
        request = BatchGetProfilesRequest(parent=f"workspaces/{workspace_id}", profile_ids=profile_ids)
        answer = await self._stub.BatchGetProfiles(request)
        return {r.profile_id: profile_of(r.profile) for r in answer.results if r.HasField("profile")}


def profile_of(message: profile_pb2.Profile) -> Profile:
    """A profile as connectors know it."""
    identifiers: dict[str, list[str]] = {}
    for identifier in message.identifiers:
        identifiers.setdefault(identifier.namespace, []).append(identifier.value)
    return Profile(
        id=message.name.rpartition("/")[2],
        identifiers=identifiers,
        traits={trait.name: msgspec.json.decode(trait.value) for trait in message.traits},
    )
