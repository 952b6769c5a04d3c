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


def read_check(response: Response, rules: frozenset[str]) -> str:
    """What the list of conversion rules means; empty when all is well."""
    answer = response.json_object()
    if response.status != 200:
        said = f"LinkedIn answered {response.status}{remark(answer.get('message'))}"
        return f"{said}: look at the token, its roles and the version"
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
    words = (error if isinstance(error, Mapping) else element).get("message")
    said = f"LinkedIn answered {status}{remark(words)}"
    if is_passing(status):
        return Retry(reason=said)
    return Rejected(reason=said)


def _named(message: str) -> set[int]:
    """Places of events that a message names: "Index: 3, ERROR :: ..." or "indices [0, 3] (0-indexed)"."""
    places = {int(place) for place in _INDEX.findall(message)}
    for listed in _INDICES.findall(message):
        places |= {int(place) for place in listed.replace(",", " ").split()}
    return places


def _raise(response: Response, said: str) -> NoReturn:
    status = response.status
    if status == 401:
        raise AuthError(f"{said}: the access token is not valid (any more)")
    if status == 403:
        raise AuthError(f"{said}: the token needs rw_conversions and a role on the ad account")
    if status == 426:
        raise ConfigError(f"{said}: set a newer API version", "api_version")
    raise_for_status(response, said)
