"""Requests with their credentials, and requests for access tokens, by the scheme that a connector declares. Pure."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import jwt

from headrace.domain.times import SECOND_US
from headrace.plugins.aws_signature import AwsKey, aws_headers
from headrace_sdk import Request, Response
from headrace_sdk.auth import (
    ApiKey,
    Auth,
    AwsSignature,
    Basic,
    Bearer,
    Encoding,
    Grant,
    OAuth2,
    ServiceAccount,
    Signed,
)

_ASSERTION_S = 3600
_KEY_MEMBERS = ("client_email", "private_key", "private_key_id", "token_uri")
"""Of the key file of a Google service account, those that an assertion needs."""
"""Longest life of an assertion: https://developers.google.com/identity/protocols/oauth2/service-account"""
_DEFAULT_LIFE_S = 3600.0
_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}


class CredentialsRefused(Exception):
    """The credentials cannot work: somebody must change them. The text is a sentence without secrets."""


class TokenUnavailable(Exception):
    """No token can be had at the moment. The text is a sentence without secrets.

    Attributes:
        after_s: Seconds to wait; None when nobody said.
    """

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Token:
    """An access token.

    Attributes:
        access: What goes into requests.
        expires_us: When it ends, in microseconds since 1970 UTC.
        refresh: The refresh token for the next one; empty when the grant has none.
    """

    access: str
    expires_us: int
    refresh: str = ""


def takes_tokens(auth: Auth | None) -> bool:
    """Whether requests carry access tokens that are fetched first."""
    return isinstance(auth, OAuth2 | ServiceAccount)


def authorised(
    request: Request, auth: Auth | None, settings: Mapping[str, Any], *, now_us: int, token: str = ""
) -> Request:
    """A request with its credentials, which stand in its `secrets` where they were made of the settings.

    Args:
        request: As the connector made it.
        auth: The connector's scheme.
        settings: The destination's settings, secrets in the clear. A scheme whose setting is empty adds nothing.
        now_us: The clock, for signatures.
        token: The access token, for schemes that take one.
    """
    match auth:
        case None:
            return request
        case ApiKey():
            return _with_key(request, auth, _text(settings, auth.setting))
        case Bearer():
            return _with_header(request, "Authorization", "Bearer ", _text(settings, auth.setting))
        case Basic():
            username, password = _text(settings, auth.username), _text(settings, auth.password)
            if not username and not password:
                return request
            pair = base64.b64encode(f"{username}:{password}".encode()).decode()
            return _with_header(request, "Authorization", "Basic ", pair)
        case OAuth2() | ServiceAccount():
            return _with_header(request, "Authorization", "Bearer ", token)
        case Signed():
            return _signed(request, auth, _text(settings, auth.secret), now_us)
        case AwsSignature():
            return _aws(request, auth, settings, now_us)


