"""What TikTok's answers mean: HTTP 200 whatever happened, and a code of its own in the body.

40001 is a missing permission, 40002 a parameter, 40100 the rate limit, 40105 the access token, 5xxxx TikTok's own
failure: https://help.sleekflow.io/en_US/tiktok-business-messaging/troubleshooting-your-tiktok-business-messaging-channels
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

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
    Retry,
    TransientError,
    Warned,
)

_OK, _PARTIAL = 0, 20_001
_NO_PERMISSION, _BAD_PARAMETER, _THROTTLED, _BAD_TOKEN = 40_001, 40_002, 40_100, 40_105
_PLACE = re.compile(r"\bdata(?:\[|\.)([0-9]{1,4})\b")
_ACCESS_TOKEN = re.compile(r"access[ _-]?token", re.IGNORECASE)
_PERSONAL = re.compile(r"[^\s@]+@[^\s@]+|[0-9a-fA-F]{32,}|[0-9]{7,}")


def read(request: Request, response: Response) -> Outcomes:
    """One outcome per item of a request.

    Raises:
        AuthError: The token is not valid, or may not send to the event source.
        ConfigError: TikTok does not know the event source, or the address.
        RateLimited: TikTok asks for fewer requests.
        TransientError: TikTok failed in a way that passes, or what answered is not TikTok.
        RecordRejected: TikTok will never take the request as it is.
    """
    answer = response.json_object()
    code = answer.get("code")
    if not isinstance(code, int) or isinstance(code, bool):
        _raise_without_code(response)
    if code == _OK and 200 <= response.status < 300:
        return Outcomes.every(request, Delivered())
    said = f"TikTok answered with code {code}{_explanation(answer)}"
    if code == _PARTIAL:
        return Outcomes.every(request, Warned(reason=f"{said}: it took only a part"))
    if code == _BAD_TOKEN or _ACCESS_TOKEN.search(str(answer.get("message"))):
        raise AuthError(f"{said}: the access token is not valid (any more)")
    if code == _NO_PERMISSION:
        raise AuthError(f"{said}: the access token may not send to this event source")
    if code == _THROTTLED or response.status == 429:
        raise RateLimited(said, response.retry_after_s())
    if code >= 50_000 or code == _OK or response.status >= 500:
        raise TransientError(said, response.retry_after_s())
    if code == _BAD_PARAMETER and _blames_the_source(answer):
        raise ConfigError(f"{said}: TikTok does not know the event source", "event_source_id")
    if code == _BAD_PARAMETER:
        return _refused(request, answer, said)
    raise RecordRejected(said)


def _raise_without_code(response: Response) -> NoReturn:
    status = response.status
    said = f"TikTok answered with status {status} and no code"
    if status == 429:
        raise RateLimited(said, response.retry_after_s())
    if status in (401, 403):
        raise AuthError(f"{said}: the access token is refused")
    if status in (404, 405, 410) or 300 <= status < 400:
        raise ConfigError(f"{said}: the address is not that of TikTok's API", "base_url")
    if status == 413:
        raise RecordRejected(f"{said}: the request is too large")
    raise TransientError(said, response.retry_after_s())


def _refused(request: Request, answer: Mapping[str, Any], said: str) -> Outcomes:
    """TikTok stores nothing of a request with one bad event: the named ones, or all if it names none, are refused."""
    size = len(request.items)
    named = {int(place) for place in _PLACE.findall(str(answer.get("message")))} & set(range(size))
    rejected, again = Rejected(reason=said), Retry(reason="TikTok refused the request for another event in it")
    items = tuple(rejected if place in named or not named else again for place in range(size))
    return Outcomes(items=items, refused_whole=True)


def _blames_the_source(answer: Mapping[str, Any]) -> bool:
    message = str(answer.get("message")).lower()
    return "event_source_id" in message or "pixel_code" in message or "pixel code" in message


def _explanation(answer: Mapping[str, Any]) -> str:
    """TikTok's words, without what may be personal."""
    message = answer.get("message")
    if not isinstance(message, str) or not message.strip():
        return ""
    return f" ({_PERSONAL.sub('...', ' '.join(message.split()))[:200]})"
