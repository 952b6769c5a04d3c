"""What LinkedIn's answers mean.

https://learn.microsoft.com/en-us/linkedin/shared/api-guide/concepts/error-handling
https://learn.microsoft.com/en-us/linkedin/marketing/integrations/ads-reporting/conversions-api
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


def read_check(response: Response, rules: frozenset[str]) -> str:
    """What the list of conversion rules means; empty when all is well."""
    answer = response.json_object()
    if response.status != 200:
        return (
            f"LinkedIn answered {response.status}{_explanation(answer)}: look at the token, its roles and the version"
        )
    elements = answer.get("elements")
    if not isinstance(elements, list):
        return "LinkedIn answered with something that is no list of conversion rules"
    known = {str(one.get("id")): one for one in elements if isinstance(one, Mapping)}
    for rule in sorted(rules):
        found = known.get(rule)
        if found is None:
            continue  # it may be on another page
        if found.get("conversionMethod") not in (None, "CONVERSIONS_API"):
            return f"conversion rule {rule} is not of the Conversions API: make one with that method"
        if found.get("enabled") is False:
            return f"conversion rule {rule} is switched off"
    return ""


def _by_element(request: Request, answer: Mapping[str, Any]) -> Outcomes:
    """A status per event: all of them must be read."""
    elements = answer.get("elements")
    if not isinstance(elements, list) or len(elements) != len(request.items):
        raise TransientError("LinkedIn answered without a status for each event")
    return Outcomes(items=tuple(_outcome(element) for element in elements))


def _outcome(element: Any) -> Outcome:
    status = element.get("status") if isinstance(element, Mapping) else None
    if not isinstance(status, int) or isinstance(status, bool):
        return Retry(reason="LinkedIn gave no status for the event")
    if 200 <= status < 300:
        return Delivered()
    error = element.get("error")
    said = f"LinkedIn answered {status}{_explanation(error if isinstance(error, Mapping) else element)}"
    if status in _AGAIN or status == 429 or status >= 500:
        return Retry(reason=said)
    return Rejected(reason=said)


def _refused(request: Request, answer: Mapping[str, Any], said: str) -> Outcomes:
    """LinkedIn stores nothing of a request with one bad event: the named ones, or all if it names none, are refused."""
    size = len(request.items)
    named = _named(str(answer.get("message")), size)
    rejected, again = Rejected(reason=said), Retry(reason="LinkedIn refused the request for another event in it")
    items = tuple(rejected if place in named or not named else again for place in range(size))
    return Outcomes(items=items, refused_whole=True)


def _named(message: str, size: int) -> set[int]:
    """Places of events that a message names: "Index: 3, ERROR :: ..." or "indices [0, 3] (0-indexed)"."""
    places = {int(place) for place in _INDEX.findall(message)}
    for listed in _INDICES.findall(message):
        places |= {int(place) for place in listed.replace(",", " ").split()}
    return {place for place in places if place < size}


def _raise(response: Response, said: str) -> NoReturn:
    status = response.status
    if status == 401:
        raise AuthError(f"{said}: the access token is not valid (any more)")
    if status == 403:
        raise AuthError(f"{said}: the token needs rw_conversions and a role on the ad account")
    if status == 426:
        raise ConfigError(f"{said}: set a newer API version", "api_version")
    if status == 429:
        raise RateLimited(said, response.retry_after_s())
    if status in (404, 405, 410) or 300 <= status < 400:
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
