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
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    Retry,
    TransientError,
)

_INDEX = re.compile(r"\bindex:\s*([0-9]{1,5})", re.IGNORECASE)
_INDICES = re.compile(r"\bindices\s*\[([0-9,\s]*)\]", re.IGNORECASE)
_PERSONAL = re.compile(r"[^\s@]+@[^\s@]+|[0-9a-fA-F]{32,}|[0-9]{9,}")
_AGAIN = frozenset({408, 423, 425})


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
    said = f"LinkedIn answered {response.status}{_explanation(answer)}"
    if response.status in (400, 422) and answer:
        return _refused(request, answer, said)
    _raise(response, said)


def read_check(response: Response) -> str:
    """What the answer about the segment means; empty when all is well."""
    answer = response.json_object()
    if response.status != 200:
        said = f"LinkedIn answered {response.status}{_explanation(answer)}"
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
    _raise(response, f"LinkedIn answered {response.status}{_explanation(answer)}")


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
    said = f"LinkedIn answered {status}{_explanation(error if isinstance(error, Mapping) else element)}"
    if status in _AGAIN or status == 429 or status >= 500:
        return Retry(reason=said)
    return Rejected(reason=said)


def _refused(request: Request, answer: Mapping[str, Any], said: str) -> Outcomes:
    """LinkedIn stores nothing of a request with one bad row: the named ones, or all if it names none, are refused."""
    size = len(request.items)
    named = _named(str(answer.get("message")), size)
    rejected, again = Rejected(reason=said), Retry(reason="LinkedIn refused the request for another row in it")
    items = tuple(rejected if place in named or not named else again for place in range(size))
    return Outcomes(items=items, refused_whole=True)


def _named(message: str, size: int) -> set[int]:
    """Places of rows that a message names: "Index: 3, ERROR :: ..." or "indices [0, 3] (0-indexed)"."""
    places = {int(place) for place in _INDEX.findall(message)}
    for listed in _INDICES.findall(message):
        places |= {int(place) for place in listed.replace(",", " ").split()}
    return {place for place in places if place < size}


def _raise(response: Response, said: str) -> NoReturn:
    status = response.status
    if status == 401:
        raise AuthError(f"{said}: the access token is not valid (any more)")
    if status == 403:
        raise AuthError(f"{said}: the token needs rw_dmp_segments and a role on the ad account that may change it")
    if status == 426:
        raise ConfigError(f"{said}: set a newer API version", "api_version")
    if status == 429:
        raise RateLimited(said, response.retry_after_s())
    if status == 404:  # also for up to two minutes after a segment was made
        raise TransientError(f"{said}: LinkedIn does not know the segment (yet)", response.retry_after_s())
    if status in (405, 410) or 300 <= status < 400:
        raise ConfigError(f"{said}: the address is not that of LinkedIn's API", "base_url")
    if status in _AGAIN or status >= 500:
        raise TransientError(said, response.retry_after_s())
    if status == 413:
        raise RecordRejected(f"{said}: the request is too large")
    if status in (400, 422):  # no JSON of LinkedIn's: a proxy or a page in between
        raise TransientError(said, response.retry_after_s())
    raise RecordRejected(said)


def _explanation(answer: Mapping[str, Any]) -> str:
    """LinkedIn's words, without what may be personal."""
    message = answer.get("message")
    if not isinstance(message, str) or not message.strip():
        return ""
    return f" ({_PERSONAL.sub('...', ' '.join(message.split()))[:200]})"
