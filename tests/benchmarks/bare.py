"""The bare parts that everything is compared with: an ASGI echo, a gRPC echo, a MongoDB insert."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import uvicorn
from pymongo import MongoClient
from pymongo.write_concern import WriteConcern


def free_port() -> int:
    """A free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _echo(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        return
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
    body = b'{"success": true}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _serve_asgi(port: int) -> None:
    uvicorn.run(_echo, host="127.0.0.1", port=port, log_level="error", http="httptools", loop="uvloop", lifespan="off")


class _Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic only in the stubs
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def answer(request: bytes, context: Any) -> bytes:
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


def _serve_grpc(port: int) -> None:
    async def main() -> None:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 16 * 1024 * 1024)])
        server.add_generic_rpc_handlers((_Echo(),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(main())


@contextmanager
def asgi_echo() -> Iterator[int]:
    """Serve the ASGI echo in a process of its own; gives the port."""
    yield from _served(_serve_asgi)


@contextmanager
def grpc_echo() -> Iterator[int]:
    """Serve the gRPC echo in a process of its own; gives the port."""
    yield from _served(_serve_grpc)


def _served(target: Callable[[int], None]) -> Iterator[int]:
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(port,), daemon=True)
    process.start()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    try:
        yield port
    finally:
        process.terminate()
        process.join()


def mongo_inserts_per_second(url: str, document_bytes: int, *, seconds: float) -> float:
    """Documents a second of insert_many by 1,000 with `w: majority, j: true`."""
    with MongoClient[dict[str, Any]](url) as client:
        collection = client["bench_bare"].get_collection("inserts", write_concern=WriteConcern(w="majority", j=True))
        collection.drop()
        payload, number = b"x" * document_bytes, 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            collection.insert_many([{"_id": number + i, "b": payload} for i in range(1000)], ordered=False)
            number += 1000
        rate = number / (time.perf_counter() - started)
        client.drop_database("bench_bare")
    return rate
