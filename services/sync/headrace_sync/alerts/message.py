"""What an alert says, and how it is signed. Pure.

Signed as the Standard Webhooks specification says (https://www.standardwebhooks.com): the receiver checks the signature
over id, time and body, and drops a repeated id.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from headrace.domain.times import SECOND_US, format_time_us
from headrace_sdk import Request

_SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret is recognised


class AlertKind(StrEnum):
    """What happened."""

    DESTINATION_UNAUTHORIZED = "destination.unauthorized"
    """The vendor refuses the credentials, or the settings cannot work: nothing is sent until somebody changes them."""
    BREAKER_OPENED = "destination.breaker_opened"
    """The vendor does not answer: it is asked now and then, and everything waits."""
    APPROVAL_NEEDED = "sync.approval_needed"
    """A list sync waits until its plan is approved."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that somebody should know.

    Attributes:
        id: The same for the same happening, however often it is told.
        kind: What happened.
        resource: Name of the destination or sync.
        reason: A sentence without secrets and personal data.
        at_us: When.
        plan_id: The plan to approve, of APPROVAL_NEEDED.
    """

    id: str
    kind: AlertKind
    resource: str
    reason: str
    at_us: int
    plan_id: str = ""


def request_of(alert: Alert, *, url: str, secret: str, now_us: int) -> Request:
    """The request that tells of an alert.

    Args:
        alert: The alert.
        url: Where it goes.
        secret: Key of the signature: "whsec_" and Base64, or any text; empty for no signature.
        now_us: The clock.
    """
    data = {"resource": alert.resource, "reason": alert.reason}
    if alert.plan_id:
        data["plan_id"] = alert.plan_id
    told = {"type": alert.kind.value, "timestamp": format_time_us(alert.at_us), "data": data}
    body = msgspec.json.encode(told)
    seconds = str(now_us // SECOND_US)
    headers = {"Content-Type": "application/json", "webhook-id": alert.id, "webhook-timestamp": seconds}
    if secret:
        signed = b".".join((alert.id.encode(), seconds.encode(), body))
        digest = hmac.new(key_of_secret(secret), signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return Request(method="POST", url=url, headers=headers, body=body, items=())


def key_of_secret(secret: str) -> bytes:
    """The key in a secret.

    Raises:
        ValueError: It says that it is Base64, and is not.
    """
    if secret.startswith(_SECRET_PREFIX):
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    return secret.encode()
