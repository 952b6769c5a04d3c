"""ComputedTraitService in gRPC: maps messages to calls and back."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.identity.v1 import computed_trait_service_pb2 as pb
from headrace.api.identity.v1.computed_trait_service_pb2_grpc import ComputedTraitServiceServicer
from headrace.rpc import auth, names
from headrace.rpc.errors import invalid_argument, not_found
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager, page_size
from headrace.rpc.scopes import PROFILES_READ, PROFILES_WRITE
from headrace.storage.mongo.client import Database, Document
from headrace_identity.computed.reading import ComputedValues
from headrace_identity.computed.store import READY, ComputedTraitStore, etag_of
from headrace_identity.computed.verifying import verify
from headrace_identity.people.profiles import Profiles

_CHANGEABLE = frozenset({"display_name", "definition"})


class ComputedTraitServicer(ComputedTraitServiceServicer):
    """Serves ComputedTraitService."""

    def __init__(
        self, db: Database, store: ComputedTraitStore, profiles: Profiles, pager: Pager, request_ids: RequestIds
    ) -> None:
        """Serve what keeps definitions, and verify against the profiles' events."""
        self._db = db
        self._store = store
        self._values = ComputedValues(db)
        self._profiles = profiles
        self._pager = pager
        self._request_ids = request_ids

    async def CreateComputedTrait(
        self, request: pb.CreateComputedTraitRequest, context: Any
    ) -> pb.CreateComputedTraitResponse:
        """See the proto."""
        workspace_id = _workspace(PROFILES_WRITE, request.parent)
        trait_id = names.check_id("computed_trait_id", request.computed_trait_id)
        trait = request.computed_trait

        async def act() -> pb.CreateComputedTraitResponse:
            document = await self._store.create(
                workspace_id, trait_id, trait.display_name, trait.definition, request.request_id
            )
            return pb.CreateComputedTraitResponse(computed_trait=_message(document))

        return await self._request_ids.once(
            workspace_id, "CreateComputedTrait", request.request_id, request, pb.CreateComputedTraitResponse, act
        )

    async def GetComputedTrait(self, request: pb.GetComputedTraitRequest, context: Any) -> pb.GetComputedTraitResponse:
        """See the proto."""
        document = await self._store.get(*_named(PROFILES_READ, request.name))
        return pb.GetComputedTraitResponse(computed_trait=_message(document))

    async def ListComputedTraits(
        self, request: pb.ListComputedTraitsRequest, context: Any
    ) -> pb.ListComputedTraitsResponse:
        """See the proto."""
        workspace_id = _workspace(PROFILES_READ, request.parent)
        size = page_size(request.page_size)
        arguments = [request.parent]
        after = self._pager.decode("ListComputedTraits", arguments, request.page_token) or ""
        found = await self._store.page(workspace_id, after, size + 1)
        token = ""
        if len(found) > size:
            token = self._pager.encode("ListComputedTraits", arguments, found[size - 1]["i"])
        return pb.ListComputedTraitsResponse(computed_traits=[_message(d) for d in found[:size]], next_page_token=token)

    async def UpdateComputedTrait(
        self, request: pb.UpdateComputedTraitRequest, context: Any
    ) -> pb.UpdateComputedTraitResponse:
        """See the proto."""
        trait = request.computed_trait
        workspace_id, trait_id = _named(PROFILES_WRITE, trait.name, "computed_trait.name")
        display_name: str | None = trait.display_name or None
        definition: bytes | None = trait.definition or None
        if request.HasField("update_mask"):
            paths = set(request.update_mask.paths)
            for path in sorted(paths - _CHANGEABLE - {"*"}):
                raise invalid_argument("update_mask", f"{path!r} cannot be changed; display_name and definition can")
            display_name = trait.display_name if paths & {"display_name", "*"} else None
            definition = trait.definition if paths & {"definition", "*"} else None

        async def act() -> pb.UpdateComputedTraitResponse:
            document = await self._store.update(
                workspace_id, trait_id, display_name=display_name, definition=definition, etag=trait.etag
            )
            return pb.UpdateComputedTraitResponse(computed_trait=_message(document))

        return await self._request_ids.once(
            workspace_id, "UpdateComputedTrait", request.request_id, request, pb.UpdateComputedTraitResponse, act
        )

    async def DeleteComputedTrait(
        self, request: pb.DeleteComputedTraitRequest, context: Any
    ) -> pb.DeleteComputedTraitResponse:
        """See the proto."""
        workspace_id, trait_id = _named(PROFILES_WRITE, request.name)

        async def act() -> pb.DeleteComputedTraitResponse:
            await self._store.delete(workspace_id, trait_id)
            return pb.DeleteComputedTraitResponse()

        return await self._request_ids.once(
            workspace_id, "DeleteComputedTrait", request.request_id, request, pb.DeleteComputedTraitResponse, act
        )

    async def VerifyComputedTrait(
        self, request: pb.VerifyComputedTraitRequest, context: Any
    ) -> pb.VerifyComputedTraitResponse:
        """See the proto."""
        workspace_id, trait_id = _named(PROFILES_READ, request.name)
        profile_workspace_id, profile_id = names.parse(names.PROFILE, request.profile, "profile")
        if profile_workspace_id != workspace_id:
            raise invalid_argument("profile", "must be of the same workspace as the computed trait")
        await self._store.get(workspace_id, trait_id)
        people = await self._profiles.get(workspace_id, [profile_id])
        if profile_id not in people:
            raise not_found(request.profile)
        parts = people[profile_id].profile.parts
        verified = await verify(self._db, self._store, self._values, workspace_id, trait_id, parts)
        return pb.VerifyComputedTraitResponse(**verified._asdict())


def _workspace(scope: str, parent: str) -> str:
    workspace_id = auth.authorize_name(scope, parent, "parent")
    names.parse(names.WORKSPACE, parent, "parent")
    return workspace_id


def _named(scope: str, name: str, field: str = "name") -> tuple[str, str]:
    workspace_id = auth.authorize_name(scope, name, field)
    return workspace_id, names.parse(names.COMPUTED_TRAIT, name, field)[1]


def _message(document: Document) -> pb.ComputedTrait:
    ready = document["st"] == READY
    return pb.ComputedTrait(
        name=names.format(names.COMPUTED_TRAIT, document["w"], document["i"]),
        display_name=document["n"],
        definition=document["d"],
        state=pb.COMPUTED_TRAIT_STATE_READY if ready else pb.COMPUTED_TRAIT_STATE_FILLING,
        events_done=document["done"],
        create_time=_time(document["ct"]),
        update_time=_time(document["ut"]),
        etag=etag_of(document),
    )


def _time(moment_us: int) -> Timestamp:
    return Timestamp(seconds=moment_us // 1_000_000, nanos=moment_us % 1_000_000 * 1_000)
