"""Klaviyo's import jobs, followed to their end, and steps that need what an earlier one answered.

An import says 202 and the id of a job. Its end says how many profiles failed, and a further request which. Whom to take
off a list Klaviyo wants to know by its own ids, which a search answers.

What is waited for is "PURPOSE:STEP:ARGUMENT". It also stands behind the address as its fragment, which is not sent.
https://developers.klaviyo.com/en/docs/use_klaviyos_bulk_profile_import_api
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from headrace_destination_klaviyo import profiles
from headrace_sdk import (
    Delivered,
    Outcome,
    Outcomes,
    Pending,
    Rejected,
    Request,
    Response,
    Retry,
    TransientError,
    Warned,
)

KEEP, TAKE_OFF = "keep", "off"
"""What profiles are for: to be there, or to be taken off the list."""
STATUS, ERRORS, REMOVE = "status", "errors", "remove"
"""Steps."""
_MOST_ERRORS = 100
"""Of a page."""
_FIRST_LOOK_S = 1.0
_PLACE = re.compile(r"/profiles/data/([0-9]{1,5})(?:/|$)")


def waited_for(purpose: str, step: str, argument: str, after_s: float = 0.0) -> Pending:
    """What the host asks for next."""
    return Pending(job=f"{purpose}:{step}:{argument}", after_s=after_s)


def path_of(step: str, argument: str, list_id: str) -> tuple[str, str, Mapping[str, Any] | None]:
    """Method, path and body that ask for a step."""
    if step == REMOVE:
        data = [{"type": "profile", "id": one} for one in argument.split(",")]
        return "DELETE", f"/api/lists/{list_id}/relationships/profiles", {"data": data}
    job = f"{profiles.BULK_PATH}/{argument}"
    if step == STATUS:
        return "GET", job, None
    return "GET", f"{job}/import-errors?page%5Bsize%5D={_MOST_ERRORS}", None


def started(request: Request, answer: Mapping[str, Any]) -> Outcomes:
    """What an accepted import means."""
    return Outcomes.every(request, waited_for(KEEP, STATUS, _id_in(answer), _FIRST_LOOK_S))


def found(request: Request, answer: Mapping[str, Any]) -> Outcomes:
    """What a search means: who is found is taken off the list, and who is no profile is on none."""
    data = answer.get("data")
    if not isinstance(data, list):
        raise TransientError("Klaviyo answered without data to a search for profiles")
    ids = [one["id"] for one in data if isinstance(one, Mapping) and _is_id(one.get("id"))]
    return Outcomes.every(request, waited_for(TAKE_OFF, REMOVE, ",".join(ids)) if ids else Delivered())


def went_on(request: Request, response: Response, step: str, argument: str) -> Outcomes:
    """What the answer to a step means."""
    if step == REMOVE:
        return Outcomes.every(request, Delivered())
    answer = response.json_object()
    if step == STATUS:
        return Outcomes.every(request, _after_status(answer, argument))
    data = answer.get("data")
    if not isinstance(data, list):
        raise TransientError("Klaviyo answered without data to a question about a job")
    return Outcomes(items=_refused(data, len(request.items)))


def _after_status(answer: Mapping[str, Any], job: str) -> Outcome:
    data = answer.get("data")
    attributes = data.get("attributes") if isinstance(data, Mapping) else None
    if not isinstance(attributes, Mapping) or not isinstance(attributes.get("status"), str):
        raise TransientError("Klaviyo answered without the status of a job")
    status = attributes["status"]
    if status == "cancelled":
        return Retry(reason="Klaviyo cancelled the import")
    if status != "complete":
        return waited_for(KEEP, STATUS, job)
    return waited_for(KEEP, ERRORS, job) if attributes.get("failed_count") else Delivered()


def _refused(errors: list[Any], size: int) -> tuple[Outcome, ...]:
    """Outcomes of a job's profiles, some of which failed: those that Klaviyo names are rejected."""
    named: dict[int, str] = {}
    unnamed = 0
    for error in errors:
        places = [place for place in _places(error) if place < size]
        for place in places:
            named.setdefault(place, _reason(error))
        unnamed += not places
    rest: Outcome = Delivered()
    if unnamed or not named or len(errors) >= _MOST_ERRORS:
        rest = Warned(reason="Klaviyo refused some profiles of the import without saying which")
    return tuple(Rejected(reason=named[place]) if place in named else rest for place in range(size))


def _places(error: Any) -> Iterator[int]:
    attributes = error.get("attributes") if isinstance(error, Mapping) else None
    source = attributes.get("source") if isinstance(attributes, Mapping) else None
    pointer = source.get("pointer") if isinstance(source, Mapping) else None
    yield from map(int, _PLACE.findall(pointer) if isinstance(pointer, str) else ())


def _reason(error: Mapping[str, Any]) -> str:
    """Klaviyo's title of an error: its details may quote the value."""
    title = error["attributes"].get("title")
    return f"Klaviyo refused the profile ({title})" if isinstance(title, str) else "Klaviyo refused the profile"


def _id_in(answer: Mapping[str, Any]) -> str:
    data = answer.get("data")
    found = data.get("id") if isinstance(data, Mapping) else None
    if not _is_id(found):
        raise TransientError("Klaviyo answered without an id")
    return str(found)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_=-]{1,128}", value) is not None
