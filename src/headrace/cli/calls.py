"""What a person is told when a call to the platform fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cli.connection import HOW_TO_CONNECT, TOKEN_VARIABLE
from headrace.cli.problems import CommandFailed

if TYPE_CHECKING:
    import grpc

    from headrace.cli.platform import Platform


def explained(error: grpc.aio.AioRpcError, platform: Platform) -> CommandFailed:
    """The failure of a call, as a sentence that says what to do."""
    from grpc import StatusCode

    from headrace.rpc import errors

    code, details = error.code(), (error.details() or "").rstrip(".")
    reason = errors.reason_of(error)
    service = platform.last_service
    if code == StatusCode.UNAVAILABLE and not reason:
        address = platform.connection.grpc.get(service, "an unknown address")
        return CommandFailed(f"cannot reach {service} at {address}: is the platform running? Else {HOW_TO_CONNECT}")
    if code == StatusCode.UNAVAILABLE:
        return CommandFailed(f"{service} cannot do this at the moment, nothing was done: {details}")
    if code == StatusCode.UNAUTHENTICATED:
        return CommandFailed(f"{details}: pass a token by --token, {TOKEN_VARIABLE} or --ready-file")
    if code == StatusCode.DEADLINE_EXCEEDED:
        return CommandFailed(f"{service} did not answer in time: try again, or look into its log")
    if code == StatusCode.UNIMPLEMENTED:
        return CommandFailed(f"{service} does not know this call: it is of another version than this command")
    violations = errors.field_violations(error)
    if violations:
        return CommandFailed("; ".join(f"{field}: {text.rstrip('.')}" for field, text in violations))
    if reason == errors.ETAG_MISMATCH:
        return CommandFailed(
            "it was changed since it was read: read it again, and give the etag that it has now if you give one"
        )
    if reason == errors.SCOPE_MISSING:
        return CommandFailed(f"{details}: make a token with it by `headrace tokens create`")
    return CommandFailed(details or f"{service} answered {code.name}")
