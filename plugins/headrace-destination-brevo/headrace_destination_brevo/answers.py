"""What Brevo's answers mean.

Errors are {"code", "message"}: https://developers.brevo.com/docs/how-it-works . A batch of events names those that it
refused (207, or 400 where it took none); a list names the contacts that it could not add or remove inside a 201; an
import is a process that is asked for: https://developers.brevo.com/reference/get-process .
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from headrace_sdk import (
    AuthError,
    ConfigError,
    Delivered,
    Outcome,
    Outcomes,
    Pending,
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

ASK_AGAIN_S = 30.0
"""Brevo answers about a hundred questions for processes an hour."""
_UNKNOWN = "already in list and/or does not exist"
_ABOUT_LIST = re.compile(
    r"\blist[ _-]?ids?\b|\blists? (\S+ )?(do(es)? not|doesn't|don't) exist|\blists? not found"
    r"|\b(invalid|unknown) lists?\b",
    re.IGNORECASE,
)
"""A list that is gone or another's. The word alone may be about an attribute of one contact."""
_RUNNING = ("queued", "in_process", "processing")


def read_contact(request: Request, response: Response) -> Outcomes:
    """The outcome of one contact that was made or changed.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    if response.status in (201, 204):
        return Outcomes.every(request, Delivered())
    message = str(response.json_object().get("message"))
    if response.status == 400 and b'"listIds"' in request.body and _ABOUT_LIST.search(message):
        raise ConfigError(f"{_said(response)}: look at the list", "list_id")
    _raise(response)


def read_deletion(request: Request, response: Response) -> Outcomes:
    """The outcome of one contact that was deleted; one that is not there is as good.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    if response.status == 204:
        return Outcomes.every(request, Delivered())
    if response.status == 404 and response.json_object().get("code") == "document_not_found":
        return Outcomes.every(request, Delivered())
    if response.status == 405 and response.json_object():
        raise RecordRejected("Brevo does not delete the contact that the account itself is registered with")
    _raise(response)


def read_events(request: Request, response: Response) -> Outcomes:
    """One outcome per event of a batch.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    answer, size = response.json_object(), len(request.items)
    errors = answer.get("errors")
    if response.status in (200, 202, 207, 400) and isinstance(errors, list) and errors:
        return Outcomes(items=_events_accounted(size, errors, answer.get("failed_events")))
    if response.status == 202 and isinstance(answer.get("count"), int):
        if answer["count"] >= size:
            return Outcomes.every(request, Delivered())
        return Outcomes.every(request, Warned(reason="Brevo took fewer events than were sent, without naming them"))
    if response.status == 400 and answer:
        return _refused_whole(request, response)
    _raise(response)


def read_list(request: Request, response: Response, *, adds: bool) -> Outcomes:
    """One outcome per contact that was put on a list, or taken off it.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    answer = response.json_object()
    is_unknown = response.status == 400 and _UNKNOWN in str(answer.get("message"))
    contacts = {"failure": _emails(request)} if is_unknown else answer.get("contacts")
    if (response.status == 201 or is_unknown) and isinstance(contacts, Mapping):
        done, failed = _lowered(contacts.get("success")), _lowered(contacts.get("failure"))
        return Outcomes(items=tuple(_listed(email, done, failed, adds=adds) for email in _emails(request)))
    if response.status == 400 and answer:
        return _refused_whole(request, response)
    _raise(response)


