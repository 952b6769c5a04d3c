"""What S3's answers mean.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
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

_CODE = re.compile(rb"<Code>([A-Za-z][A-Za-z0-9.]{0,60})</Code>")
_PASSING = frozenset(
    {"InternalError", "OperationAborted", "RequestTimeTooSkewed", "RequestTimeout", "ServiceUnavailable"}
)
_LIMITED = frozenset({"SlowDown", "TooManyRequests", "Throttling", "ThrottlingException"})
_DENIED = frozenset(
    {
        "AccessDenied", "AccountProblem", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken",
        "SignatureDoesNotMatch", "InvalidSecurity", "NotSignedUp",
    }
)  # fmt: skip
_MISPLACED = frozenset(
    {
        "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "InvalidBucketName", "NoSuchBucket",
        "PermanentRedirect", "Redirect", "TemporaryRedirect",
    }
)  # fmt: skip


def read(request: Request, response: Response) -> Outcomes:
    """One outcome per item.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    if response.status in (200, 201, 204) and not _CODE.search(response.body):
        return Outcomes.every(request, Delivered())
    raise _error(response)


def problem(response: Response) -> str:
    """What the answer to a listing of the bucket means; empty when all is well."""
    if response.status == 200 and b"ListBucketResult" in response.body:
        return ""
    if response.status == 200:
        return "the address answers, but not as S3 does: look at the endpoint"
    return str(_error(response))


def _error(response: Response) -> ConnectorError:
    status = response.status
    found = _CODE.search(response.body)
    code = found[1].decode() if found else ""
    said = f"S3 answered {status}{f' {code}' if code else ''}"
    if status == 429 or code in _LIMITED:
        return RateLimited(said, response.retry_after_s())
    if status >= 500 or status == 408 or code in _PASSING:
        return TransientError(said, response.retry_after_s())
    if code in _MISPLACED or 300 <= status < 400 or status == 404:
        return ConfigError(f"{said}: look at bucket, region and endpoint", "bucket")
    if code in _DENIED or status in (401, 403):
        return AuthError(f"{said}: the key is wrong or has no right to s3:PutObject")
    if status < 300:
        return TransientError("S3 answered with success and an error in it")
    return RecordRejected(said)
