"""What Google's answers mean.

The Measurement Protocol answers 2xx to whatever arrives and says nothing about what becomes of it; Google asks not to
repeat a request that it answered otherwise. Only its validation server says what is wrong.

https://developers.google.com/analytics/devguides/collection/protocol/ga4/reference
https://developers.google.com/analytics/devguides/collection/protocol/ga4/validating-events
"""

from __future__ import annotations

import re

from headrace_sdk import (
    AuthError,
    ConfigError,
    Delivered,
    Outcomes,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    TransientError,
    Warned,
)

VALIDATION_PATH = "/debug/mp/collect"
_NOT_PLAIN = re.compile(r"[^\w.\[\]]+", re.ASCII)


def read(request: Request, response: Response) -> Outcomes:
    """One outcome per item of a request.

    Raises:
        AuthError: Somebody on the way refuses the request.
        ConfigError: The address is not Google's.
        RateLimited: Google asks for fewer requests.
        TransientError: Google failed in a way that passes.
        RecordRejected: Google will never take the request.
    """
    _check_status(response)
    if VALIDATION_PATH in request.url:
        problems = _problems(response)
        if problems:
            return Outcomes.every(request, Rejected(reason=f"Google's validation server finds: {problems}"))
        return Outcomes.every(request, Warned(reason="only checked by Google's validation server: nothing is counted"))
    if "html" in response.headers.get("content-type", ""):
        raise TransientError("a page came in place of Google's answer")
    return Outcomes.every(request, Delivered())


def read_check(response: Response) -> str:
    """What the validation server's answer to the check means; empty when all is well."""
    if not 200 <= response.status < 300:
        return f"Google's validation server answers {response.status}: look at the address"
    try:
        problems = _problems(response)
    except TransientError as error:
        return str(error)
    return f"Google's validation server finds: {problems}" if problems else ""


def _check_status(response: Response) -> None:
    status = response.status
    if 200 <= status < 300:
        return
    said = f"Google Analytics answered {status}"
    if status == 429:
        raise RateLimited(said, response.retry_after_s())
    if status == 408 or status >= 500:
        raise TransientError(said, response.retry_after_s())
    if status in (401, 403, 407):
        raise AuthError(f"{said}: something between Headrace and Google refuses the request")
    if status < 400 or status == 404:
        raise ConfigError(f"{said}: the address is not that of Google Analytics", "base_url")
    raise RecordRejected(said)


def _problems(response: Response) -> str:
    """Codes and places of the validation server's messages. Their descriptions quote values, so they are not shown."""
    messages = response.json_object().get("validationMessages")
    if not isinstance(messages, list):
        raise TransientError("Google's validation server answered with something that is no answer")
    found = []
    for message in messages[:5]:
        if isinstance(message, dict):
            code, path = (_plain(message.get(name)) for name in ("validationCode", "fieldPath"))
            found.append(f"{code or 'a problem'}{f' at {path}' if path else ''}")
    return ", ".join(found)


def _plain(text: object) -> str:
    return _NOT_PLAIN.sub("", text)[:80] if isinstance(text, str) else ""
