"""ErasureService of the sync service: protobuf to the eraser and back."""

from __future__ import annotations

from headrace.api.common.v1 import erasure_service_pb2 as pb
from headrace.rpc.erasure import ErasureServicer
from headrace_sync.erasure.eraser import Eraser, Result, Whom

_OUTCOMES = {
    Result.REMOVED: pb.ERASURE_OUTCOME_REMOVED,
    Result.REQUESTED: pb.ERASURE_OUTCOME_REQUESTED,
    Result.NOT_SUPPORTED: pb.ERASURE_OUTCOME_NOT_SUPPORTED,
    Result.FAILED: pb.ERASURE_OUTCOME_FAILED,
}


def erasure_servicer(eraser: Eraser) -> ErasureServicer:
    """The servicer of what removes, and asks destinations."""

    async def erase(workspace_id: str, request: pb.ErasePersonRequest) -> list[pb.ErasedPlace]:
        identifiers: dict[str, list[str]] = {}
        for identifier in request.identifiers:
            identifiers.setdefault(identifier.namespace, []).append(identifier.value)
        whom = Whom(
            workspace_id,
            request.deletion_id,
            list(dict.fromkeys(request.profile_ids)),
            identifiers,
            list(dict.fromkeys(request.message_ids)),
        )
        return [
            pb.ErasedPlace(place=p.name, outcome=_OUTCOMES[p.result], count=p.count, detail=p.detail)
            for p in await eraser.erase(whom)
        ]

    return ErasureServicer(erase)
