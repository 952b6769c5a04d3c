"""What HubSpot's answers mean: a 207 names what failed, a 400 refuses a batch whole.

https://developers.hubspot.com/docs/api-reference/error-handling
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
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
from headrace_sdk.answers import remark

ADD, REMOVE = "add", "remove"
"""What contacts in an answer are for; stands behind the address as its fragment, which is not sent."""
_DAILY = "DAILY"
_LONG_WAIT_S = 3_600.0


def read(request: Request, response: Response) -> Outcomes:
    """One outcome per item of a request.

    Raises:
        AuthError: The token is not valid, or lacks a scope.
        ConfigError: HubSpot does not know the list or the address.
        RateLimited: HubSpot asks for fewer requests.
        TransientError: HubSpot failed in a way that passes, or what answered is not HubSpot.
        RecordRejected: HubSpot will never take the request as it is.
    """
    parts = urlsplit(request.url)
    path = parts.path
    if path.endswith("/gdpr-delete") and response.status == 404:
        return Outcomes.every(request, Delivered())  # HubSpot does not know the person
    if response.status in (400, 413, 422):
        return _refused(request, response)
    answer = accepted(response, of_list="/memberships/" in path)
    if "/memberships/" in path:
        return _changed(request, answer)
    if path.endswith("/batch/upsert"):
        return _upserted(request, answer, parts.fragment)
    if path.endswith("/batch/read"):
        return _found(request, answer)
    return Outcomes.every(request, Delivered())


def accepted(response: Response, *, of_list: bool = False) -> Mapping[str, Any]:
    """The object in a successful answer, empty where HubSpot says nothing.

    Args:
        response: The answer.
        of_list: Whether the resource is the list.

    Raises:
        ConnectorError: As of `read`.
    """
    status, answer = response.status, response.json_object()
    if 200 <= status < 300 and answer.get("status") != "error":
        if response.body.strip() and not isinstance(response.json(), Mapping):
            raise TransientError("what answered in HubSpot's place is not HubSpot")
        return answer
    said = _said(response)
    if status == 401:
        raise AuthError(f"{said}: the access token is not valid (any more)")
    if status == 403:
        raise AuthError(f"{said}: the access token lacks a scope, or the account has no such product")
    if status == 429:
        wait_s = _LONG_WAIT_S if answer.get("policyName") == _DAILY else None
        raise RateLimited(said, response.retry_after_s() or wait_s)
    if status == 404 and of_list:
        raise ConfigError(f"{said}: HubSpot does not know the list", "list_id")
    if status in (404, 405, 410) or 300 <= status < 400:
        raise ConfigError(f"{said}: the address or the version is not that of HubSpot's API", "api_version")
    if status >= 500 or status in (408, 423, 477, 200) or not answer:
        raise TransientError(said, response.retry_after_s())
    raise RecordRejected(said)


def sentence(response: Response, *, of_list: bool = False) -> str:
    """What an answer to a check means: empty when all is well."""
    try:
        answer = accepted(response, of_list=of_list)
    except ConnectorError as error:
        return error.reason
    kind = answer.get("list", answer)
    if of_list and isinstance(kind, Mapping) and kind.get("processingType") == "DYNAMIC":
        return "HubSpot fills the list by a filter: choose a static one (MANUAL), or make one."
    return ""


def _refused(request: Request, response: Response) -> Outcomes:
    """HubSpot carries out nothing of a batch with a bad item, and seldom says which it is."""
    answer = response.json_object()
    if not answer and response.status == 400:
        raise TransientError("what answered in HubSpot's place is not HubSpot")
    said = _said(response)
    if "/memberships/" in urlsplit(request.url).path:
        raise ConfigError(f"{said}: the list is none of contacts that can be changed", "list_id")
    return Outcomes.refused(request, said, set(_places(request, answer)))


def _places(request: Request, answer: Mapping[str, Any]) -> Iterator[int]:
    """Places that an error names: by trace ids, by addresses in its context, or as inputs[n]."""
    emails = _emails(request)
    for error in _errors(answer):
        context = error.get("context")
        said = context if isinstance(context, Mapping) else {}
        for trace in _texts(said.get("objectWriteTraceId")):
            if trace.isascii() and trace.isdigit():
                yield int(trace)
        for name in ("ids", "id", "email"):
            yield from (emails[one.lower()] for one in _texts(said.get(name)) if one.lower() in emails)
        yield from map(int, re.findall(r"inputs\[([0-9]{1,4})\]", str(error.get("message")) + str(error.get("in"))))


def _errors(answer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield answer
    inner = answer.get("errors")
    yield from (one for one in inner if isinstance(one, Mapping)) if isinstance(inner, list) else ()


def _texts(value: Any) -> Iterator[str]:
    given = value if isinstance(value, list) else [value]
    yield from (one for one in given if isinstance(one, str))


def _inputs(request: Request) -> list[Mapping[str, Any]]:
    """The inputs of a request of ours."""
    given = json.loads(request.body).get("inputs") if request.body else None
    return given if isinstance(given, list) else []


def _emails(request: Request) -> dict[str, int]:
    """Places by address."""
    found = ((one.get("id") or one.get("email"), place) for place, one in enumerate(_inputs(request)))
    return {email.lower(): place for email, place in found if isinstance(email, str)}


def _upserted(request: Request, answer: Mapping[str, Any], purpose: str) -> Outcomes:
    """Each contact that HubSpot says it wrote; those are put onto the list next where that is what they are for."""
    results = answer.get("results")
    if not isinstance(results, list):
        raise TransientError("HubSpot answered without results")
    failed = {place: error for error in _errors(answer) for place in _places(request, {**error, "errors": None})}
    emails, ids = _emails(request), dict[int, str]()
    for one in results:
        if not isinstance(one, Mapping):
            continue
        trace, known = one.get("objectWriteTraceId"), one.get("properties")
        email = known.get("email") if isinstance(known, Mapping) else None
        place = int(trace) if isinstance(trace, str) and trace.isascii() and trace.isdigit() else None
        if place is None and isinstance(email, str):
            place = emails.get(email.lower())
        if place is not None and str(one.get("id", "")).isdigit():
            ids[place] = str(one["id"])
    if len(results) == len(request.items) and not ids:  # all were written; whose id is whose does not matter
        ids = {place: str(one.get("id")) for place, one in enumerate(results) if isinstance(one, Mapping)}
    job = _step(ADD, ids.values()) if purpose == ADD and ids else None
    return Outcomes(items=tuple(_written(place, ids, failed, job) for place in range(len(request.items))))


def _written(place: int, ids: Mapping[int, str], failed: Mapping[int, Any], job: Pending | None) -> Outcome:
    if place in ids:
        return job or Delivered()
    if place in failed:
        return Rejected(reason=f"HubSpot refused the contact{remark(failed[place].get('message'))}")
    return Retry(reason="HubSpot did not say what became of the contact")


def _found(request: Request, answer: Mapping[str, Any]) -> Outcomes:
    """Contacts to be taken off the list: those that HubSpot does not know are on none."""
    results = answer.get("results")
    if not isinstance(results, list):
        raise TransientError("HubSpot answered without results")
    ids = [str(one["id"]) for one in results if isinstance(one, Mapping) and str(one.get("id", "")).isdigit()]
    return Outcomes.every(request, _step(REMOVE, ids) if ids else Delivered())


def _step(step: str, ids: Any) -> Pending:
    return Pending(job=f"{step}:{','.join(ids)}", after_s=0.0)


def _changed(request: Request, answer: Mapping[str, Any]) -> Outcomes:
    """What became of a change of the list."""
    missing = answer.get("recordIdsMissing", answer.get("recordsIdsMissing"))
    if missing and isinstance(missing, list) and "/memberships/add" in request.url:
        reason = f"HubSpot did not find {len(missing)} of the contacts that were to be put onto the list"
        return Outcomes.every(request, Warned(reason=reason))
    return Outcomes.every(request, Delivered())


def _said(response: Response) -> str:
    """HubSpot's words, without what may be personal."""
    answer = response.json_object()
    return f"HubSpot answered with status {response.status}{remark(answer.get('message') or answer.get('category'))}"
