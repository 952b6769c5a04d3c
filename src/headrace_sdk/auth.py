"""How a destination proves to the vendor who it is. Declared in the manifest; carried out by the host.

A connector makes requests without credentials. Right before a request goes out the host adds them by the scheme of the
manifest, so a connector has no clock to sign with, no tokens to refresh and no secret to leak. Schemes name *settings*
(fields of the settings model, usually `SecretStr`); the host reads the values there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Grant(StrEnum):
    """How OAuth 2 gets an access token (RFC 6749)."""

    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a grant
    """By the refresh token that the customer's consent gave. A new one that the vendor hands out takes its place."""
    CLIENT_CREDENTIALS = "client_credentials"
    """By the client's own id and secret."""


class Encoding(StrEnum):
    """How a signature is written."""

    HEX = "hex"
    BASE64 = "base64"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key in a header or in the query.

    Attributes:
        setting: Setting with the key.
        header: Header that carries it; empty when the query does.
        query: Query parameter that carries it; empty when a header does.
        prefix: Text before the key in the header, such as "Klaviyo-API-Key ".
    """

    setting: str
    header: str = ""
    query: str = ""
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """`Authorization: Bearer ...` with a token that does not expire, or that somebody else renews (RFC 6750).

    Attributes:
        setting: Setting with the token.
    """

    setting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Basic:
    """User name and password (RFC 7617).

    Attributes:
        username: Setting with the user name.
        password: Setting with the password; empty sends an empty one.
    """

    username: str
    password: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth2:
    """OAuth 2: the host fetches access tokens, keeps them sealed, shares them among replicas and renews them.

    Attributes:
        token_url: The vendor's token endpoint, or "setting:NAME" to take it from a setting.
        client_id: Setting with the client id.
        client_secret: Setting with the client secret.
        refresh_token: Setting with the first refresh token, for that grant.
        grant: How tokens are got.
        scopes: Scopes asked for.
        basic: True sends client id and secret by Basic instead of in the body.
    """

    token_url: str
    client_id: str
    client_secret: str
    refresh_token: str = ""
    grant: Grant = Grant.REFRESH_TOKEN
    scopes: tuple[str, ...] = ()
    basic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A Google service account: a signed assertion is exchanged for an access token (RFC 7523).

    Attributes:
        setting: Setting with the account's key file, as JSON text.
        scopes: Scopes asked for.
        subject: Setting with the user that the account acts for; empty for none.
    """

    setting: str
    scopes: tuple[str, ...]
    subject: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A signature over each request: HMAC with SHA-256.

    Attributes:
        secret: Setting with the key.
        header: Header that carries the signature.
        prefix: Text before it, such as "sha256=".
        timestamp_header: Header that carries the seconds since 1970 of the signing, which are then signed before the
            body, with a dot between; empty signs the body alone.
        encoding: How the signature is written.
    """

    secret: str
    header: str
    prefix: str = ""
    timestamp_header: str = ""
    encoding: Encoding = Encoding.HEX


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSignature:
    """AWS Signature Version 4, which S3 and what is compatible with it take.

    Attributes:
        access_key: Setting with the access key id.
        secret_key: Setting with the secret access key.
        region: Setting with the region.
        service: Service name, such as "s3".
        session_token: Setting with a session token; empty for none.
    """

    access_key: str
    secret_key: str
    region: str
    service: str
    session_token: str = ""


Auth = ApiKey | Bearer | Basic | OAuth2 | ServiceAccount | Signed | AwsSignature
"""Any scheme."""


def settings_of(auth: Auth) -> Iterator[str]:
    """Names of the settings that a scheme reads."""
    match auth:
        case ApiKey() | Bearer():
            names: tuple[str, ...] = (auth.setting,)
        case Basic():
            names = (auth.username, auth.password)
        case OAuth2():
            url = auth.token_url.removeprefix("setting:") if auth.token_url.startswith("setting:") else ""
            names = (auth.client_id, auth.client_secret, auth.refresh_token, url)
        case ServiceAccount():
            names = (auth.setting, auth.subject)
        case Signed():
            names = (auth.secret,)
        case AwsSignature():
            names = (auth.access_key, auth.secret_key, auth.region, auth.session_token)
    return (name for name in names if name)
