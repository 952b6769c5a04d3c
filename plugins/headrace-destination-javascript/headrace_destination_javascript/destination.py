"""The custom JavaScript destination: each event goes out as the requests that the customer's script makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from headrace_destination_javascript.engine import Script, ScriptError
from headrace_destination_javascript.returned import LONGEST_BODY, requests_of
from headrace_destination_javascript.settings import JavascriptSettings
from headrace_sdk import (
    AuthError,
    BatchPolicy,
    Built,
    Capability,
    DeleteBatch,
    Delivered,
    Destination,
    EventBatch,
    Idempotency,
    Manifest,
    Outcomes,
    RateLimited,
    RecordRejected,
    Request,
    Response,
    Skip,
    TransientError,
)

MANIFEST = Manifest(
    name="javascript",
    title="Custom JavaScript",
    description="Sends the requests that a few lines of your own JavaScript make of each event.",
    factory="headrace_destination_javascript.destination:Javascript",
    settings=JavascriptSettings,
    capabilities=frozenset({Capability.FORWARDING, Capability.EVENT_SYNC, Capability.DELETION}),
    batch=BatchPolicy(max_items=10, max_bytes=LONGEST_BODY, max_wait_s=0.2),
    concurrency=16,
    idempotency=Idempotency.NONE,
)
_TRY_AGAIN = frozenset({408, 423, 425})


class Javascript(Destination[JavascriptSettings]):
    """Sends what a script returns."""

    manifest = MANIFEST

    def __init__(self, settings: JavascriptSettings) -> None:
        """Take the script."""
        super().__init__(settings)
        self._script = Script(settings.script)
        self._given = settings.given()

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """The requests of each event, one after the other where it has several."""
        for place, event in enumerate(batch.events):
            profile = event.profile.document() if event.profile else None
            yield from self._called(
                place,
                "send",
                [event.document(), profile, self._given],
                time_us=event.timestamp_us,
                identity=event.message_id,
            )

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """The requests of function forget; time is that of the deletion."""
        for place, subject in enumerate(batch.subjects):
            person = {
                "id": subject.profile_id,
                "merged_ids": subject.merged_ids,
                "identifiers": subject.identifiers,
            }
            yield from self._called(
                place, "forget", [person, self._given], time_us=batch.now_us, identity=subject.profile_id
            )

    def read(self, request: Request, response: Response) -> Outcomes:
        """2xx is delivered; what may pass is tried again; refused credentials pause the destination."""
        status = response.status
        if 200 <= status < 300:
            return Outcomes.every(request, Delivered())
        after_s = response.retry_after_s()
        if status == 429:
            raise RateLimited("the receiver asks for fewer requests (429)", after_s)
        if status in _TRY_AGAIN or status >= 500:
            raise TransientError(f"the receiver answered {status}", after_s)
        if status in (401, 403, 407):
            raise AuthError(f"the receiver refuses the credentials ({status}): check the script and its secrets")
        if 300 <= status < 400:
            raise RecordRejected(f"the receiver answered with a redirect ({status}): send to where it leads", "script")
        raise RecordRejected(f"the receiver refused the request ({status})")

    def _called(
        self, place: int, function: str, arguments: Sequence[Any], *, time_us: int, identity: str
    ) -> Iterable[Built]:
        try:
            returned = self._script.call(function, arguments, time_us=time_us, identity=identity)
            requests = requests_of(returned or (), item=place, allow_http=self.settings.allow_http)
        except ScriptError as error:
            return [Skip(item=place, reason=str(error), field="script", is_failure=True)]
        if requests:
            return requests
        reason = "the script leaves it out" if returned is not None else f"the script has no function {function}"
        return [Skip(item=place, reason=reason)]
