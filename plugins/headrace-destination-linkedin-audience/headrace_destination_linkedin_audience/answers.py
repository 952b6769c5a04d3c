"""What LinkedIn's answers mean.

https://learn.microsoft.com/en-us/linkedin/shared/api-guide/concepts/error-handling
https://learn.microsoft.com/en-us/linkedin/marketing/matched-audiences/create-and-manage-segment-users
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
    Rejected,
    Request,
    Response,
    Retry,
    TransientError,
)
from headrace_sdk.answers import is_passing, raise_for_status, remark

_INDEX = re.compile(r"\bindex:\s*([0-9]{1,5})", re.IGNORECASE)
_INDICES = re.compile(r"\bindices\s*\[([0-9,\s]*)\]", re.IGNORECASE)


def read(request: Request, response: Response) -> Outcomes:
    """One outcome per item of a request.

    Raises:
        AuthError: The token is not valid, or lacks a permission.
        ConfigError: The version is no more, or the address is not LinkedIn's.
        RateLimited: LinkedIn asks for fewer requests.
        TransientError: LinkedIn failed in a way that passes, or what answered is not LinkedIn.
        RecordRejected: LinkedIn will never take the request as it is.
    """
    answer = response.json_object()
    if 200 <= response.status < 300:
        return _by_element(request, answer)
    said = f"LinkedIn answered {response.status}{remark(answer.get('message'))}"
    if response.status in (400, 422) and answer:
        return Outcomes.refused(request, said, _named(str(answer.get("message"))))
    _raise(response, said)


def read_check(response: Response) -> str:
    """What the answer about the segment means; empty when all is well."""
    answer = response.json_object()
    if response.status != 200:
        said = f"LinkedIn answered {response.status}{remark(answer.get('message'))}"
        return f"{said}: look at the token, its roles, the segment and the version"
    if answer.get("type") != "USER":
        return "LinkedIn's segment does not take single users: choose one of the type USER"
    destinations = answer.get("destinations")
    states = [one.get("status") for one in destinations or () if isinstance(one, Mapping)] if destinations else []
    gone = next((state for state in states if state in ("EXPIRED", "FAILED", "ERROR")), "")
    return f"LinkedIn's segment is {gone}: choose another one" if gone else ""


def success(response: Response) -> Mapping[str, Any]:
    """The JSON of an answer that is a success; empty when it has none.

    Raises:
        ConnectorError: It is none, as of `read`.
    """
    answer = response.json_object()
    if 200 <= response.status < 300:
        return answer
    _raise(response, f"LinkedIn answered {response.status}{remark(answer.get('message'))}")


def _by_element(request: Request, answer: Mapping[str, Any]) -> Outcomes:
    """A status per row: all of them must be read."""
    elements = answer.get("elements")
    if not isinstance(elements, list) or len(elements) != len(request.items):
        raise TransientError("LinkedIn answered without a status for each row")
    return Outcomes(items=tuple(_outcome(element) for element in elements))


def _outcome(element: Any) -> Outcome:
    status = element.get("status") if isinstance(element, Mapping) else None
    if not isinstance(status, int) or isinstance(status, bool):
        return Retry(reason="LinkedIn gave no status for the row")
    if 200 <= status < 300:
        return Delivered()
    error = element.get("error")
    words = (error if isinstance(error, Mapping) else element).get("message")
    said = f"LinkedIn answered {status}{remark(words)}"
    if is_passing(status):
        return Retry(reason=said)
    return Rejected(reason=said)


def _named(message: str) -> set[int]:
    """Places of rows that a message names: "Index: 3, ERROR :: ..." or "indices [0, 3] (0-indexed)"."""
    places = {int(place) for place in _INDEX.findall(message)}
    for listed in _INDICES.findall(message):
        places |= {int(place) for place in listed.replace(",", " ").split()}
    return places


def _raise(response: Response, said: str) -> NoReturn:
    status = response.status
    if status == 401:
        raise AuthError(f"{said}: the access token is not valid (any more)")
    if status == 403:
        raise AuthError(f"{said}: the token needs rw_dmp_segments and a role on the ad account that may change it")
    if status == 426:
        raise ConfigError(f"{said}: set a newer API version", "api_version")
    if status == 404:  # also for up to two minutes after a segment was made
        raise TransientError(f"{said}: LinkedIn does not know the segment (yet)", response.retry_after_s())
    raise_for_status(response, said)