def token_request(auth: OAuth2 | ServiceAccount, settings: Mapping[str, Any], *, now_us: int, refresh: str) -> Request:
    """The request for an access token.

    Args:
        auth: The scheme.
        settings: The destination's settings.
        now_us: The clock, for assertions.
        refresh: The newest refresh token, if the vendor has given one since the settings were made.

    Raises:
        CredentialsRefused: The settings hold no usable credentials.
    """
    if isinstance(auth, ServiceAccount):
        return _assertion_request(auth, settings, now_us)
    url = auth.token_url
    if url.startswith("setting:"):
        url = _text(settings, url.removeprefix("setting:"))
    client_id, secret = _text(settings, auth.client_id), _text(settings, auth.client_secret)
    form = {"grant_type": str(auth.grant)}
    if auth.grant is Grant.REFRESH_TOKEN:
        form["refresh_token"] = refresh or _text(settings, auth.refresh_token)
        if not form["refresh_token"]:
            raise CredentialsRefused(f"the setting {auth.refresh_token} is empty: connect the account again")
    if auth.scopes:
        form["scope"] = " ".join(auth.scopes)
    headers = dict(_FORM)
    if auth.basic:
        # RFC 6749, section 2.3.1: both are form-encoded before they are joined.
        pair = base64.b64encode(f"{quote(client_id, safe='')}:{quote(secret, safe='')}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    else:
        form |= {"client_id": client_id, "client_secret": secret}
    return Request(method="POST", url=url, headers=headers, body=urlencode(form).encode(), items=())


def read_token(response: Response, refresh: str = "") -> Token:
    """The token in the answer to `token_request` (RFC 6749, sections 5.1 and 5.2).

    Args:
        response: The answer.
        refresh: The refresh token that was used, which stays when the vendor gives no new one.

    Raises:
        CredentialsRefused: The vendor does not accept the credentials.
        TokenUnavailable: The vendor failed in a way that passes.
    """
    answer = response.json_object()
    access = answer.get("access_token")
    if response.status < 300 and isinstance(access, str) and access:
        life = answer.get("expires_in")
        life_s = float(life) if isinstance(life, int | float) and life > 0 else _DEFAULT_LIFE_S
        newer = answer.get("refresh_token")
        return Token(
            access,
            response.received_at_us + int(life_s * SECOND_US),
            newer if isinstance(newer, str) and newer else refresh,
        )
    if response.status in (400, 401, 403):
        error = answer.get("error")
        code = error if isinstance(error, str) and error.isascii() and error.isprintable() else str(response.status)
        raise CredentialsRefused(f"no access token is given ({code[:64]}): connect the account again")
    raise TokenUnavailable(f"no access token was given (HTTP {response.status})", response.retry_after_s())


def _assertion_request(auth: ServiceAccount, settings: Mapping[str, Any], now_us: int) -> Request:
    account = _account(auth, settings)
    now_s = now_us // SECOND_US
    claims = {
        "iss": account["client_email"],
        "scope": " ".join(auth.scopes),
        "aud": account["token_uri"],
        "iat": now_s,
        "exp": now_s + _ASSERTION_S,
    }
    if subject := _text(settings, auth.subject):
        claims["sub"] = subject
    try:
        assertion = jwt.encode(
            claims, account["private_key"], algorithm="RS256", headers={"kid": account["private_key_id"]}
        )
    except (ValueError, TypeError, jwt.PyJWTError):
        raise CredentialsRefused(f"{auth.setting}: its private_key cannot be read") from None
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    return Request(
        method="POST",
        url=account["token_uri"],
        headers=_FORM,
        body=urlencode(form).encode(),
        items=(),
        secrets=(assertion,),
    )


def _account(auth: ServiceAccount, settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        account = json.loads(_text(settings, auth.setting))
    except (ValueError, RecursionError):
        account = None
    if not isinstance(account, dict):
        raise CredentialsRefused(f"{auth.setting} must be the key file of a service account, as JSON text")
    lacking = [name for name in _KEY_MEMBERS if not isinstance(account.get(name), str)]
    if lacking:
        raise CredentialsRefused(f"{auth.setting} must be the whole key file: it lacks {', '.join(lacking)}")
    return account


def _with_key(request: Request, auth: ApiKey, key: str) -> Request:
    if not key:
        return request
    if auth.header:
        return _with_header(request, auth.header, auth.prefix, key)
    separator = "&" if "?" in request.url else "?"
    return dataclasses.replace(request, url=f"{request.url}{separator}{auth.query}={quote(key, safe='')}")


def _with_header(request: Request, name: str, prefix: str, secret: str) -> Request:
    """A request with a credential in a header. One that the connector put there itself stays: see `Request.secrets`."""
    if not secret or any(given.lower() == name.lower() for given in request.headers):
        return request
    return dataclasses.replace(
        request, headers={**request.headers, name: prefix + secret}, secrets=(*request.secrets, secret)
    )


def _signed(request: Request, auth: Signed, secret: str, now_us: int) -> Request:
    if not secret:
        return request
    signed, headers = request.body, dict(request.headers)
    if auth.timestamp_header:
        seconds = str(now_us // SECOND_US)
        headers[auth.timestamp_header] = seconds
        signed = f"{seconds}.".encode() + signed
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    text = digest.hex() if auth.encoding is Encoding.HEX else base64.b64encode(digest).decode()
    headers[auth.header] = auth.prefix + text
    return dataclasses.replace(request, headers=headers)


def _aws(request: Request, auth: AwsSignature, settings: Mapping[str, Any], now_us: int) -> Request:
    key = AwsKey(
        access_key=_text(settings, auth.access_key),
        secret_key=_text(settings, auth.secret_key),
        session_token=_text(settings, auth.session_token),
        region=_text(settings, auth.region),
        service=auth.service,
    )
    made = aws_headers(
        key, method=request.method, url=request.url, headers=request.headers, body=request.body, now_us=now_us
    )
    return dataclasses.replace(request, headers={**request.headers, **made})


def _text(settings: Mapping[str, Any], name: str) -> str:
    """A setting as text; empty when there is none."""
    value = settings.get(name) if name else None
    return value if isinstance(value, str) else "" if value is None else str(value)
