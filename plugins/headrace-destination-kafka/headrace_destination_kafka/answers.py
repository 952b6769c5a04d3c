"""What brokers' errors mean, by their names.

https://kafka.apache.org/protocol#protocol_error_codes
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from headrace_sdk import AuthError, ConfigError, Delivered, Outcome, Outcomes, Rejected, Request, Response, Retry

_TOO_LARGE = frozenset({"MessageSizeTooLargeError", "RecordListTooLargeError", "RecordTooLargeError"})
_BAD_RECORD = frozenset(
    {"CorruptRecordException", "InvalidMessageError", "InvalidTimestampError", "InvalidTimestamp", "InvalidRecordError"}
)
_DENIED = frozenset(
    {
        "AuthenticationFailedError", "AuthenticationMethodNotSupported", "ClusterAuthorizationFailedError",
        "IllegalSaslStateError", "SaslAuthenticationFailed", "TopicAuthorizationFailedError",
        "UnsupportedSaslMechanismError",
    }
)  # fmt: skip
_MISCONFIGURED = frozenset({"InvalidTopicError", "PolicyViolationError", "UnknownTopicOrPartitionError"})


def response(errors: Sequence[str]) -> Response:
    """The names of errors, one per record and empty for what the brokers have, as an answer."""
    failed = bool(errors) and all(error and not _final(error) for error in errors)
    return Response(status=503 if failed else 200, body=json.dumps(list(errors)).encode())


def read(request: Request, answer: Response) -> Outcomes:
    """One outcome per item of a request.

    Raises:
        ConnectorError: The brokers refuse the user or the topic.
    """
    errors = answer.json()
    names = [str(one) for one in errors] if isinstance(errors, list) else ["UnreadableAnswer"]
    _raise_for(names)
    if len(request.items) == 1 or len(names) != len(request.items):
        # Several records of one item, or an error for all of them: what went wrong first.
        first = next(filter(None, names), "")
        return Outcomes.every(request, _outcome(first))
    return Outcomes(items=tuple(map(_outcome, names)))


def problem(answer: Response) -> str:
    """What an answer to a check means; empty when all is well."""
    errors = answer.json()
    name = str(errors[0]) if isinstance(errors, list) and errors else ""
    if not name:
        return ""
    if name in _DENIED:
        return f"the brokers refuse the user, or what it wants to do ({name}): look at its password and rights"
    return f"the topic cannot be written ({name}): create it, or look at its name"


def _raise_for(names: Sequence[str]) -> None:
    for name in names:
        if name in _DENIED:
            raise AuthError(f"the brokers refuse the user, or what it wants to do ({name})")
        if name in _MISCONFIGURED:
            raise ConfigError(f"the topic cannot be written ({name})", "topic")


def _outcome(name: str) -> Outcome:
    if not name:
        return Delivered()
    if name in _TOO_LARGE:
        return Rejected(reason="larger than the brokers take a record", field="value")
    if name in _BAD_RECORD:
        return Rejected(reason=f"the brokers refuse the record ({name})")
    return Retry(reason=f"the brokers did not take the record ({name})")


def _final(name: str) -> bool:
    return name in _TOO_LARGE | _BAD_RECORD | _DENIED | _MISCONFIGURED
