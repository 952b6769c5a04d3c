"""What Mixpanel's answers mean.

/import with strict=1 stores the events that pass its checks and names the others (status 400, `failed_records`):
https://docs.mixpanel.com/troubleshooting/errors/400-bad-request . /engage and /groups answer 200 whatever happened, and
say in the body what did: https://docs.mixpanel.com/reference/profile-batch-update .
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from headrace_sdk import (
    AuthError,
    ConfigError,
    Delivered,
    Outcome,
    Outcomes,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    Retry,
    TransientError,
    Warned,
)
from headrace_sdk.answers import remark, words

_FIELD = re.compile(r"[A-Za-z0-9_.$\[\]-]{1,80}")


def read_import(request: Request, response: Response) -> Outcomes:
    """One outcome per event. What was stored may be sent again: Mixpanel knows it by its $insert_id.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    return _read(request, response, Retry(reason="Mixpanel stored fewer events than it took, without naming them"))


def read_profiles(request: Request, response: Response) -> Outcomes:
    """One outcome per update of a profile.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    return _read(request, response, Warned(reason="Mixpanel does not say whether it took all updates of the request"))


def read_deletion(request: Request, response: Response) -> Outcomes:
    """One outcome per person: Mixpanel has taken the task, and carries it out within 30 days.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    answer = response.json_object()
    if response.status in (200, 201) and answer.get("status") == "ok" and answer.get("results"):
        return Outcomes.every(request, Delivered())
    if response.status < 300:
        raise TransientError("Mixpanel answered a deletion without a task")
    _raise(response, answer, "GDPR token")


def problem_of(response: Response) -> str:
    """What hinders a service account from sending; empty when nothing does."""
    if response.status == 200 and isinstance(response.json_object().get("results"), list):
        return ""
    if response.status in (401, 403):
        return "Mixpanel refuses the service account: look at its name, its secret, its role and the project id"
    return f"Mixpanel answered with status {response.status}: try again, or look at the region and the project id"


def _read(request: Request, response: Response, unsure: Outcome) -> Outcomes:
    answer, size = response.json_object(), len(request.items)
    failed = answer.get("failed_records")
    if isinstance(failed, list) and failed and response.status in (200, 400):
        return Outcomes(items=_accounted(request, failed, answer, unsure))
    if response.status == 200:
        if _says_all(answer, response, size):
            return Outcomes.every(request, Delivered())
        if answer.get("status") == 0 or response.body.strip() == b"0":
            return Outcomes.refused(request, f"Mixpanel calls it invalid{remark(answer.get('error'))}")
        if _count(answer) is not None or response.body.strip() == b"1" or answer.get("error"):
            return Outcomes.every(request, unsure)
        raise TransientError("Mixpanel answered 200 with something that is no answer")
    if response.status == 413 or (response.status == 400 and answer and not _blames_the_project(answer)):
        return Outcomes.refused(
            request, f"Mixpanel answered with status {response.status}{remark(answer.get('error'))}"
        )
    _raise(response, answer, "credentials")


def _accounted(request: Request, failed: list[Any], answer: Mapping[str, Any], unsure: Outcome) -> tuple[Outcome, ...]:
    """Outcomes where Mixpanel names what it refused, by its place."""
    size, count = len(request.items), _count(answer)
    records = [one for one in failed if isinstance(one, Mapping)]
    if size == 1 and records:
        return (_rejected(records[0]),)
    named = {place: one for one in records if isinstance(place := one.get("index"), int) and 0 <= place < size}
    lost = len(named) != len(failed) or (count is not None and count < size - len(named))
    rest: Outcome = unsure if lost else Delivered()
    return tuple(_rejected(named[place]) if place in named else rest for place in range(size))


def _rejected(record: Mapping[str, Any]) -> Rejected:
    message, field = record.get("message"), record.get("field")
    return Rejected(
        reason=f"Mixpanel refused it: {words(message) or 'without a reason'}",
        field=field if isinstance(field, str) and _FIELD.fullmatch(field) else "",
    )


def _says_all(answer: Mapping[str, Any], response: Response, size: int) -> bool:
    if answer.get("error"):
        return False
    if (count := _count(answer)) is not None:
        return count >= size
    return answer.get("status") == 1 or (size == 1 and response.body.strip() == b"1")


def _count(answer: Mapping[str, Any]) -> int | None:
    count = answer.get("num_records_imported", answer.get("num_good_events"))
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def _raise(response: Response, answer: Mapping[str, Any], refused: str) -> NoReturn:
    """Raise what an answer calls for.

    Args:
        response: The answer.
        answer: Its JSON.
        refused: What is at fault where Mixpanel does not let us in.
    """
    status = response.status
    said = f"Mixpanel answered with status {status}{remark(answer.get('error'))}"
    if status in (401, 403):
        raise AuthError(f"{said}: it refuses the {refused}")
    if status == 429:
        raise RateLimited(said, response.retry_after_s())
    if status == 400 and _blames_the_project(answer):
        raise ConfigError(f"{said}: look at the project's token and id", "project_token")
    if status in (404, 405, 410) or 300 <= status < 400:
        raise ConfigError(f"{said}: the address is not that of Mixpanel's API", "base_url")
    if status >= 500 or status == 408 or not answer:
        raise TransientError(said, response.retry_after_s())
    raise RecordRejected(said)


def _blames_the_project(answer: Mapping[str, Any]) -> bool:
    error = str(answer.get("error")).lower()
    return "project" in error or "token" in error
