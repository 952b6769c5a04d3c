"""What the Google Ads API's answers mean.

A 200 may hide conversions that were refused: `partialFailureError` names each by its place. Errors of a whole request
come as an object, or as a list with one.

https://developers.google.com/google-ads/api/docs/best-practices/partial-failures
https://developers.google.com/google-ads/api/reference/rpc/latest/ConversionUploadErrorEnum.ConversionUploadError
https://developers.google.com/google-ads/api/reference/rpc/latest/ConversionAdjustmentUploadErrorEnum.ConversionAdjustmentUploadError
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
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

CHECKED = b'"validateOnly":true'
"""In the body of a request that Google only checks."""
SIX_HOURS_S = 6 * 3600.0
_DAY_S = 24 * 3600.0
_KNOWN_ALREADY = frozenset(
    {
        "ORDER_ID_ALREADY_IN_USE", "CLICK_CONVERSION_ALREADY_EXISTS", "CALL_CONVERSION_ALREADY_EXISTS",
        "CONVERSION_ALREADY_ENHANCED", "CONVERSION_ALREADY_RETRACTED", "RESTATEMENT_ALREADY_EXISTS",
    }
)  # fmt: skip
_LATER_S = {
    "TOO_RECENT_EVENT": SIX_HOURS_S,
    "TOO_RECENT_CALL": SIX_HOURS_S,
    "TOO_RECENT_CONVERSION_ACTION": SIX_HOURS_S,
    "TOO_RECENT_CONVERSION": _DAY_S,
}
_SETTINGS = {
    "CUSTOMER_NOT_ACCEPTED_CUSTOMER_DATA_TERMS": "accept the customer data terms there, or send no contact data",
    "CUSTOMER_NOT_ENABLED_ENHANCED_CONVERSIONS_FOR_LEADS": "turn on enhanced conversions for leads there, or send no "
    "contact data",
    "CUSTOMER_DATA_POLICY_PROHIBITS_ENHANCED_CONVERSIONS": "the account may not send contact data",
    "CUSTOMER_DATA_POLICY_PROHIBITS_ENHANCEMENT": "the account may not send contact data",
    "NO_CONVERSION_ACTION_FOUND": "a conversion action is not in the account",
    "INVALID_CONVERSION_ACTION_TYPE": "a conversion action is of a type that takes no such uploads",
    "CONVERSION_ACTION_NOT_ELIGIBLE_FOR_ENHANCEMENT": "a conversion action takes no enhancements",
}
_PASSING = frozenset({"CONCURRENT_MODIFICATION", "INTERNAL_ERROR", "TRANSIENT_ERROR", "DEADLINE_EXCEEDED"})
_THROTTLED = frozenset({"RESOURCE_EXHAUSTED", "RESOURCE_TEMPORARILY_EXHAUSTED"})
_OLD_VERSION = frozenset({"UNSUPPORTED_VERSION", "VERSION_DEPRECATED"})
_WRONG_ACCOUNT = frozenset({"CUSTOMER_NOT_ENABLED", "CUSTOMER_NOT_FOUND", "INVALID_CUSTOMER_ID", "NOT_ADS_USER"})
_PASSING_RPC = frozenset({4, 8, 10, 13, 14})
"""google.rpc.Code: deadline exceeded, resource exhausted, aborted, internal, unavailable."""
_WORD = re.compile(r"[A-Z][A-Z0-9_]{2,120}")
_SECONDS = re.compile(r"([0-9]{1,6})(\.[0-9]+)?s")


@dataclass(frozen=True, slots=True)
class Error:
    """One error of Google's.

    Attributes:
        code: Such as "TOO_RECENT_EVENT".
        place: Of the conversion in the request; None when it is about the whole.
        field: Name of the field at fault; empty when there is none.
        wait_s: Seconds that Google asks to wait; None when it does not.
    """

    code: str
    place: int | None = None
    field: str = ""
    wait_s: float | None = None


def read(request: Request, response: Response) -> Outcomes:
    """One outcome per item of a request.

    Raises:
        AuthError: Google does not accept who asks.
        ConfigError: The account, a conversion action or the API version cannot be used.
        RateLimited: Google asks for fewer requests.
        TransientError: Google failed in a way that passes.
        RecordRejected: Google will never take the request as it is.
    """
    answer = _object(response)
    if not 200 <= response.status < 300 or "error" in answer:
        raise_for(response, answer.get("error"))
    partial, results = answer.get("partialFailureError"), answer.get("results")
    checked = CHECKED in request.body
    if not isinstance(partial, Mapping) and not isinstance(results, list) and not (checked and response.json() == {}):
        raise TransientError("Google answered with something that is no answer to this request")
    partial = partial if isinstance(partial, Mapping) else {}
    found = results if isinstance(results, list) else []
    errors = {error.place: error for error in reversed(list(_errors(partial))) if error.place is not None}
    items: list[Outcome] = []
    for place in range(len(request.items)):
        if place in errors:
            items.append(_outcome(errors[place]))
        elif partial and not errors:
            items.append(_of_all(partial.get("code")))
        elif checked:
            items.append(Warned(reason="only checked by Google: nothing is counted"))
        elif place < len(found) and found[place]:
            items.append(Delivered())
        else:
            items.append(Retry(reason="Google neither took nor refused it"))
    wrong = [_SETTINGS[error.code] for error in errors.values() if error.code in _SETTINGS]
    return Outcomes(items=tuple(items), misconfigured=f"Google Ads: {wrong[0]}" if wrong else "")


def raise_for(response: Response, given: Any) -> NoReturn:
    """Raise what an error of a whole request means."""
    error = given if isinstance(given, Mapping) else {}
    status, errors = response.status, list(_errors(error))
    codes = {one.code for one in errors}
    named = ", ".join(sorted(codes)) or str(error.get("status") or "")
    said = f"Google Ads answered {status}" + (f" ({named[:200]})" if _WORD.search(named) else "")
    waits = [one.wait_s for one in errors if one.wait_s is not None]
    if status == 429 or codes & _THROTTLED:
        raise RateLimited(said, response.retry_after_s() or max(waits, default=None))
    if status in (408, 409) or status >= 500 or codes & _PASSING:
        raise TransientError(said, response.retry_after_s())
    if codes & _OLD_VERSION or (status == 404 and not error):
        raise ConfigError(f"{said}: this API version is no more, set a newer one", "api_version")
    if codes & _WRONG_ACCOUNT or status == 404:
        raise ConfigError(f"{said}: the account is not there or cannot be used", "customer_id")
    if status == 401:
        raise AuthError(f"{said}: the access token is not valid, connect the account again")
    if status == 403:
        raise AuthError(f"{said}: the user or the developer token may not use the account")
    if not error:  # no JSON of Google's: a proxy or a page in between
        raise TransientError(f"Google Ads answered {status} and no reason", response.retry_after_s())
    raise RecordRejected(said)


def read_check(response: Response, wanted: Sequence[str]) -> str:
    """What the search for the conversion actions found: empty when all are there and enabled.

    Args:
        response: The answer.
        wanted: Ids of conversion actions.
    """
    answer = _object(response)
    if not 200 <= response.status < 300 or "error" in answer:
        try:
            raise_for(response, answer.get("error"))
        except ConnectorError as error:
            return error.reason
    if response.json() is None:
        return "Google Ads answered with something that is no answer"
    found = answer.get("results")
    states = {
        str(row["conversionAction"].get("id")): str(row["conversionAction"].get("status"))
        for row in (found if isinstance(found, list) else [])
        if isinstance(row, Mapping) and isinstance(row.get("conversionAction"), Mapping)
    }
    missing = [number for number in wanted if number not in states]
    if missing:
        return f"the conversion action {missing[0]} is not in the account"
    off = [number for number in wanted if states[number] != "ENABLED"]
    return f"the conversion action {off[0]} is not enabled" if off else ""


def _outcome(error: Error) -> Outcome:
    said = f"Google refuses it: {error.code}"
    if error.code in _KNOWN_ALREADY:
        return Warned(reason=f"Google has it already: {error.code}")
    if error.code in _LATER_S:
        return Retry(reason=said, after_s=_LATER_S[error.code])
    if error.code in _PASSING or error.code in _THROTTLED or error.code in _SETTINGS:
        return Retry(reason=said, after_s=error.wait_s)
    return Rejected(reason=said, field=error.field)


def _of_all(code: Any) -> Outcome:
    """The outcome of each conversion when the error names none of them."""
    reason = f"Google took nothing of the request (error {code})" if isinstance(code, int) else "Google took nothing"
    return Retry(reason=reason) if code in _PASSING_RPC else Rejected(reason=reason)


def _errors(status: Mapping[str, Any]) -> Iterator[Error]:
    """The errors in the details of a google.rpc.Status (GoogleAdsFailure)."""
    details = status.get("details")
    for detail in details if isinstance(details, list) else []:
        found = detail.get("errors") if isinstance(detail, Mapping) else None
        for one in found if isinstance(found, list) else []:
            if isinstance(one, Mapping):
                place, field = _location(one.get("location"))
                yield Error(_code(one.get("errorCode")), place, field, _wait_s(one.get("details")))


def _code(given: Any) -> str:
    """The code in {"conversionUploadError": "TOO_RECENT_EVENT"}."""
    for value in given.values() if isinstance(given, Mapping) else ():
        if isinstance(value, str) and _WORD.fullmatch(value):
            return value
    return "UNKNOWN"


def _location(given: Any) -> tuple[int | None, str]:
    """Place of the conversion, and name of the field in it."""
    path = given.get("fieldPathElements") if isinstance(given, Mapping) else None
    elements = [one for one in path if isinstance(one, Mapping)] if isinstance(path, list) else []
    if not elements:
        return None, ""
    index = elements[0].get("index")
    names = [str(one.get("fieldName", "")) for one in elements[1:]]
    field = names[-1] if names and re.fullmatch(r"\w{1,60}", names[-1]) else ""
    repeated = elements[0].get("fieldName") in ("conversions", "conversion_adjustments", "operations")
    if not isinstance(index, int) or isinstance(index, bool):
        return (0, field) if repeated else (None, field)
    return index, field


def _wait_s(details: Any) -> float | None:
    quota = details.get("quotaErrorDetails") if isinstance(details, Mapping) else None
    delay = quota.get("retryDelay") if isinstance(quota, Mapping) else None
    match = _SECONDS.fullmatch(delay) if isinstance(delay, str) else None
    return float(match[1]) if match else None


def _object(response: Response) -> Mapping[str, Any]:
    """The answer's object, also where it is the only one of a list."""
    answer = response.json()
    if isinstance(answer, list) and answer:
        answer = answer[0]
    return answer if isinstance(answer, Mapping) else {}
