"""ErasureService of the audience service: protobuf to the eraser and back."""

from __future__ import annotations

from headrace.api.common.v1 import erasure_service_pb2 as pb
from headrace.rpc.erasure import ErasureServicer
from headrace_audience.people.erasure import Eraser, Whom


def erasure_servicer(eraser: Eraser) -> ErasureServicer:
    """The servicer of what removes."""

    async def erase(workspace_id: str, request: pb.ErasePersonRequest) -> list[pb.ErasedPlace]:
        whom = Whom(workspace_id, request.deletion_id, frozenset(request.profile_ids), frozenset(request.message_ids))
        return [
            pb.ErasedPlace(
                place=place.name,
                outcome=pb.ERASURE_OUTCOME_FAILED if place.fault else pb.ERASURE_OUTCOME_REMOVED,
                count=place.count,
                detail=place.fault,
            )
            for place in await eraser.erase(whom)
        ]

    return ErasureServicer(erase)
