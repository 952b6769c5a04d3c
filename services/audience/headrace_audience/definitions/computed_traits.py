"""The computed traits that audiences name: identity keeps them, and is asked for their definitions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches

import grpc

from headrace.api.identity.v1.computed_trait_service_pb2 import ListComputedTraitsRequest
from headrace.api.identity.v1.computed_trait_service_pb2_grpc import ComputedTraitServiceStub
from headrace.rpc import names
from headrace.rpc.errors import invalid_argument, is_unavailable, unavailable
from headrace_audience.language.definition import Definition
from headrace_audience.language.places import places_of

_PAGE = 1_000


class ComputedTraits:
    """Asks identity for the computed traits of workspaces."""

    def __init__(self, identity: grpc.aio.Channel) -> None:
        """Ask over a channel to identity, with the service token."""
        self._stub = ComputedTraitServiceStub(identity)

    async def all(self, workspace_id: str) -> dict[str, str]:
        """The definitions of all computed traits of a workspace, as JSON by id.

        Raises:
            ApiError: UNAVAILABLE, identity cannot be reached.
        """
        found: dict[str, str] = {}
        request = ListComputedTraitsRequest(parent=f"workspaces/{workspace_id}", page_size=_PAGE)
        while True:
            try:
                answer = await self._stub.ListComputedTraits(request)
            except grpc.aio.AioRpcError as error:
                if is_unavailable(error):
                    raise unavailable("Identity cannot be reached, which knows the computed traits.") from error
                raise
            for trait in answer.computed_traits:
                _, trait_id = names.parse(names.COMPUTED_TRAIT, trait.name, "name")
                found[trait_id] = trait.definition.decode()
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    async def named(self, workspace_id: str, source: str, parsed: Definition, field: str) -> dict[str, str]:
        """The definitions of the computed traits that an audience names, as JSON by id.

        Args:
            workspace_id: The workspace.
            source: The audience's definition as JSON.
            parsed: The same, read.
            field: What the request calls it.

        Raises:
            ApiError: INVALID_ARGUMENT that names the place of one that does not exist, and the nearest that does; or
                UNAVAILABLE.
        """
        if not parsed.computed_traits:
            return {}
        return chosen(await self.all(workspace_id), source, parsed, field)


def chosen(known: Mapping[str, str], source: str, parsed: Definition, field: str) -> dict[str, str]:
    """Those of all computed traits that a definition names; see ComputedTraits.named()."""
    for path, trait_id in places_of(json.loads(source), "computed"):
        if trait_id not in known:
            close = get_close_matches(trait_id, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise invalid_argument(
                f"{field}.{path}", f"there is no computed trait {trait_id!r} in this workspace{hint}"
            )
    return {trait_id: known[trait_id] for trait_id in sorted(parsed.computed_traits)}
