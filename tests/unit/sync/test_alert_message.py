from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json

import pytest
from headrace_sync.alerts.message import Alert, AlertKind, key_of_secret, request_of

ALERT = Alert("id-1", AlertKind.APPROVAL_NEEDED, "workspaces/acme/syncs/buyers", "asks", 1_000_000, "plan-1")


@pytest.mark.parametrize(
    ("secret", "key"), [("plain text", b"plain text"), ("whsec_" + base64.b64encode(b"key").decode(), b"key")]
)
def test_an_alert_is_signed_over_id_time_and_body(secret: str, key: bytes) -> None:
    request = request_of(ALERT, url="https://a.example/alerts", secret=secret, now_us=5_000_000)
    signed = b"id-1.5." + request.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    assert (request.headers["webhook-id"], request.headers["webhook-timestamp"]) == ("id-1", "5")
    assert json.loads(request.body) == {
        "type": "sync.approval_needed",
        "timestamp": "1970-01-01T00:00:01Z",
        "data": {"resource": "workspaces/acme/syncs/buyers", "reason": "asks", "plan_id": "plan-1"},
    }


def test_without_a_secret_nothing_is_signed() -> None:
    assert "webhook-signature" not in request_of(ALERT, url="https://a.example", secret="", now_us=0).headers


def test_a_secret_that_is_no_base64_is_refused() -> None:
    with pytest.raises(binascii.Error):
        key_of_secret("whsec_***")
