"""All that a connector imports. See docs/guides/connectors.md for a tour, docs/reference/sdk.md for every name."""

from typing import TYPE_CHECKING, Any

from headrace_sdk.auth import ApiKey, Auth, AwsSignature, Basic, Bearer, Encoding, Grant, OAuth2, ServiceAccount, Signed
from headrace_sdk.deprecation import lookup as _lookup
from headrace_sdk.destination import Built, Check, Destination, Job, Lists, Normalised, VendorList
from headrace_sdk.errors import AuthError, ConfigError, ConnectorError, RateLimited, RecordRejected, TransientError
from headrace_sdk.hooks import ENTRY_POINT_GROUP, hookimpl
from headrace_sdk.items import (
    DeleteBatch,
    EventBatch,
    EventItem,
    Member,
    MemberBatch,
    Profile,
    Row,
    Subject,
    digest_key,
    iso_time,
)
from headrace_sdk.manifest import (
    API_VERSION,
    ApiVersions,
    BatchPolicy,
    Capability,
    Field,
    FieldType,
    Idempotency,
    LimitScope,
    Manifest,
    RateLimit,
    RetryPolicy,
    Sources,
    StandardEvent,
)
from headrace_sdk.requests import (
    Delivered,
    Note,
    Outcome,
    Outcomes,
    Pending,
    Rejected,
    Request,
    Response,
    Retry,
    Skip,
    Warned,
)

__all__ = [
    "API_VERSION",
    "ENTRY_POINT_GROUP",
    "ApiKey",
    "ApiVersions",
    "Auth",
    "AuthError",
    "AwsSignature",
    "Basic",
    "BatchPolicy",
    "Bearer",
    "Built",
    "Capability",
    "Check",
    "ConfigError",
    "ConnectorError",
    "DeleteBatch",
    "Delivered",
    "Destination",
    "Encoding",
    "EventBatch",
    "EventItem",
    "Field",
    "FieldType",
    "Grant",
    "Idempotency",
    "Job",
    "LimitScope",
    "Lists",
    "Manifest",
    "Member",
    "MemberBatch",
    "Normalised",
    "Note",
    "OAuth2",
    "Outcome",
    "Outcomes",
    "Pending",
    "Profile",
    "RateLimit",
    "RateLimited",
    "RecordRejected",
    "Rejected",
    "Request",
    "Response",
    "Retry",
    "RetryPolicy",
    "Row",
    "ServiceAccount",
    "Signed",
    "Skip",
    "Sources",
    "StandardEvent",
    "Subject",
    "TransientError",
    "VendorList",
    "Warned",
    "digest_key",
    "hookimpl",
    "iso_time",
]

if not TYPE_CHECKING:  # type checkers refuse names that are gone or deprecated

    def __getattr__(name: str) -> Any:
        """A name that is deprecated, with a warning."""
        return _lookup(name)
