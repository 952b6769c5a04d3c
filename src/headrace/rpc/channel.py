"""Channels: how services and clients call gRPC, with credentials, deadlines, trace context and balancing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from headrace.settings import ServiceSettings
from headrace.telemetry import spans

DEFAULT_DEADLINE_S = 30.0
"""Seconds that a unary call may take when the caller names no other time."""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]
_RETRY = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def with_token(address: str, token: str) -> grpc.aio.Channel:
    """A channel that shows an API token, a write key or no credentials (an empty token).

    Args:
        address: Host and port, or a gRPC target such as "dns:///headrace-identity:8092".
        token: The secret.
    """
    return grpc.aio.insecure_channel(address, options=_OPTIONS, interceptors=_interceptors(token))


def connect(address: str, settings: ServiceSettings) -> grpc.aio.Channel:
    """A channel from one service to another, with the service token; what was UNAVAILABLE is tried again.

    Calls between services are reads, or carry ids that make repeating them harmless.
    """
    options = [*_OPTIONS, ("grpc.service_config", json.dumps(_RETRY))]
    token = settings.service_token.get_secret_value()
    return grpc.aio.insecure_channel(address, options=options, interceptors=_interceptors(token))


def _interceptors(token: str) -> list[Any]:
    return [_UnaryUnary(token), _UnaryStream(token), _StreamUnary(token), _StreamStream(token)]


class _Caller:
    """Completes the details of a call."""

    def __init__(self, token: str) -> None:
        self._authorization = f"Bearer {token}" if token else ""

    def _complete(self, details: grpc.aio.ClientCallDetails, *, deadline: bool) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if self._authorization and "authorization" not in metadata:
            metadata.add("authorization", self._authorization)
        traceparent = spans.current_traceparent()
        if traceparent and "traceparent" not in metadata:
            metadata.add("traceparent", traceparent)
        timeout = DEFAULT_DEADLINE_S if deadline and details.timeout is None else details.timeout
        return grpc.aio.ClientCallDetails(
            details.method, timeout, metadata, details.credentials, details.wait_for_ready
        )


class _UnaryUnary(_Caller, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic only in the stubs
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._complete(client_call_details, deadline=True), request)


class _UnaryStream(_Caller, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]  # generic only in the stubs
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._complete(client_call_details, deadline=False), request)


class _StreamUnary(_Caller, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[type-arg]  # generic only in the stubs
    async def intercept_stream_unary(
        self,
        continuation: Callable[..., Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: AsyncIterable[Any] | Iterable[Any],
    ) -> Any:
        return await continuation(self._complete(client_call_details, deadline=False), request_iterator)


class _StreamStream(_Caller, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]  # generic only in the stubs
    async def intercept_stream_stream(
        self,
        continuation: Callable[..., Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: AsyncIterable[Any] | Iterable[Any],
    ) -> Any:
        return await continuation(self._complete(client_call_details, deadline=False), request_iterator)
