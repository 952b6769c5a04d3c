"""AWS Signature Version 4, as S3 and what is compatible with it take it: the signature in the Authorization header.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKey:
    """Who signs, and for what.

    Attributes:
        access_key, secret_key: The pair.
        session_token: Token of temporary credentials; empty for none.
        region: Such as "eu-central-1".
        service: Such as "s3".
    """

    access_key: str
    secret_key: str
    session_token: str
    region: str
    service: str


def aws_headers(
    key: AwsKey, *, method: str, url: str, headers: Mapping[str, str], body: bytes, now_us: int
) -> dict[str, str]:
    """The headers that sign a request, to be added to those it has.

    Args:
        key: Who signs.
        method: HTTP method.
        url: Absolute address, its path percent-encoded as it is sent.
        headers: Headers that are signed besides the host and the ones made here.
        body: Body.
        now_us: The clock, in microseconds since 1970 UTC.
    """
    parts = urlsplit(url)
    moment = datetime.fromtimestamp(now_us // 1_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
    payload = hashlib.sha256(body).hexdigest()
    made = {"x-amz-date": moment, "x-amz-content-sha256": payload}
    if key.session_token:
        made["x-amz-security-token"] = key.session_token
    signed = {
        name.lower(): " ".join(value.split()) for name, value in {**headers, **made, "host": parts.netloc}.items()
    }
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        [
            method,
            quote(unquote(parts.path) or "/", safe="/-_.~"),
            _query(parts.query),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            payload,
        ]
    )
    scope = f"{moment[:8]}/{key.region}/{key.service}/aws4_request"
    to_sign = "\n".join([_ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = hmac.new(_signing_key(key, moment[:8]), to_sign.encode(), hashlib.sha256).hexdigest()
    made["Authorization"] = (
        f"{_ALGORITHM} Credential={key.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return made


def _query(query: str) -> str:
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
    )
    return "&".join(f"{name}={value}" for name, value in pairs)


def _signing_key(key: AwsKey, day: str) -> bytes:
    made = f"AWS4{key.secret_key}".encode()
    for step in (day, key.region, key.service, "aws4_request"):
        made = hmac.new(made, step.encode(), hashlib.sha256).digest()
    return made
