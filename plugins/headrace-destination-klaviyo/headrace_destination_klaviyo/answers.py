"""What Klaviyo's answers mean: JSON:API errors whose pointers name the culprits.

https://developers.klaviyo.com/en/docs/rate_limits_and_error_handling
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from headrace_destination_klaviyo import jobs, profiles
from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    Delivered,
    Outcomes,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    TransientError,
)
from headrace_sdk.answers import remark

_PLACE = re.compile(r"/(?:profiles|events-bulk-create)/data/([0-9]{1,5})(?:/|$)")
_DUPLICATE = "duplicate_profile"


def read(request: Request, response: Response) -> Outcomes:
    """One outcome per item of a request.

    Raises:
        AuthError: The key is not valid, or lacks a scope.
        ConfigError: Klaviyo does not know the list or the address, or has retired the revision.
        RateLimited: Klaviyo asks for fewer requests.
        TransientError: Klaviyo failed in a way that passes, or what answered is not Klaviyo.
        RecordRejected: Klaviyo will never take the request as it is.
    """
    parts = urlsplit(request.url)
    errors = list(_errors(response))
    if response.status == 404 and _is_step(parts.fragment) and not parts.path.startswith("/api/lists/"):
        raise TransientError("Klaviyo does not know the job any more")
    if (errors and 200 <= response.status < 500) or response.status == 413:
        return _refused(request, response, errors)
    accepted(response)
    if _is_step(parts.fragment):
        _, step, argument = parts.fragment.split(":")
        return jobs.went_on(request, response, step, argument)
    if parts.fragment == jobs.TAKE_OFF:
        return jobs.found(request, response.json_object())
    if parts.path == profiles.BULK_PATH:
        return jobs.started(request, response.json_object())
    if parts.path == profiles.IMPORT_PATH and not isinstance(response.json_object().get("data"), Mapping):
        raise TransientError("Klaviyo answered without a profile")
    return Outcomes.every(request, Delivered())


def accepted(response: Response) -> Mapping[str, Any]:
    """The object in a successful answer, empty where Klaviyo says nothing.

    Raises:
        ConnectorError: As of `read`.
    """
    errors = list(_errors(response))
    if 200 <= response.status < 300 and not errors:
        if response.body.strip() and not isinstance(response.json(), Mapping):
            raise TransientError("what answered in Klaviyo's place is not Klaviyo")
        return response.json_object()
    _raise(response, errors)
    raise RecordRejected(_said(response, errors))


def sentence(response: Response) -> str:
    """What an answer to a check means: empty when all is well."""
    try:
        accepted(response)
    except ConnectorError as error:
        return error.reason
    return ""


def _raise(response: Response, errors: list[Mapping[str, Any]]) -> None:
    """Raise what concerns more than the items of a request."""
    status, said = response.status, _said(response, errors)
    if status == 401:
        raise AuthError(f"{said}: the private key is not valid (any more)")
    if status == 403:
        raise AuthError(f"{said}: the private key lacks a scope, or the account may not do this")
    if status == 429:
        raise RateLimited(said, response.retry_after_s())
    if status == 410 or any("revision" in str(one.get("code")) + str(one.get("title")).lower() for one in errors):
        raise ConfigError(f"{said}: Klaviyo does not answer this revision (any more)", "revision")
    if status == 404 and _blames_the_list(errors):
        raise ConfigError(f"{said}: Klaviyo does not know the list", "list_id")
    if status in (404, 405) or 300 <= status < 400:
        raise ConfigError(f"{said}: the address is not that of Klaviyo's API", "base_url")
    if status >= 500 or status in (408, 425) or (not errors and status != 413):
        raise TransientError(said, response.retry_after_s())


def _refused(request: Request, response: Response, errors: list[Mapping[str, Any]]) -> Outcomes:
    """Klaviyo carries out nothing of a request with a bad item: those named are refused, the others go again."""
    on_list = urlsplit(request.url).path.startswith("/api/lists/")
    if (response.status == 404 and on_list) or any(_concerns_list(one) for one in errors):
        raise ConfigError(f"{_said(response, errors)}: Klaviyo does not know the list", "list_id")
    _raise(response, errors)
    said = _said(response, errors)
    if len(request.items) == 1 or not _is_batch(request):
        return Outcomes.every(request, Rejected(reason=said))
    return Outcomes.refused(request, said, {place for one in errors for place in _places(one)})


def _is_batch(request: Request) -> bool:
    """Whether the request holds its own items, rather than asking for a step of a job."""
    return not _is_step(urlsplit(request.url).fragment)


def _is_step(fragment: str) -> bool:
    """Whether a request asks for a step of a job."""
    return fragment.count(":") == 2


def _errors(response: Response) -> Iterator[Mapping[str, Any]]:
    errors = response.json_object().get("errors")
    yield from (one for one in errors if isinstance(one, Mapping)) if isinstance(errors, list) else ()


def _pointer(error: Mapping[str, Any]) -> str:
    source = error.get("source")
    pointer = source.get("pointer") if isinstance(source, Mapping) else None
    return pointer if isinstance(pointer, str) else ""


def _places(error: Mapping[str, Any]) -> Iterator[int]:
    yield from map(int, _PLACE.findall(_pointer(error)))


def _concerns_list(error: Mapping[str, Any]) -> bool:
    return "/relationships/list" in _pointer(error)


def _blames_the_list(errors: list[Mapping[str, Any]]) -> bool:
    return any(_concerns_list(one) or "list" in str(one.get("detail")).lower() for one in errors)


def _said(response: Response, errors: list[Mapping[str, Any]]) -> str:
    """Klaviyo's words, without what may be personal."""
    if not errors:
        return f"Klaviyo answered with status {response.status}"
    first = errors[0]
    said = first.get("detail") or first.get("title") or first.get("code")
    if first.get("code") == _DUPLICATE:
        said = "two profiles have one of the identifiers each"
    return f"Klaviyo answered with status {response.status}{remark(said)}"
