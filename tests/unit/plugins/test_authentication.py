"""Credentials in requests, by each scheme, against the standards' own examples where they give one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from headrace.plugins.authentication import CredentialsRefused, TokenUnavailable, authorised, read_token, token_request
from headrace.plugins.aws_signature import AwsKey, aws_headers
from headrace_sdk import (
    ApiKey,
    Auth,
    AwsSignature,
    Basic,
    Bearer,
    Encoding,
    Grant,
    OAuth2,
    Request,
    Response,
    ServiceAccount,
    Signed,
)
from headrace_sdk.auth import settings_of

NOW_US = 1_800_000_000_000_000
SETTINGS = {"token": "se:cret/1", "user": "ada", "password": "", "client": "c:1", "refresh": "first"}
OAUTH = OAuth2(
    token_url="https://vendor.example/token", client_id="client", client_secret="token", refresh_token="refresh"
)


def request(url: str = "https://vendor.example/in") -> Request:
    return Request(method="POST", url=url, body=b"{}", items=(0,))


@pytest.mark.parametrize(
    ("auth", "headers"),
    [
        (None, {}),
        (Bearer(setting="token"), {"Authorization": "Bearer se:cret/1"}),
        (ApiKey(setting="token", header="X-Key", prefix="Key "), {"X-Key": "Key se:cret/1"}),
        (Basic(username="user", password="token"), {"Authorization": "Basic YWRhOnNlOmNyZXQvMQ=="}),
        (Basic(username="user"), {"Authorization": "Basic YWRhOg=="}),
        (OAUTH, {"Authorization": "Bearer fetched"}),
        (Bearer(setting="password"), {}),
        (Basic(username="password"), {}),
    ],
)
def test_headers_carry_the_credentials(auth: Auth | None, headers: dict[str, str]) -> None:
    signed = authorised(request(), auth, SETTINGS, now_us=NOW_US, token="fetched")
    assert signed.headers == headers
    for value in headers.values():
        assert value.rpartition(" ")[2] in signed.secrets


def test_a_credential_that_the_connector_put_there_itself_stays() -> None:
    """A vendor may want another one for some requests than the scheme of the manifest."""
    own = Request(method="POST", url="https://vendor.example/in", headers={"authorization": "Bearer own"}, items=())
    for auth in (Bearer(setting="token"), Basic(username="user", password="token"), OAUTH):
        assert authorised(own, auth, SETTINGS, now_us=NOW_US, token="fetched") == own
    keyed = authorised(own, ApiKey(setting="token", header="X-Key"), SETTINGS, now_us=NOW_US)
    assert keyed.headers == {"authorization": "Bearer own", "X-Key": "se:cret/1"}


@pytest.mark.parametrize(("url", "separator"), [("https://v.example/in", "?"), ("https://v.example/in?a=1", "&")])
def test_a_key_in_the_query_is_encoded(url: str, separator: str) -> None:
    signed = authorised(request(url), ApiKey(setting="token", query="key"), SETTINGS, now_us=NOW_US)
    assert signed.url == f"{url}{separator}key=se%3Acret%2F1"


def test_signatures_cover_the_time_and_the_body() -> None:
    plain = authorised(request(), Signed(secret="token", header="X-Sign", prefix="sha256="), SETTINGS, now_us=NOW_US)
    assert plain.headers == {"X-Sign": "sha256=" + hmac.new(b"se:cret/1", b"{}", hashlib.sha256).hexdigest()}
    timed = Signed(secret="token", header="X-Sign", timestamp_header="X-Time", encoding=Encoding.BASE64)
    signed = authorised(request(), timed, SETTINGS, now_us=NOW_US)
    expected = hmac.new(b"se:cret/1", b"1800000000.{}", hashlib.sha256).digest()
    assert signed.headers == {"X-Time": "1800000000", "X-Sign": base64.b64encode(expected).decode()}


def test_aws_signs_as_its_documentation_does() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, GET Object and GET Bucket."""
    key = AwsKey(
        access_key="AKIAIOSFODNN7EXAMPLE",
        secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        session_token="",
        region="us-east-1",
        service="s3",
    )
    at_us = 1_369_353_600_000_000
    host = "https://examplebucket.s3.amazonaws.com"
    made = aws_headers(
        key, method="GET", url=f"{host}/test.txt", headers={"Range": "bytes=0-9"}, body=b"", now_us=at_us
    )
    assert made["x-amz-date"] == "20130524T000000Z"
    assert made["Authorization"].endswith("=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
    listed = aws_headers(key, method="GET", url=f"{host}/?max-keys=2&prefix=J", headers={}, body=b"", now_us=at_us)
    assert listed["Authorization"].endswith("=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")


def test_aws_takes_its_key_from_the_settings() -> None:
    auth = AwsSignature(access_key="user", secret_key="token", region="client", service="s3", session_token="refresh")
    signed = authorised(request(), auth, SETTINGS, now_us=NOW_US)
    assert "Credential=ada/20270115/c:1/s3/aws4_request" in signed.headers["Authorization"]
    assert signed.headers["x-amz-security-token"] == "first"


def test_tokens_are_asked_for_by_the_grant() -> None:
    asked = token_request(OAUTH, SETTINGS, now_us=NOW_US, refresh="")
    assert asked.url == "https://vendor.example/token"
    assert parse_qs(asked.body.decode()) == {
        "grant_type": ["refresh_token"], "refresh_token": ["first"], "client_id": ["c:1"],
        "client_secret": ["se:cret/1"],
    }  # fmt: skip
    again = token_request(OAUTH, SETTINGS, now_us=NOW_US, refresh="second")
    assert parse_qs(again.body.decode())["refresh_token"] == ["second"]
    own = OAuth2(
        token_url="setting:user", client_id="client", client_secret="token", grant=Grant.CLIENT_CREDENTIALS,
        scopes=("a", "b"), basic=True,
    )  # fmt: skip
    asked = token_request(own, {**SETTINGS, "user": "https://own.example/t"}, now_us=NOW_US, refresh="")
    assert asked.url == "https://own.example/t"
    assert parse_qs(asked.body.decode()) == {"grant_type": ["client_credentials"], "scope": ["a b"]}
    assert base64.b64decode(asked.headers["Authorization"].removeprefix("Basic ")) == b"c%3A1:se%3Acret%2F1"


def test_without_a_refresh_token_the_account_must_be_connected() -> None:
    with pytest.raises(CredentialsRefused, match="refresh is empty: connect"):
        token_request(OAUTH, {**SETTINGS, "refresh": ""}, now_us=NOW_US, refresh="")


def test_a_service_account_signs_an_assertion() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "client_email": "robot@project.example",
        "private_key": pem.decode(),
        "private_key_id": "k1",
        "token_uri": "https://oauth2.example/token",
    }
    auth = ServiceAccount(setting="key", scopes=("s1", "s2"))
    asked = token_request(auth, {"key": json.dumps(account)}, now_us=NOW_US, refresh="")
    form = parse_qs(asked.body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    (assertion,) = form["assertion"]
    claims = jwt.decode(
        assertion, private.public_key(), algorithms=["RS256"], audience=account["token_uri"],
        options={"verify_iat": False, "verify_exp": False},
    )  # fmt: skip
    assert claims == {
        "iss": "robot@project.example", "scope": "s1 s2", "aud": "https://oauth2.example/token",
        "iat": 1_800_000_000, "exp": 1_800_003_600,
    }  # fmt: skip
    assert jwt.get_unverified_header(assertion)["kid"] == "k1"


@pytest.mark.parametrize(
    "key",
    [
        "", "no json", "[]", "{}",
        '{"client_email": "a", "private_key": "no pem", "private_key_id": "k", "token_uri": "https://t.example"}',
    ],
)  # fmt: skip
def test_a_bad_service_account_is_refused_without_a_value(key: str) -> None:
    with pytest.raises(CredentialsRefused) as refused:
        token_request(ServiceAccount(setting="key", scopes=("s",)), {"key": key}, now_us=NOW_US, refresh="")
    assert "key" in str(refused.value)
    assert "no pem" not in str(refused.value)


@pytest.mark.parametrize("name", ["client_email", "private_key", "private_key_id", "token_uri"])
def test_what_a_service_accounts_key_file_lacks_is_named(name: str) -> None:
    whole = dict.fromkeys(("client_email", "private_key", "private_key_id", "token_uri"), "x")
    lacking = json.dumps({**whole, name: None})
    with pytest.raises(CredentialsRefused, match=f"it lacks {name}$"):
        token_request(ServiceAccount(setting="key", scopes=("s",)), {"key": lacking}, now_us=NOW_US, refresh="")


def answer(status: int, body: Any, **headers: str) -> Response:
    return Response(status=status, headers=headers, body=json.dumps(body).encode(), received_at_us=NOW_US)


def test_answers_give_tokens() -> None:
    token = read_token(answer(200, {"access_token": "a", "expires_in": 10}), "old")
    assert (token.access, token.expires_us, token.refresh) == ("a", NOW_US + 10_000_000, "old")
    token = read_token(answer(200, {"access_token": "a", "refresh_token": "new"}), "old")
    assert (token.expires_us, token.refresh) == (NOW_US + 3_600_000_000, "new")


@pytest.mark.parametrize("status", [400, 401, 403])
def test_refused_credentials_say_so(status: int) -> None:
    with pytest.raises(CredentialsRefused, match="invalid_grant"):
        read_token(answer(status, {"error": "invalid_grant", "error_description": "quotes ada@example.com"}))


@pytest.mark.parametrize(
    "response",
    [answer(500, {}), answer(429, {}, **{"retry-after": "7"}), answer(200, []), answer(200, {"access_token": 1})],
)
def test_other_answers_mean_later(response: Response) -> None:
    with pytest.raises(TokenUnavailable) as later:
        read_token(response)
    assert later.value.after_s == (7.0 if response.status == 429 else None)


@pytest.mark.parametrize(
    "auth",
    [
        Bearer(setting="a"),
        ApiKey(setting="a", query="q"),
        Basic(username="a", password="b"),
        OAuth2(token_url="setting:u", client_id="a", client_secret="b", grant=Grant.CLIENT_CREDENTIALS, scopes=("s",)),
        ServiceAccount(setting="a", scopes=("s", "t")),
        Signed(secret="a", header="h", encoding=Encoding.BASE64),
        AwsSignature(access_key="a", secret_key="b", region="c", service="s3"),
    ],
)
def test_schemes_say_which_settings_they_read(auth: Auth) -> None:
    assert set(settings_of(auth)) <= {"a", "b", "c", "u"}
