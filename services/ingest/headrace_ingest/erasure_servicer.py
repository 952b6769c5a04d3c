"""ErasureService of ingest: protobuf to the eraser and back."""

from __future__ import annotations

from headrace.api.common.v1 import erasure_service_pb2 as pb
from headrace.rpc.erasure import ErasureServicer
from headrace_ingest.erasure import Erased, Eraser


def erasure_servicer(eraser: Eraser) -> ErasureServicer:
    """The servicer of what removes."""

    async def erase(workspace_id: str, request: pb.ErasePersonRequest) -> list[pb.ErasedPlace]:
        whom = Erased(
            workspace_id,
            frozenset((i.namespace, i.value) for i in (*request.identifiers, *request.raw_identifiers)),
            frozenset(request.message_ids),
            tuple(request.segment_ids),
        )
        return [
            pb.ErasedPlace(place=place, outcome=pb.ERASURE_OUTCOME_REMOVED, count=count)
            for place, count in (await eraser.erase(whom)).items()
        ]

    return ErasureServicer(erase)