def read_import(request: Request, response: Response) -> Outcomes:
    """The job into which Brevo took an import.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    process = response.json_object().get("processId")
    if response.status == 202 and isinstance(process, int) and not isinstance(process, bool):
        return Outcomes.every(request, Pending(job=str(process), after_s=ASK_AGAIN_S))
    if response.status in (400, 413) and response.json_object():
        return _refused_whole(request, response)
    _raise(response)


def read_process(request: Request, response: Response, process: str) -> Outcomes:
    """What became of an import.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    answer = response.json_object()
    status = answer.get("status")
    if response.status == 429 or (response.status == 200 and status in _RUNNING):
        return Outcomes.every(request, Pending(job=process, after_s=ASK_AGAIN_S))
    if response.status == 200 and status == "completed":
        info = answer.get("info")
        reports = info.get("import") if isinstance(info, Mapping) else None
        kinds = [kind for kind, url in reports.items() if url] if isinstance(reports, Mapping) else []
        if not kinds:
            return Outcomes.every(request, Delivered())
        said = f"Brevo left out some of the import ({', '.join(sorted(kinds))[:120]}): see process {process} there"
        return Outcomes.every(request, Warned(reason=said))
    if response.status == 404 or (response.status == 200 and status in ("failed", "cancelled")):
        return Outcomes.every(request, Retry(reason="Brevo did not carry out the import"))
    _raise(response)


def answer_of(response: Response, *statuses: int) -> Mapping[str, Any]:
    """The object of an answer to a question.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    answer = response.json_object()
    if response.status in statuses and answer:
        return answer
    _raise(response)


def _events_accounted(size: int, errors: list[Any], failed: Any) -> tuple[Outcome, ...]:
    named: dict[int, str] = {}
    for error in errors:
        if isinstance(error, Mapping):
            places = error.get("eventIndex")
            for place in places if isinstance(places, list) else [places]:
                if isinstance(place, int) and 0 <= place < size:
                    named.setdefault(place, words(error.get("message")) or "without a reason")
    unsure = Warned(reason="Brevo refused some events of the request without naming them")
    rest: Outcome = unsure if not named or (isinstance(failed, int) and failed > len(named)) else Delivered()
    return tuple(
        Rejected(reason=f"Brevo refused it: {named[place]}") if place in named else rest for place in range(size)
    )


def _listed(email: str, done: frozenset[str], failed: frozenset[str], *, adds: bool) -> Outcome:
    if email in done or (email in failed and not adds):  # nobody who is not on a list has to be taken off it
        return Delivered()
    if email in failed:
        return Warned(reason="Brevo did not add it: it is on the list already, or no contact of Brevo's")
    return Retry(reason="Brevo did not say what became of the contact")


def _emails(request: Request) -> list[str]:
    """The contacts of a request of ours."""
    return list(json.loads(request.body)["emails"])


def _lowered(emails: Any) -> frozenset[str]:
    return frozenset(one.lower() for one in emails if isinstance(one, str)) if isinstance(emails, list) else frozenset()


def _refused_whole(request: Request, response: Response) -> Outcomes:
    """Nothing was stored, and no item is named: the host looks for it."""
    return Outcomes.refused(request, _said(response))


def _raise(response: Response) -> NoReturn:
    status, answer = response.status, response.json_object()
    code, said = answer.get("code"), _said(response)
    if status in (401, 403) or code in ("unauthorized", "permission_denied", "account_under_validation"):
        raise AuthError(f"{said}: it does not let this API key in")
    if status == 402 or code == "not_enough_credits":
        raise ConfigError(f"{said}: the account's plan is used up", "api_key")
    if status == 429:
        raise RateLimited(said, wait_s(response))
    if status == 404 and answer:
        raise ConfigError(f"{said}: look at the list", "list_id")
    if status in (404, 405, 410) or 300 <= status < 400:
        raise ConfigError(f"{said}: the address is not that of Brevo's API", "base_url")
    if status >= 500 or status in (408, 425) or status < 300 or not answer:
        raise TransientError(said, wait_s(response))
    raise RecordRejected(said)


def wait_s(response: Response) -> float | None:
    """Seconds to wait: https://developers.brevo.com/docs/limit-headers ."""
    reset = response.headers.get("x-sib-ratelimit-reset", "")
    return float(reset) if reset.isascii() and reset.isdecimal() and len(reset) < 6 else response.retry_after_s()


def _said(response: Response) -> str:
    answer = response.json_object()
    code, message = answer.get("code"), answer.get("message")
    words_of = ": ".join(one for one in (code, message) if isinstance(one, str) and one)
    return f"Brevo answered with status {response.status}{remark(words_of)}"
