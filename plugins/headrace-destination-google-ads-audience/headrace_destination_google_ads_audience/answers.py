"""What the Data Manager API's answers mean.

A 200 says that a request was taken; what became of its members is asked for later, by its id, and comes as numbers
without names. A request is refused as a whole, with the places of the members at fault where Google knows them.

https://developers.google.com/data-manager/api/devguides/concepts/understand-errors
https://developers.google.com/data-manager/api/devguides/diagnostics
https://developers.google.com/data-manager/api/reference/rest/v1/ErrorReason
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import unquote

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

STATUS_PATH = "/v1/requestStatus:retrieve"
LOOK_EVERY_S = 1800.0
"""Google asks to wait 30 minutes before the first look at a request, and not to look often after that."""

_LIST_UNUSABLE = frozenset(
    {
        "INVALID_USER_LIST_TYPE", "INVALID_USER_LIST_ID", "INVALID_DESTINATION", "USER_LIST_MUTATION_NOT_SUPPORTED",
        "SENSITIVE_USER_LIST_IMMUTABLE", "OWNERSHIP_REQUIRED_FOR_UPDATE", "MULTIPLE_DATA_TYPES_NOT_ALLOWED",
        "UNSUPPORTED_USER_LIST_UPLOAD_KEY_TYPES", "INVALID_RESOURCE_NAME",
    }
)  # fmt: skip
_ACCOUNT_UNUSABLE = frozenset(
    {
        "DESTINATION_ACCOUNT_TYPE_MISMATCH", "OPERATING_ACCOUNT_LOGIN_ACCOUNT_MISMATCH", "NOT_ALLOWLISTED",
        "ADVERTISER_NOT_ALLOWLISTED_FOR_UPLOADED_DATA", "EU_POLITICAL_ADVERTISING_DECLARATION_REQUIRED",
    }
)  # fmt: skip
_TERMS = frozenset({"TERMS_AND_CONDITIONS_NOT_SIGNED", "ADVERTISER_TOS_NOT_ACCEPTED"})
_MEMBER = re.compile(r"audience_?members\[([0-9]+)\]", re.IGNORECASE)
_WORD = re.compile(r"[A-Z][A-Z0-9_]{2,90}")
_PREFIX = re.compile(r"PROCESSING_(ERROR|WARNING)_(REASON_)?")
_PASSING = "INTERNAL_ERROR"


def read(request: Request, response: Response, *, patience_us: int) -> Outcomes:
    """One outcome per item of a request.

    Args:
        request: What was sent.
        response: The answer.
        patience_us: How long the end of a request is asked for, in microseconds.

    Raises:
        AuthError: Google does not accept who asks.
        ConfigError: The list or the account cannot be used.
        RateLimited: Google asks for fewer requests.
        TransientError: Google failed in a way that passes.
        RecordRejected: Google will never take the request as it is.
    """
    answer = response.json_object()
    if not 200 <= response.status < 300 or "error" in answer:
        error = answer.get("error")
        return _refused(request, response, error if isinstance(error, Mapping) else {})
    if STATUS_PATH in request.url:
        return _ended(request, response, patience_us)
    job = answer.get("requestId")
    if not isinstance(job, str) or not job:
        raise TransientError("Google answered with something that is no answer to this request")
    return Outcomes.every(request, Pending(job=f"{response.received_at_us}.{job}", after_s=LOOK_EVERY_S))


def request_id(job: str) -> str:
    """Google's id of a request, in a job: that begins with the moment of the request, in microseconds since 1970."""
    return job.partition(".")[2]


def sentence(response: Response) -> str:
    """What is wrong with an answer to a check; empty when nothing is."""
    answer = response.json_object()
    if 200 <= response.status < 300 and "error" not in answer:
        return "" if answer or response.json() == {} else "Google answered with something that is no answer"
    error = answer.get("error")
    try:
        raise_for(response, error if isinstance(error, Mapping) else {})
    except (AuthError, ConfigError, RateLimited, TransientError, RecordRejected) as found:
        return found.reason


def raise_for(response: Response, error: Mapping[str, Any]) -> NoReturn:
    """Raise what an error of Google's means for the whole request."""
    status, reasons = response.status, set(_reasons(error))
    named = ", ".join(sorted(reasons)) or str(error.get("status") or "")
    said = f"Google answered {status}" + (f" ({named})" if _WORD.search(named) else "")
    if status == 429:
        raise RateLimited(said, response.retry_after_s())
    if status in (408, 409, 499) or status >= 500:
        raise TransientError(said, response.retry_after_s())
    if status == 401:
        raise AuthError(f"{said}: the access token is not valid, connect the account again")
    if reasons & _TERMS:
        raise ConfigError(f"{said}: accept the Customer Match terms, here and in Google Ads", "terms_accepted")
    if reasons & _LIST_UNUSABLE:
        raise ConfigError(f"{said}: the list is gone, of another kind, or not to be changed", "user_list_id")
    if reasons & _ACCOUNT_UNUSABLE:
        raise ConfigError(f"{said}: the account cannot be used for this", "customer_id")
    if status == 403:
        raise AuthError(
            f"{said}: the user may not change the account's lists, or the Data Manager API is off in the Cloud project"
        )
    if status == 404:
        raise ConfigError(f"{said}: there is no such list in the account", "user_list_id")
    if not error:  # no JSON of Google's: a proxy or a page in between
        raise TransientError(f"Google answered {status} and no reason", response.retry_after_s())
    raise RecordRejected(said)


