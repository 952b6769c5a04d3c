"""The process of a Python plugin, forked by the nursery.

It serves `headrace.api.connector.v1.ConnectorService` on the UNIX socket that the host names, on one thread: one call
at a time, but for deliveries that wait for their answers. Whatever the plugin prints goes to standard output and error,
which the host reads, masks and keeps away from its logs. The process ends with its host.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence

import grpc

from headrace.connector import guard
from headrace.connector.calls import CallError, Calls
from headrace.connector.operations import MESSAGE_OPTIONS, OPERATIONS, SERVICE, WAITING, Operation

_MOST_THREADS = 4
_CODES = {
    "load": grpc.StatusCode.FAILED_PRECONDITION,
    "config": grpc.StatusCode.INVALID_ARGUMENT,
    "defect": grpc.StatusCode.INTERNAL,
}


def _handler(calls: Calls, operation: Operation[object, object]) -> grpc.RpcMethodHandler[bytes, bytes]:
    """Answers a call with the bytes of its messages. Most never wait, so no other call can come between."""

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            if operation in WAITING:
                return await calls.answer_waiting(operation, request)
            return calls.answer(operation, request)
        except CallError as error:
            await context.abort(_CODES[error.kind], error.reason)
            raise AssertionError from None  # abort raises
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    return grpc.unary_unary_rpc_method_handler(answer)


async def _serve(socket: str, calls: Calls) -> None:
    """Serve until the process is ended.

    Args:
        socket: Path of the UNIX socket.
        calls: What answers.
    """
    server = grpc.aio.server(options=MESSAGE_OPTIONS)
    handlers = {operation.rpc: _handler(calls, operation) for operation in OPERATIONS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    asyncio.get_running_loop().set_default_executor(guard.Threads(_MOST_THREADS, "deliver"))
    guard.install()
    await server.wait_for_termination()


def run(socket: str, entry_points: Sequence[tuple[str, str]]) -> None:
    """Serve a plugin until the process is ended.

    Args:
        socket: Path of the UNIX socket.
        entry_points: (name, "package.module") of each of its entry points.
    """
    # A batch makes thousands of objects that live and die together: looking for cycles every 700 new ones is in vain.
    gc.set_threshold(50_000, 20, 20)
    asyncio.run(_serve(socket, Calls(entry_points)))
