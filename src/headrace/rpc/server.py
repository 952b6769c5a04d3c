"""The gRPC server of every service: health, reflection, credentials, errors, deadlines, spans, draining."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from headrace.rpc import errors
from headrace.rpc.auth import Authenticator, set_caller
from headrace.rpc.channel import DEFAULT_DEADLINE_S, MAX_MESSAGE_BYTES
from headrace.settings import ServiceSettings
from headrace.telemetry import logs, metrics, spans

log = logs.get_logger(__name__)

READINESS = "readiness"
"""Health service name: takes calls now. Kubernetes' readiness probe."""
LIVENESS = "liveness"
"""Health service name: the process works, whatever the stores do. Kubernetes' liveness probe."""

_OPEN_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
_READINESS_EVERY_S = 0.5
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    # Clients find new replicas when their connections end now and then.
    ("grpc.max_connection_age_ms", 30 * 60_000),
    ("grpc.max_connection_age_grace_ms", 5 * 60_000),
    ("grpc.so_reuseport", 0),
]

_seconds = metrics.histogram("headrace_rpc_server_seconds", "Time of served calls in seconds, by method and code.")


class Hosted(NamedTuple):
    """A gRPC service to be served: its full name and how it is added to a server."""

    name: str
    add: Callable[[grpc.aio.Server], None]


@asynccontextmanager
async def serving(
    services: Sequence[Hosted],
    *,
    authenticator: Authenticator,
    settings: ServiceSettings,
    is_ready: Callable[[], bool] = lambda: True,
) -> AsyncIterator[str]:
    """Serve inside the block; at its end answer NOT_SERVING and let calls in progress finish.

    Args:
        services: What to serve, beside health and reflection.
        authenticator: Says whose a bearer token is.
        settings: Host, port (0 takes a free one) and how long draining may take.
        is_ready: Whether the service can do its work now; asked twice a second for the health service.

    Yields:
        Host and port as bound.

    Raises:
        OSError: The port is taken.
    """
    server = grpc.aio.server(interceptors=[_Interceptor(authenticator)], options=_OPTIONS)
    for service in services:
        service.add(server)
    health_servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in the stubs
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = [*(service.name for service in services), health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    try:
        port = server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {settings.host}:{settings.grpc_port}: is the port taken?") from error
    watched = ["", READINESS, *(service.name for service in services)]
    await health_servicer.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
    await _say_ready(health_servicer, watched, is_ready())
    await server.start()
    watch = asyncio.create_task(_watch_readiness(health_servicer, watched, is_ready))
    try:
        yield f"{settings.host}:{port}"
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await health_servicer.enter_graceful_shutdown()
        await server.stop(settings.drain_seconds)


async def _watch_readiness(servicer: Any, names: Sequence[str], is_ready: Callable[[], bool]) -> None:
    said: bool | None = None
    while True:
        ready = is_ready()
        if ready != said:
            await _say_ready(servicer, names, ready)
            said = ready
        await asyncio.sleep(_READINESS_EVERY_S)


async def _say_ready(servicer: Any, names: Sequence[str], ready: bool) -> None:
    answers = health_pb2.HealthCheckResponse
    for name in names:
        await servicer.set(name, answers.SERVING if ready else answers.NOT_SERVING)


class _Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic only in the stubs
    """Wraps every method: who calls, how long it may take, what failed, what is measured."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def intercept_service(
        self, continuation: Callable[..., Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or method.startswith(_OPEN_SERVICES):
            return handler
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._answering(method, handler.unary_unary, True), **codecs)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(self._answering(method, handler.stream_unary, False), **codecs)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method, handler.unary_stream), **codecs)
        return grpc.stream_stream_rpc_method_handler(self._streaming(method, handler.stream_stream), **codecs)

    def _answering(self, method: str, behaviour: Callable[..., Any], bounded: bool) -> Callable[..., Any]:
        async def answer(request: Any, context: Any) -> Any:
            async with self._call(method, context):
                limit_s = DEFAULT_DEADLINE_S if bounded and context.time_remaining() is None else None
                async with asyncio.timeout(limit_s):
                    return await behaviour(request, context)

        return answer

    def _streaming(self, method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._call(method, context):
                async for message in behaviour(request, context):
                    yield message

        return stream

    @asynccontextmanager
    async def _call(self, method: str, context: Any) -> AsyncIterator[None]:
        """Everything around one call; an exception of the block ends it with a rich status."""
        started = time.perf_counter()
        metadata = {key.lower(): value for key, value in context.invocation_metadata() or ()}
        code = grpc.StatusCode.OK
        failure: status_pb2.Status | None = None
        with spans.child_of(
            metadata.get("traceparent", ""), method.rpartition(".")[2], {"rpc.method": method}, kind=SpanKind.SERVER
        ):
            try:
                set_caller(await self._authenticate(metadata.get("authorization", "")))
                yield
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except TimeoutError:
                code = grpc.StatusCode.DEADLINE_EXCEEDED
                failure = status_pb2.Status(code=code.value[0], message="The call took too long.")
            except Exception as error:
                shown = errors.from_exception(error)
                code = shown.code
                failure = errors.to_status(shown)
                if shown.reason == errors.INTERNAL:
                    log.exception("a call failed", method=method, error_id=shown.metadata.get("error_id"))
            finally:
                _seconds.record(time.perf_counter() - started, {"method": method, "code": code.name})
        if failure is not None:
            await context.abort_with_status(rpc_status.to_status(failure))

    async def _authenticate(self, authorization: str) -> Any:
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise errors.unauthenticated("Show an API token in the metadata: authorization: Bearer <token>.")
        caller = await self._authenticator.authenticate(secret.strip())
        if caller is None:
            raise errors.unauthenticated("The token is unknown or revoked.")
        return caller