def _refused(request: Request, response: Response, error: Mapping[str, Any]) -> Outcomes:
    """A refusal of the whole request: the members that are named are at fault, the others are to be sent again."""
    reasons = set(_reasons(error))
    guilty = _places(error)
    places = range(len(request.items))
    general = reasons & (_LIST_UNUSABLE | _ACCOUNT_UNUSABLE | _TERMS)
    if response.status != 400 or general or not set(guilty) & set(places):
        raise_for(response, error)
    rest = Retry(reason="Google refused the request because of other members", after_s=0.0)
    return Outcomes(
        items=tuple(Rejected(reason=f"Google refuses it: {guilty[n]}") if n in guilty else rest for n in places),
        refused_whole=True,
    )


def _ended(request: Request, response: Response, patience_us: int) -> Outcomes:
    """What became of the members of a request that was taken earlier. All are for one destination."""
    found = response.json_object().get("requestStatusPerDestination")
    status = found[0] if isinstance(found, list) and found and isinstance(found[0], Mapping) else {}
    state = status.get("requestStatus")
    errors = _counts(status.get("errorInfo"), "errorCounts")
    warnings = _counts(status.get("warningInfo"), "warningCounts")
    if state in ("PROCESSING", "REQUEST_STATUS_UNKNOWN"):
        return Outcomes.every(request, _unfinished(request, response, patience_us))
    outcome: Outcome
    if state == "SUCCESS":
        outcome = Warned(reason=f"Google has remarks: {_told(warnings)}") if warnings else Delivered()
    elif state in ("FAILED", "FAILURE"):
        passes = not errors or set(errors) == {_PASSING}
        reason = f"Google could not process it: {_told(errors)}"
        outcome = Retry(reason=reason) if passes else Rejected(reason=reason)
    elif state == "PARTIAL_SUCCESS":
        outcome = Warned(reason=f"Google could not process all of {len(request.items)} members: {_told(errors)}")
    else:
        raise TransientError("Google answered with something that is no status of a request")
    return Outcomes.every(request, outcome)


def _unfinished(request: Request, response: Response, patience_us: int) -> Outcome:
    """Asked for again, up to a time. After that the request counts as taken: sending it again would change nothing."""
    job = unquote(request.url.partition("#")[2])
    since = job.partition(".")[0]
    if since.isdecimal() and response.received_at_us - int(since) < patience_us:
        return Pending(job=job, after_s=LOOK_EVERY_S)
    hours = patience_us // 3_600_000_000
    return Warned(reason=f"Google took it and was still working on it after {hours} hours: its end was not seen")


def _reasons(error: Mapping[str, Any]) -> Iterator[str]:
    """The reasons in an error's details: google.rpc.ErrorInfo, and those of single fields."""
    for detail in _details(error):
        for one in (detail, *_violations(detail)):
            reason = one.get("reason")
            if isinstance(reason, str) and _WORD.fullmatch(reason):
                yield reason


def _places(error: Mapping[str, Any]) -> dict[int, str]:
    """Place of each member that is named -> the reason, or the field at fault."""
    found: dict[int, str] = {}
    for detail in _details(error):
        for violation in _violations(detail):
            path, reason = violation.get("field"), violation.get("reason")
            match = _MEMBER.search(path) if isinstance(path, str) else None
            if match:
                # The description quotes values, so it is not shown.
                named = reason if isinstance(reason, str) and _WORD.fullmatch(reason) else "a field is not valid"
                found.setdefault(int(match[1]), named)
    return found


def _details(error: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = error.get("details")
    return [one for one in details if isinstance(one, Mapping)] if isinstance(details, list) else []


def _violations(detail: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = detail.get("fieldViolations")
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _counts(info: Any, member: str) -> dict[str, int]:
    """Number of records by reason; numbers of 64 bits come as text."""
    found: dict[str, int] = {}
    counts = info.get(member) if isinstance(info, Mapping) else None
    for one in counts if isinstance(counts, list) else []:
        reason, count = (one.get("reason"), one.get("recordCount")) if isinstance(one, Mapping) else (None, None)
        if isinstance(reason, str) and _WORD.fullmatch(reason):
            found[_PREFIX.sub("", reason)] = int(str(count)) if str(count).isdecimal() else 0
    return found


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} for {count}" for reason, count in sorted(counts.items())[:5]) or "no reason is given"
