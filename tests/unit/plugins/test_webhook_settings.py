"""Settings of the webhook: what is refused when they are saved."""

from __future__ import annotations

from typing import Any

import pytest
from headrace_destination_webhook.destination import Webhook, sign
from headrace_destination_webhook.settings import WebhookSettings, signing_key
from pydantic import ValidationError

from headrace_sdk import Built, EventBatch, EventItem, Request, Skip


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"url": "example.com"}, "url"),
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "https://user:pass@example.com"}, "url"),
        ({"url": "https://example.com/ a"}, "url"),
        ({"url": "https://@example.com/"}, "url"),
        ({"url": "https://[::1/"}, "url"),
        ({"url": "https://example.com/a\n"}, "url"),
        ({"url": "https://example.com/#top"}, "url"),
        ({"url": "https://example.com/" + "a" * 2000}, "url"),
        ({"method": "GET"}, "method"),
        ({"headers": {"A B": "x"}}, "headers"),
        ({"headers": {"A": "x\r\nB: y"}}, "headers"),
        ({"headers": {"A": "smile 😀"}}, "headers"),
        ({"headers": {"Content-Length": "1"}}, "headers"),
        ({"secret_headers": {"Webhook-Id": "x"}}, "secret_headers"),
        ({"signing_secret": "short"}, "signing_secret"),
        ({"signing_secret": "whsec_!!!"}, "signing_secret"),
        ({"signing_secret": "whsec_c2hvcnQ="}, "signing_secret"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 101}, "batch_size"),
        ({"body": "{"}, "body"),
        ({"body": "7"}, "body"),
        ({"body": {"a": "${event.}"}}, "body"),
        ({"body": {"a": "${event"}}, "body"),
        ({"body": {"a": "${nofunction(event)}"}}, ""),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_settings(more: dict[str, Any], field: str) -> None:
    values = {"url": "https://example.com/hook", **more}
    if not field:  # an unknown function shows only when it is called
        built = send(WebhookSettings.model_validate(values))
        assert isinstance(built[0], Skip) and "cannot take the value" in built[0].reason
        return
    with pytest.raises(ValidationError) as caught:
        WebhookSettings.model_validate(values)
    assert caught.value.errors()[0]["loc"][0] == field
    assert "short" not in str(caught.value)


def send(settings: WebhookSettings, *ids: str) -> list[Built]:
    events = tuple(EventItem(message_id=identity, kind="track", name="Bought") for identity in ids or ("m",))
    return list(Webhook(settings).send_events(EventBatch(events=events, now_us=1_700_000_000_000_000)))


def test_the_signature_is_that_of_the_published_example() -> None:
    """The vector of the Standard Webhooks reference libraries."""
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_without_prefix_is_taken_as_it_is() -> None:
    assert signing_key("plain text secret") == b"plain text secret"


@pytest.mark.parametrize("identity", ["", "a\nb", "é", " a", "x" * 101])
def test_message_ids_that_fit_no_header_become_a_digest(identity: str) -> None:
    settings = WebhookSettings(url="https://example.com")
    (request,) = send(settings, identity)
    assert isinstance(request, Request)
    key = request.headers["Idempotency-Key"]
    assert key.startswith("msg_") and len(key) == 44
    (again,) = send(settings, identity)
    assert again == request


def test_a_body_as_text_is_read_as_json() -> None:
    (request,) = send(WebhookSettings(url="https://example.com", body='{"id": "${event.message_id}"}'), "m-1")
    assert isinstance(request, Request) and request.body == b'{"id":"m-1"}'
    assert WebhookSettings(url="https://example.com", body=" ").body is None


def test_own_headers_may_set_the_content_type() -> None:
    settings = WebhookSettings(url="https://example.com", headers={"Content-Type": "application/x.acme+json"})
    (request,) = send(settings)
    assert isinstance(request, Request)
    assert [value for name, value in request.headers.items() if name.lower() == "content-type"] == [
        "application/x.acme+json"
    ]
