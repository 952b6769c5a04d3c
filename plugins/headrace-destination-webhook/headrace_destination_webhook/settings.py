"""Settings of the webhook destination."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from headrace_destination_webhook.template import Template, TemplateError
from headrace_sdk.settings import absolute_url

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS = frozenset(
    {
        "connection", "content-length", "host", "idempotency-key", "transfer-encoding", "webhook-id",
        "webhook-signature", "webhook-timestamp",
    }
)  # fmt: skip
_SECRET_PREFIX = "whsec_"  # noqa: S105 - what such secrets begin with
_SHORTEST_KEY = 16


class WebhookSettings(BaseModel):
    """Where events go, and in which form."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field(
        title="URL", max_length=2_000, description="Absolute http or https address that the requests go to."
    )
    method: Literal["POST", "PUT", "PATCH"] = Field(
        "POST", title="Method", description="Method of each request: POST, PUT or PATCH."
    )
    headers: dict[str, str] = Field(
        default_factory=dict, max_length=50, title="Headers", description="Sent with each request, shown as they are."
    )
    secret_headers: dict[str, SecretStr] = Field(
        default_factory=dict,
        max_length=50,
        title="Secret headers",
        description="Sent with each request, never shown: Authorization, API keys.",
    )
    signing_secret: SecretStr | None = Field(
        None,
        title="Signing secret",
        description="Signs each request by Standard Webhooks: whsec_ and Base64, or any text of 16 characters or more.",
    )
    body: Any = Field(
        None,
        title="Body",
        description="JSON in which ${path} stands for a value of the event; empty sends the whole event and profile.",
    )
    batch_size: int = Field(
        1,
        ge=1,
        le=100,
        title="Events per request",
        description="1 sends each event alone; more sends a JSON array of up to so many.",
    )
    deletions: bool = Field(
        True,
        title="Ask to delete people",
        description="Sends a request of type delete when a person is deleted; off for receivers that cannot take it.",
    )
    content_type: str = Field(
        "application/json",
        max_length=100,
        title="Content type",
        description="Of the bodies, which are JSON whatever it says.",
    )

    @field_validator("url")
    @classmethod
    def _absolute(cls, url: str) -> str:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError("must hold no user name or password: use secret_headers")
        if parts.fragment:
            raise ValueError("must have no fragment")
        # Unlike the address of an API, that of a receiver may have a query, and an @ in its path.
        absolute_url(f"{parts.scheme}://{parts.netloc}")
        if not url.isprintable() or " " in url:
            raise ValueError("must be an absolute http or https address")
        return url

    @field_validator("headers")
    @classmethod
    def _plain_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            _check_header(name, value)
        return headers

    @field_validator("secret_headers")
    @classmethod
    def _hidden_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            _check_header(name, value.get_secret_value())
        return headers

    @field_validator("content_type")
    @classmethod
    def _one_line(cls, value: str) -> str:
        _check_header("content-type", value)
        return value

    @field_validator("signing_secret")
    @classmethod
    def _usable_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            signing_key(secret.get_secret_value())
        return secret

    @field_validator("body")
    @classmethod
    def _readable_body(cls, body: Any) -> Any:
        """A template as JSON; text that is JSON is read, so that a form's text field can hold it."""
        if body is None or (isinstance(body, str) and not body.strip()):
            return None
        if isinstance(body, str):
            try:
                body = json.loads(body)
            except ValueError as error:
                raise ValueError(f"is no JSON ({str(error)[:100]})") from None
        if not isinstance(body, dict | list):
            raise ValueError("must be a JSON object or array")  # noqa: TRY004 - pydantic reports ValueErrors only
        try:
            Template(body)
        except TemplateError as error:
            raise ValueError(str(error)) from None
        return body


def signing_key(secret: str) -> bytes:
    """The key of a signing secret.

    Raises:
        ValueError: It is none; the text does not quote it.
    """
    if not secret.startswith(_SECRET_PREFIX):
        if len(secret) < _SHORTEST_KEY:
            raise ValueError(f"must have at least {_SHORTEST_KEY} characters")
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be whsec_ followed by Base64") from None
    if len(key) < _SHORTEST_KEY:
        raise ValueError(f"must hold at least {_SHORTEST_KEY} bytes after whsec_")
    return key


def _check_header(name: str, value: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("a header's name must be letters, digits and dashes")
    if name.lower() in _OURS:
        raise ValueError(f"header {name} is set by Headrace")
    if not all(mark == "\t" or (mark.isprintable() and ord(mark) < 256) for mark in value):
        raise ValueError(f"the value of header {name} must be one line of Latin-1 text")
