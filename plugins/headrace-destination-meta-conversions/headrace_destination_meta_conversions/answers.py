"""What the answers of Meta's Conversions API mean, to a pixel or a dataset.

https://developers.facebook.com/documentation/ads-commerce/marketing-api/error-reference
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from headrace_sdk import (
    AuthError,
    ConfigError,
    Delivered,
    Outcomes,
    RateLimited,
    RecordRejected,
    Request,
    Response,
    TransientError,
    Warned,
)
from headrace_sdk.answers import remark, words

_CREDENTIALS = frozenset({102, 190})
_PERMISSIONS = frozenset({3, 10, 294, *range(200, 300)})
_THROTTLED = frozenset({4, 17, 32, 341, 613, *range(80_000, 80_015)})
_PASSING = frozenset({-1, 1, 2, 368, 5000, 21_009})
_INVALID = 100
_UNKNOWN_OBJECT = 33
_OLD_VERSION = 2635
_LONGEST_WAIT_S = 3_600.0
_PLACE = re.compile(r"\bdata\W{1,4}([0-9]{1,4})\b")


def read(request: Request, response: Response, of: str) -> Outcomes:
    """One outcome per event of a request.

    Args:
        request: The request.
        response: Its answer.
        of: What takes the events, "pixel" or "dataset": its id is a setting.

    Raises:
        AuthError: The token is not valid, or may not send events to the pixel.
        ConfigError: There is no such pixel, or the API version is no more.
        RateLimited: Meta asks for fewer requests.
        TransientError: Meta failed in a way that passes.
        RecordRejected: Meta will never take the request, for a reason that is none of its events.
    """
    answer = response.json_object()
    error = answer.get("error")
    if isinstance(error, Mapping) and error.get("code") == _INVALID and not _is_about_settings(error):
        return Outcomes.refused(request, _said(error), set(_places(error)))
    if isinstance(error, Mapping) or not 200 <= response.status < 300:
        raise_error(error if isinstance(error, Mapping) else {}, response, of)
    received = answer.get("events_received")
    if not isinstance(received, int) or isinstance(received, bool):
        raise TransientError("Meta answered with something that is no answer to this request")
    if received < len(request.items):
        reason = f"Meta says that it received {received} of the request's {len(request.items)} events"
        return Outcomes.every(request, Warned(reason=reason))
    messages = [shown for one in _list(answer.get("messages")) if (shown := words(one))]
    return Outcomes.every(request, Warned(reason=f"Meta says: {messages[0]}") if messages else Delivered())


def raise_error(error: Mapping[str, Any], response: Response, of: str) -> NoReturn:
    """Raise what an error of Meta's means for the whole request.

    Args:
        error: Meta's error object; empty where there is none.
        response: The answer.
        of: As of `read`.

    Raises:
        ConnectorError: One of those of `read`.
    """
    code, status = _number(error.get("code")), response.status
    said = _said(error) if error else f"Meta answered with status {status} and no reason"
    if code in _CREDENTIALS or (not error and status == 401):
        raise AuthError(f"{said}: the access token is not valid (any more)")
    if code in _THROTTLED or status == 429:
        raise RateLimited(said, _wait_s(response))
    if code == _INVALID and "appsecret_proof" in str(error.get("message")):
        raise ConfigError(f"{said}: the app secret is missing or is not that of the token's app", "app_secret")
    if code == _INVALID and error.get("error_subcode") == _UNKNOWN_OBJECT:
        raise ConfigError(f"{said}: there is no such {of}, or the token has no role on it", f"{of}_id")
    if code == _OLD_VERSION:
        raise ConfigError(f"{said}: set a newer API version", "api_version")
    if code in _PERMISSIONS or (not error and status == 403):
        raise AuthError(f"{said}: the token lacks a permission on the {of}")
    if code in _PASSING or error.get("is_transient") is True or status >= 500 or not error:
        raise TransientError(said, response.retry_after_s())
    raise RecordRejected(said)


def _is_about_settings(error: Mapping[str, Any]) -> bool:
    """Whether an invalid parameter is one of the request's own, or Meta may take the same request later."""
    about = error.get("error_subcode") == _UNKNOWN_OBJECT or "appsecret_proof" in str(error.get("message"))
    return about or error.get("is_transient") is True


def _places(error: Mapping[str, Any]) -> Iterator[int]:
    """Places of the events that an error names, as in data[3][user_data] or ["data", 3, "user_data"]."""
    for part in (error.get("message"), error.get("error_user_msg"), json.dumps(error.get("error_data"))):
        if isinstance(part, str):
            yield from (int(found) for found in _PLACE.findall(part))


def _said(error: Mapping[str, Any]) -> str:
    """Code and words of an error, without what may be personal or secret."""
    code, subcode = _number(error.get("code")), _number(error.get("error_subcode"))
    said = remark(error.get("error_user_title")) or remark(error.get("message"))
    return f"Meta answered with error {code}" + (f", {subcode}" if subcode else "") + said


def _wait_s(response: Response) -> float | None:
    """How long Meta says to wait: Retry-After, or what the usage header estimates in minutes."""
    waits = [response.retry_after_s() or 0.0]
    try:
        usage = json.loads(response.headers.get("x-business-use-case-usage", "{}"))
    except (ValueError, RecursionError):
        usage = {}
    for account in usage.values() if isinstance(usage, Mapping) else ():
        for use in _list(account):
            minutes = use.get("estimated_time_to_regain_access") if isinstance(use, Mapping) else None
            if isinstance(minutes, int | float) and not isinstance(minutes, bool):
                waits.append(minutes * 60.0)
    return min(max(waits), _LONGEST_WAIT_S) or None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
