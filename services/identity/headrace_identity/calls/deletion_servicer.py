"""Deleting and suppressing people, as methods of ProfileService."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.api.identity.v1 import profile_service_pb2 as pb
from headrace.domain.times import now_us
from headrace.rpc import auth, errors, names
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager, page_size
from headrace.rpc.scopes import PROFILES_READ, PROFILES_WRITE
from headrace_identity.deletion import records
from headrace_identity.deletion.keys import KeyRing
from headrace_identity.deletion.person import Named
from headrace_identity.deletion.refusing import Refusals
from headrace_identity.deletion.requests import Requests
from headrace_identity.deletion.tombstones import Tombstones
from headrace_identity.documents import SEPARATOR

_MOST_REASON = 500
_MOST_IDENTIFIERS = 10_000
_TOMBSTONES_A_PAGE = 10_000

_STATES = {
    records.WAITING: pb.DELETION_STATE_WAITING,
    records.RUNNING: pb.DELETION_STATE_RUNNING,
    records.DONE: pb.DELETION_STATE_DONE,
    records.CANCELLED: pb.DELETION_STATE_CANCELLED,
}
_STATE_NAMES = {number: name for name, number in _STATES.items()}


class DeletionCalls:
    """Serves what ProfileService says of deletion and suppression."""

    def __init__(
        self,
        requests: Requests,
        keys: KeyRing,
        tombstones: Tombstones,
        refusals: Refusals,
        request_ids: RequestIds,
        pager: Pager,
    ) -> None:
        """Serve from these."""
        self._requests = requests
        self._keys = keys
        self._tombstones = tombstones
        self._refusals = refusals
        self._request_ids = request_ids
        self._pager = pager

    async def RequestDeletion(self, request: pb.RequestDeletionRequest, context: Any) -> pb.RequestDeletionResponse:
        """See the proto."""
        workspace_id = _workspace(PROFILES_WRITE, request.parent)
        if len(request.reason) > _MOST_REASON:
            raise errors.invalid_argument("reason", f"must have at most {_MOST_REASON} characters")
        named = await self._named(workspace_id, request)

        async def act() -> pb.RequestDeletionResponse:
            deletion = await self._requests.delete(workspace_id, named, request.reason)
            return pb.RequestDeletionResponse(deletion=_message(deletion))

        return await self._request_ids.once(
            workspace_id, "RequestDeletion", request.request_id, request, pb.RequestDeletionResponse, act
        )

    async def CancelDeletion(self, request: pb.CancelDeletionRequest, context: Any) -> pb.CancelDeletionResponse:
        """See the proto."""
        workspace_id, deletion_id = _deletion(PROFILES_WRITE, request.name)
        deletion = await self._requests.cancel(workspace_id, deletion_id)
        return pb.CancelDeletionResponse(deletion=_message(deletion))

    async def GetDeletion(self, request: pb.GetDeletionRequest, context: Any) -> pb.GetDeletionResponse:
        """See the proto."""
        workspace_id, deletion_id = _deletion(PROFILES_READ, request.name)
        deletion = await self._requests.deletions.get(workspace_id, deletion_id)
        if deletion is None:
            raise errors.not_found(request.name)
        return pb.GetDeletionResponse(deletion=_message(deletion))

    async def ListDeletions(self, request: pb.ListDeletionsRequest, context: Any) -> pb.ListDeletionsResponse:
        """See the proto."""
        workspace_id = _workspace(PROFILES_READ, request.parent)
        size = page_size(request.page_size)
        if request.state and request.state not in _STATE_NAMES:
            raise errors.invalid_argument("state", "must be one of DeletionState")
        arguments = [request.parent, str(request.state)]
        before = self._pager.decode("ListDeletions", arguments, request.page_token) or ""
        state = _STATE_NAMES.get(request.state, "")
        found = await self._requests.deletions.page(workspace_id, before, state, size + 1)
        token = ""
        if len(found) > size:
            token = self._pager.encode("ListDeletions", arguments, found[size - 1].id)
        refused = await self._refusals.by_day(workspace_id) if not before else []
        return pb.ListDeletionsResponse(
            deletions=[_message(d) for d in found[:size]],
            next_page_token=token,
            refused=[pb.RefusedCount(day=day, count=count) for day, count in refused],
        )

    async def SuppressProfile(self, request: pb.SuppressProfileRequest, context: Any) -> pb.SuppressProfileResponse:
        """See the proto."""
        workspace_id = _workspace(PROFILES_WRITE, request.parent)
        named = await self._named(workspace_id, request)

        async def act() -> pb.SuppressProfileResponse:
            added = await self._requests.suppress(workspace_id, named)
            return pb.SuppressProfileResponse(suppressed_identifiers=added)

        return await self._request_ids.once(
            workspace_id, "SuppressProfile", request.request_id, request, pb.SuppressProfileResponse, act
        )

    async def UnsuppressProfile(
        self, request: pb.UnsuppressProfileRequest, context: Any
    ) -> pb.UnsuppressProfileResponse:
        """See the proto."""
        workspace_id = _workspace(PROFILES_WRITE, request.parent)
        identifier = await self._identifier(workspace_id, request.identifier)

        async def act() -> pb.UnsuppressProfileResponse:
            lifted = await self._requests.unsuppress(workspace_id, identifier)
            return pb.UnsuppressProfileResponse(unsuppressed_identifiers=lifted)

        return await self._request_ids.once(
            workspace_id, "UnsuppressProfile", request.request_id, request, pb.UnsuppressProfileResponse, act
        )

    async def CheckErased(self, request: pb.CheckErasedRequest, context: Any) -> pb.CheckErasedResponse:
        """See the proto."""
        auth.require_service()
        (workspace_id,) = names.parse(names.WORKSPACE, request.parent, "parent")
        if not 1 <= len(request.identifiers) <= _MOST_IDENTIFIERS:
            raise errors.invalid_argument("identifiers", f"must be 1 to {_MOST_IDENTIFIERS} identifiers")
        erased = await self._requests.erased(workspace_id, [(i.namespace, i.value) for i in request.identifiers])
        return pb.CheckErasedResponse(erased=erased)

    async def FollowTombstones(self, request: pb.FollowTombstonesRequest, context: Any) -> pb.FollowTombstonesResponse:
        """See the proto."""
        auth.require_service()
        for refusals in request.refusals:
            await self._refusals.add(refusals.workspace_id, refusals.count)
        arguments = [str(request.from_sequence)]
        after = self._pager.decode("FollowTombstones", arguments, request.page_token) or ""
        now = now_us()
        found, last = await self._tombstones.changed_since(request.from_sequence, after, _TOMBSTONES_A_PAGE)
        keys = await self._keys.sealed_tombstone_keys(sorted({d["w"] for d in found})) if found else {}
        return pb.FollowTombstonesResponse(
            tombstones=[
                pb.Tombstone(
                    workspace_id=d["w"],
                    digest=bytes.fromhex(d["_id"].rpartition(SEPARATOR)[2]),
                    shared=d["h"],
                    lifted=d["x"],
                    sequence=d["s"],
                )
                for d in found
            ],
            next_page_token=self._pager.encode("FollowTombstones", arguments, last) if last else "",
            keys=[pb.TombstoneKey(workspace_id=w, sealed_key=sealed) for w, sealed in keys.items()],
            sequence=now,
        )

    async def GetReceiptKey(self, request: pb.GetReceiptKeyRequest, context: Any) -> pb.GetReceiptKeyResponse:
        """See the proto."""
        keys = await self._keys.of(_workspace(PROFILES_READ, request.parent))
        return pb.GetReceiptKeyResponse(key_id=keys.receipt_key_id, public_key=keys.public_key.public_bytes_raw())

    async def _named(self, workspace_id: str, request: pb.RequestDeletionRequest | pb.SuppressProfileRequest) -> Named:
        """Exactly one of identifier and profile."""
        if request.HasField("identifier") == bool(request.profile):
            raise errors.invalid_argument("identifier", "give either identifier or profile, and not both")
        if request.profile:
            own_workspace, profile_id = names.parse(names.PROFILE, request.profile, "profile")
            if own_workspace != workspace_id:
                raise errors.invalid_argument("profile", "must be in the workspace of parent")
            return Named(profile_id=profile_id)
        return Named(await self._identifier(workspace_id, request.identifier))

    async def _identifier(self, workspace_id: str, identifier: IdentifierMessage) -> tuple[str, str]:
        if not identifier.namespace:
            raise errors.invalid_argument("identifier.namespace", "is required")
        if not identifier.value.strip():
            raise errors.invalid_argument("identifier.value", "is required")
        return await self._requests.normalised(workspace_id, identifier.namespace, identifier.value)


def _workspace(scope: str, parent: str) -> str:
    workspace_id = auth.authorize_name(scope, parent, "parent")
    names.parse(names.WORKSPACE, parent, "parent")
    return workspace_id


def _deletion(scope: str, name: str) -> tuple[str, str]:
    auth.authorize_name(scope, name)
    workspace_id, deletion_id = names.parse(names.DELETION, name)
    return workspace_id, deletion_id


def _message(deletion: records.Deletion) -> pb.Deletion:
    receipt = deletion.receipt
    return pb.Deletion(
        name=names.format(names.DELETION, deletion.workspace_id, deletion.id),
        state=_STATES[deletion.state],
        masked_identifier=deletion.masked,
        reason=deletion.reason,
        create_time=_time(deletion.created_us),
        due_time=_time(deletion.begun_us or deletion.due_us),
        end_time=_time(deletion.end_us) if deletion.end_us else None,
        receipt=pb.Receipt(statement=receipt.statement, signature=receipt.signature, key_id=receipt.key_id)
        if receipt is not None
        else None,
        waiting_for=deletion.waiting_for,
    )


def _time(moment_us: int) -> Timestamp:
    return Timestamp(seconds=moment_us // 1_000_000, nanos=moment_us % 1_000_000 * 1_000)
