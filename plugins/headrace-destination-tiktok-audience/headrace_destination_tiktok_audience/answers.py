"""What TikTok's answers mean: HTTP 200 whatever happened, and a code of its own in the body.

40001 is a missing permission, 40002 a parameter, 40007 an object that does not exist, 40100 the rate limit, 40105 the
access token, 5xxxx TikTok's own failure: https://help.sleekflow.io/en_US/tiktok-business-messaging/troubleshooting-your-tiktok-business-messaging-channels
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
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
_NO_PERMISSION, _BAD_PARAMETER, _NO_OBJECT, _THROTTLED, _BAD_TOKEN = 40_001, 40_002, 40_007, 40_100, 40_105
_PLACE = re.compile(r"\bbatch_data(?:\[|\.)([0-9]{1,5})\b")
_UNUSABLE = re.compile(
    r"not exist|n't exist|not found|deleted|expired|not belong|n't belong|no permission"
    r"|(advertiser|audience)(_| )?ids? (is|are) (invalid|not valid)|(invalid|unknown) (advertiser|audience)",
    re.IGNORECASE,
)
_ACCESS_TOKEN = re.compile(r"access[ _-]?token", re.IGNORECASE)


def read(request: Request, response: Response) -> Outcomes:
    """One outcome per item of a request.

    Raises:
        AuthError: The token is not valid, or may not change audiences of the ad account.
        ConfigError: TikTok does not know the audience, the ad account or the address.
        RateLimited: TikTok asks for fewer requests.
        TransientError: TikTok failed in a way that passes, or what answered is not TikTok.
        RecordRejected: TikTok will never take the request as it is.
    """
    code, answer = accepted(response)
    if code == _PARTIAL:
        said = f"TikTok answered with code {code}{remark(answer.get('message'))}"
        return Outcomes.every(request, Warned(reason=f"{said}: it took only a part"))
    if code == _OK:
        return Outcomes.every(request, Delivered())
    said = f"TikTok answered with code {code}{remark(answer.get('message'))}"
    if code == _BAD_PARAMETER:
        places = map(int, _PLACE.findall(str(answer.get("message"))))
        return Outcomes.refused(request, said, set(places))
    raise RecordRejected(said)


def accepted(response: Response) -> tuple[int, Mapping[str, Any]]:
    """The code of an answer and the answer. Raises what `read` raises for all but the request's own faults."""
    answer = response.json_object()
    code = answer.get("code")
    if not isinstance(code, int) or isinstance(code, bool):
        raise_for_status(response, f"TikTok answered with status {response.status} and no code")
    if code in (_OK, _PARTIAL) and 200 <= response.status < 300:
        return code, answer
    said = f"TikTok answered with code {code}{remark(answer.get('message'))}"
    if code == _BAD_TOKEN or _ACCESS_TOKEN.search(str(answer.get("message"))):
        raise AuthError(f"{said}: the access token is not valid (any more)")
    if code == _NO_PERMISSION:
        raise AuthError(f"{said}: the token may not change audiences of the ad account")
    if code == _THROTTLED or response.status == 429:
        raise RateLimited(said, response.retry_after_s())
    if code >= 50_000 or code in (_OK, _PARTIAL) or response.status >= 500:
        raise TransientError(said, response.retry_after_s())
    if setting := _blamed_setting(code, answer):
        raise ConfigError(f"{said}: TikTok does not know it", setting)
    return code, answer


def data_of(response: Response) -> Mapping[str, Any]:
    """The member `data` of an answer that is a success.

    Raises:
        ConnectorError: It is none, as of `read`.
    """
    code, answer = accepted(response)
    if code != _OK:
        raise RecordRejected(f"TikTok answered with code {code}{remark(answer.get('message'))}")
    data = answer.get("data")
    if not isinstance(data, Mapping):
        raise TransientError("TikTok answered without data")
    return data


def sentence(response: Response, audience_id: str) -> str:
    """What an answer about the audience means; empty when it is there."""
    try:
        found = data_of(response).get("list")
    except ConnectorError as error:
        return error.reason
    audiences = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    details = [one["audience_details"] for one in audiences if isinstance(one.get("audience_details"), Mapping)]
    known = {str(one.get("audience_id")) for one in (*audiences, *details)}
    return "" if audience_id in known else "TikTok does not know the audience: choose another one"


def _blamed_setting(code: int, answer: Mapping[str, Any]) -> str:
    """The setting that an answer is about; empty when it is about none.

    A row has the audience's id too, so a message that names a row's place is about the row; and one that has the word
    without saying that the object is not there, or is another's, may be about anything.
    """
    message = str(answer.get("message"))
    blames = code == _NO_OBJECT or (code == _BAD_PARAMETER and _UNUSABLE.search(message))
    if not blames or _PLACE.search(message):
        return ""
    if "advertiser" in message.lower():
        return "advertiser_id"
    return "audience_id" if "audience" in message.lower() else ""
