"""Errors as callers see them: a canonical code, a reason that programs can test, and details.

Handlers raise ApiError; the server turns it into a rich status. Any other exception becomes
INTERNAL with an id that stands in the log: the text of an exception never reaches a caller,
because it may quote personal data or secrets.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

import grpc
import pymongo.errors
import redis.exceptions
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from headrace.api.common.v1 import errors_pb2

DOMAIN = "headrace"
"""Domain of every ErrorInfo."""

UNAUTHENTICATED = "UNAUTHENTICATED"
SCOPE_MISSING = "SCOPE_MISSING"
WORKSPACE_MISMATCH = "WORKSPACE_MISMATCH"
INVALID_ARGUMENT = "INVALID_ARGUMENT"
NOT_FOUND = "NOT_FOUND"
ALREADY_EXISTS = "ALREADY_EXISTS"
ETAG_MISMATCH = "ETAG_MISMATCH"
INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"  # noqa: S105 - a reason
WRONG_STATE = "WRONG_STATE"
STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
INTERNAL = "INTERNAL"
IN_USE = "IN_USE"
LINKS_CONTRADICT = "LINKS_CONTRADICT"
CONCURRENT_CHANGE = "CONCURRENT_CHANGE"
CURSOR_EXPIRED = "CURSOR_EXPIRED"
PERSON_ERASED = "PERSON_ERASED"

REASONS = frozenset(
    value.name.removeprefix("ERROR_REASON_")
    for value in errors_pb2.ErrorReason.DESCRIPTOR.values
    if value.number != errors_pb2.ERROR_REASON_UNSPECIFIED
)
"""Every reason that may be sent, from the proto."""

RETRY_AFTER_S = 1.0
"""What callers are told to wait when a store cannot be reached, in seconds."""


class ApiError(Exception):
    """A failure that the caller is told about."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[tuple[str, str]] = (),
        retry_after_s: float | None = None,
    ) -> None:
        """Describe the failure.

        Args:
            code: Canonical code.
            reason: One of `headrace.api.common.v1.ErrorReason`, without its prefix.
            message: A sentence for the caller's programmer, without personal data or secrets.
            metadata: The variable parts of the message.
            violations: (field, what is wrong with it) pairs, sent as BadRequest.
            retry_after_s: When to try again, in seconds, sent as RetryInfo.
        """
        assert reason in REASONS, f"{reason} is no ErrorReason: add it to protos/headrace/api/common/v1/errors.proto"
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s


def invalid_argument(field: str, description: str) -> ApiError:
    """A field is missing or wrong; the description says what it must be, without quoting its value."""
    return ApiError(
        grpc.StatusCode.INVALID_ARGUMENT,
        INVALID_ARGUMENT,
        f"{field}: {description}",
        metadata={"field": field},
        violations=[(field, description)],
    )


def invalid_arguments(violations: Sequence[tuple[str, str]]) -> ApiError:
    """Several fields are missing or wrong, as (field, description) pairs."""
    message = "; ".join(f"{field}: {description}" for field, description in violations)
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, INVALID_ARGUMENT, message, violations=violations)


def unauthenticated(message: str) -> ApiError:
    """No credentials, or credentials that are unknown or revoked."""
    return ApiError(grpc.StatusCode.UNAUTHENTICATED, UNAUTHENTICATED, message)


def scope_missing(scope: str) -> ApiError:
    """The credentials lack the scope of the call."""
    message = f"The credentials lack the scope {scope!r}."
    return ApiError(grpc.StatusCode.PERMISSION_DENIED, SCOPE_MISSING, message, metadata={"scope": scope})


def workspace_mismatch(workspace_id: str) -> ApiError:
    """The resource belongs to another workspace than the credentials."""
    message = f"The credentials are not for workspace {workspace_id!r}."
    metadata = {"workspace": workspace_id}
    return ApiError(grpc.StatusCode.PERMISSION_DENIED, WORKSPACE_MISMATCH, message, metadata=metadata)


def not_found(resource: str, hint: str = "") -> ApiError:
    """The resource of this name does not exist; the hint says where to look."""
    message = f"{resource} does not exist{f': {hint}' if hint else ''}."
    return ApiError(grpc.StatusCode.NOT_FOUND, NOT_FOUND, message, metadata={"resource": resource})


def already_exists(resource: str) -> ApiError:
    """A resource of this name exists."""
    message = f"{resource} exists already."
    return ApiError(grpc.StatusCode.ALREADY_EXISTS, ALREADY_EXISTS, message, metadata={"resource": resource})


def wrong_state(state: str, message: str) -> ApiError:
    """The resource's state does not allow the call."""
    return ApiError(grpc.StatusCode.FAILED_PRECONDITION, WRONG_STATE, message, metadata={"state": state})


_MOST_USERS = 10
"""So many resources are named that use another one: an error has to fit into the trailers of an answer."""


def in_use(resource: str, used_by: Sequence[str]) -> ApiError:
    """The resource cannot go while others use it, which are named."""
    named = ", ".join(sorted(used_by)[:_MOST_USERS])
    others = len(used_by) - _MOST_USERS
    message = f"{resource} is used by {named}{f' and {others} more' if others > 0 else ''}."
    metadata = {"resource": resource, "used_by": named}
    return ApiError(grpc.StatusCode.FAILED_PRECONDITION, IN_USE, message, metadata=metadata)


