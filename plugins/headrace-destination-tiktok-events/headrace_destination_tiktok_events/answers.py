"""What TikTok's answers mean: HTTP 200 whatever happened, and a code of its own in the body.

40001 is a missing permission, 40002 a parameter, 40100 the rate limit, 40105 the access token, 5xxxx TikTok's own
failure: https://help.sleekflow.io/en_US/tiktok-business-messaging/troubleshooting-your-tiktok-business-messaging-channels
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
from headrace_sdk.answers import raise_for_status, remark

_OK, _PARTIAL = 0, 20_001
_NO_PERMISSION, _BAD_PARAMETER, _THROTTLED, _BAD_TOKEN = 40_001, 40_002, 40_100, 40_105
_PLACE = re.compile(r"\bdata(?:\[|\.)([0-9]{1,4})\b")
_ACCESS_TOKEN = re.compile(r"access[ _-]?token", re.IGNORECASE)


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
        raise_for_status(response, f"TikTok answered with status {response.status} and no code")
    if code == _OK and 200 <= response.status < 300:
        return Outcomes.every(request, Delivered())
    said = f"TikTok answered with code {code}{remark(answer.get('message'))}"
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
        places = map(int, _PLACE.findall(str(answer.get("message"))))
        return Outcomes.refused(request, said, set(places))
    raise RecordRejected(said)


def _blames_the_source(answer: Mapping[str, Any]) -> bool:
    message = str(answer.get("message")).lower()
    return "event_source_id" in message or "pixel_code" in message or "pixel code" in message
