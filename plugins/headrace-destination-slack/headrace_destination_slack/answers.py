"""What Slack's answers mean. Webhooks speak by HTTP status and a word; the Web API answers 200 with {"ok": false}.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
https://docs.slack.dev/reference/methods/chat.postMessage
https://docs.slack.dev/apis/web-api/rate-limits
"""

from __future__ import annotations

import re

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
)

_AUTH = frozenset(
    {
        "not_authed", "invalid_auth", "account_inactive", "token_revoked", "token_expired", "no_permission",
        "missing_scope", "not_allowed_token_type", "org_login_required", "ekm_access_denied", "access_denied",
        "no_service", "no_service_id", "no_team", "invalid_token", "team_disabled", "no_active_hooks",
    }
)  # fmt: skip
_CHANNEL = frozenset(
    {
        "channel_not_found", "not_in_channel", "is_archived", "channel_is_archived", "restricted_action",
        "restricted_action_read_only_channel", "restricted_action_thread_only_channel", "action_prohibited",
        "posting_to_general_channel_denied",
    }
)  # fmt: skip
_PASSING = frozenset(
    {
        "internal_error", "fatal_error", "request_timeout", "service_unavailable", "team_added_to_org", "rollup_error",
    }
)  # fmt: skip
_LIMITED = frozenset({"ratelimited", "rate_limited"})
_CODE = re.compile(r"[a-z][a-z0-9_]{1,60}")


def read_webhook(request: Request, response: Response) -> Outcomes:
    """One outcome per item of a request to an incoming webhook.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    word = response.body[:200].decode("utf-8", "replace").strip()
    if response.status == 200:
        if word == "ok":
            return Outcomes.every(request, Delivered())
        raise TransientError("Slack answered 200 with something else than ok")
    raise _error(response, word if _CODE.fullmatch(word) else "", "webhook_url", own_channel=False)


def read_web_api(request: Request, response: Response, *, own_channel: bool) -> Outcomes:
    """One outcome per item of a request to the Web API.

    Args:
        request: The request.
        response: Its answer.
        own_channel: True when the event chose the channel, so that only this event is at fault.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    answer = response.json_object()
    if response.status == 200 and answer.get("ok") is True:
        return Outcomes.every(request, Delivered())
    raise _error(response, _code(answer.get("error")), "channel", own_channel=own_channel)


def read_check(response: Response) -> str:
    """What an answer to auth.test means; empty when all is well."""
    answer = response.json_object()
    if response.status == 200 and answer.get("ok") is True:
        return ""
    code = _code(answer.get("error"))
    if code in _AUTH:
        return f"Slack refuses the bot token ({code}): make a new one, or install the app again"
    return f"Slack does not say that the bot token works ({code or response.status}): try again"


def _error(response: Response, code: str, setting: str, *, own_channel: bool) -> ConnectorError:
    status = response.status
    said = f"Slack answered {status}{f' {code}' if code else ''}"
    if status == 429 or code in _LIMITED:
        return RateLimited(said, response.retry_after_s())
    if status == 408 or status >= 500 or code in _PASSING:
        return TransientError(said, response.retry_after_s())
    if code in _AUTH or status == 401:
        return AuthError(f"{said}: make a new {'webhook' if setting == 'webhook_url' else 'bot token'}")
    if code in _CHANNEL and not own_channel:
        return ConfigError(f"{said}: nothing can be posted to the channel", setting)
    if code:
        return RecordRejected(said, "channel" if code in _CHANNEL else "")
    if status == 200:
        return TransientError("Slack answered 200 with something that is no answer")
    if status < 400 or status in (403, 404, 410):
        return ConfigError(f"{said}: look at the address", setting if setting == "webhook_url" else "base_url")
    return RecordRejected(said)


def _code(value: object) -> str:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""