def person_erased(message: str) -> ApiError:
    """The person was deleted or suppressed."""
    return ApiError(grpc.StatusCode.FAILED_PRECONDITION, PERSON_ERASED, message)


def links_contradict(links: Sequence[str]) -> ApiError:
    """A manual link would contradict others, in order; none when it contradicts itself."""
    message = "A link of a thing with itself contradicts itself."
    if links:
        message = f"The manual links {', '.join(links)} say the opposite: delete one of them first."
    metadata = {"links": ",".join(links)}
    return ApiError(grpc.StatusCode.FAILED_PRECONDITION, LINKS_CONTRADICT, message, metadata=metadata)


def concurrent_change() -> ApiError:
    """Others change the same at this moment, again and again."""
    message = "Somebody else changes the same people at this moment: nothing was done, try again."
    return ApiError(grpc.StatusCode.ABORTED, CONCURRENT_CHANGE, message, retry_after_s=RETRY_AFTER_S)


def etag_mismatch() -> ApiError:
    """Somebody changed the resource since the caller read it."""
    message = "The resource has changed since it was read: read it again."
    return ApiError(grpc.StatusCode.ABORTED, ETAG_MISMATCH, message)


def invalid_page_token() -> ApiError:
    """The page token was not made by this method with these arguments."""
    description = "was not returned by this method with the same arguments"
    return ApiError(
        grpc.StatusCode.INVALID_ARGUMENT,
        INVALID_PAGE_TOKEN,
        f"page_token: {description}",
        violations=[("page_token", description)],
    )


def limit_exceeded(limit: str, message: str, retry_after_s: float | None = None) -> ApiError:
    """A limit of size or rate was passed; with retry_after_s it is one of rate."""
    return ApiError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        LIMIT_EXCEEDED,
        message,
        metadata={"limit": limit},
        retry_after_s=retry_after_s,
    )


def cursor_expired() -> ApiError:
    """What came after a cursor is no longer kept."""
    message = "Changes after this cursor are no longer kept: read everything again, then follow from now on."
    return ApiError(grpc.StatusCode.OUT_OF_RANGE, CURSOR_EXPIRED, message)


def unavailable(message: str, retry_after_s: float = RETRY_AFTER_S) -> ApiError:
    """A store or another service cannot be reached; trying again later may help."""
    return ApiError(grpc.StatusCode.UNAVAILABLE, STORE_UNAVAILABLE, message, retry_after_s=retry_after_s)


def to_status(error: ApiError) -> status_pb2.Status:
    """The rich status of an error, of a call or of one item in a batch: ErrorInfo always, others where they apply."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status = status_pb2.Status(code=error.code.value[0], message=error.message, details=[_packed(info)])
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for field, description in error.violations:
            bad.field_violations.add(field=field, description=description)
        status.details.append(_packed(bad))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after_s * 1000))
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def is_unavailable(error: BaseException) -> bool:
    """True when an exception says that a store or another service could not be reached, so that trying again helps."""
    if isinstance(error, pymongo.errors.ConnectionFailure | redis.exceptions.ConnectionError):
        return True
    if isinstance(error, redis.exceptions.TimeoutError | redis.exceptions.BusyLoadingError):
        return True
    if isinstance(error, pymongo.errors.PyMongoError):
        return error.has_error_label("RetryableWriteError") or error.has_error_label("TransientTransactionError")
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    return False


def from_exception(error: BaseException) -> ApiError:
    """What the caller is told about any exception.

    The reason INTERNAL carries a new `error_id` in its metadata: write it to the log.
    """
    if isinstance(error, ApiError):
        return error
    if is_unavailable(error):
        return unavailable("A store or another service cannot be reached at the moment: try again.")
    error_id = uuid.uuid4().hex
    message = f"The service failed; its log has more under the error id {error_id}."
    return ApiError(grpc.StatusCode.INTERNAL, INTERNAL, message, metadata={"error_id": error_id})


def reason_of(error: grpc.RpcError) -> str:
    """The reason in an error that a call raised; empty when it has none."""
    info = error_info(error)
    return info.reason if info is not None else ""


def error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo | None:
    """The ErrorInfo in an error that a call raised, of our domain."""
    info = error_details_pb2.ErrorInfo()
    for detail in details_of(error):
        if detail.Unpack(info) and info.domain == DOMAIN:
            return info
    return None


def field_violations(error: grpc.RpcError) -> list[tuple[str, str]]:
    """The (field, description) pairs in an error that a call raised."""
    bad = error_details_pb2.BadRequest()
    for detail in details_of(error):
        if detail.Unpack(bad):
            return [(v.field, v.description) for v in bad.field_violations]
    return []


def details_of(error: grpc.RpcError) -> list[any_pb2.Any]:
    """The details of an error that a call raised; empty when it has none."""
    trailing = getattr(error, "trailing_metadata", lambda: None)()
    for key, value in trailing or ():
        if key == "grpc-status-details-bin":
            return list(status_pb2.Status.FromString(value).details)
    return []


OK = status_pb2.Status(code=code_pb2.OK)
"""Status of an item that went well."""


def _packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
