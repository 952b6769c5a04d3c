"""Tells the other services to remove a person, and takes down what they say about each place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc

from headrace.api.common.v1.erasure_service_pb2 import ErasedPlace, ErasePersonRequest, ErasureOutcome
from headrace.api.common.v1.erasure_service_pb2_grpc import ErasureServiceStub
from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.rpc import names
from headrace.telemetry import logs
from headrace_identity.deletion.person import Person
from headrace_identity.deletion.receipt import FAILED, NOT_SUPPORTED, REMOVED, REQUESTED, Place
from headrace_identity.resolving.rules import Identifier

_log = logs.get_logger(__name__)

ORDER = ("sync", "audience", "ingest")
"""Destinations are told first: what they hold cannot be found any more when the rest is gone."""

_CALL_S = 600.0

_OUTCOMES = {
    ErasureOutcome.ERASURE_OUTCOME_REMOVED: REMOVED,
    ErasureOutcome.ERASURE_OUTCOME_REQUESTED: REQUESTED,
    ErasureOutcome.ERASURE_OUTCOME_NOT_SUPPORTED: NOT_SUPPORTED,
    ErasureOutcome.ERASURE_OUTCOME_FAILED: FAILED,
}


class CannotBeTold(Exception):
    """A service does not answer now: ask again."""


class DoesNotKnowHow(Exception):
    """A service has no ErasureService: asking again is useless."""


class Services:
    """The services that keep something about people."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        """Call over channels by the names in `ORDER`, with the service token."""
        self._stubs = {name: ErasureServiceStub(channel) for name, channel in channels.items()}

    async def tell(
        self,
        service: str,
        workspace_id: str,
        deletion_id: str,
        *,
        person: Person | None,
        parts: Sequence[str] = (),
        messages: Sequence[tuple[str, str]] = (),
    ) -> list[Place]:
        """Have a service remove a person, or more of one.

        Args:
            service: One of `ORDER`.
            workspace_id: The workspace.
            deletion_id: The deletion.
            person: The person; None when they were named in an earlier call, and these are further messages.
            parts: Parts of the person.
            messages: (message id, segment id) of events, at most MOST_MESSAGES.

        Returns:
            What became of each place.

        Raises:
            CannotBeTold: It does not answer.
            DoesNotKnowHow: It never will.
        """
        request = ErasePersonRequest(
            parent=names.format(names.WORKSPACE, workspace_id),
            deletion_id=deletion_id,
            profile_ids=parts,
            message_ids=sorted({message_id for message_id, _ in messages}),
            segment_ids=sorted({segment_id for _, segment_id in messages if segment_id}),
        )
        if person is not None:
            # Not the ids of devices that others use too: what carries one, and is theirs, must stay.
            own = [i for i in person.identifiers if i not in person.shared]
            request.identifiers.extend(map(_message, own))
            request.raw_identifiers.extend(_message(form) for form, of in person.forms if of not in person.shared)
        try:
            answer = await self._stubs[service].ErasePerson(request, timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                raise DoesNotKnowHow(service) from None
            _log.warning("a service cannot be told to remove a person", service=service, failure=error)
            raise CannotBeTold(service) from None
        return [_place(place) for place in answer.places]


def _place(place: ErasedPlace) -> Place:
    return Place(place.place, _OUTCOMES.get(place.outcome, FAILED), place.count, place.detail)


def _message(identifier: Identifier) -> IdentifierMessage:
    return IdentifierMessage(namespace=identifier[0], value=identifier[1])
