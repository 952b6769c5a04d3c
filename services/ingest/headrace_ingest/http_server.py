"""Runs the HTTP port inside the service's process and drains it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    """Leaves signals to the service, which drains everything in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def http_serving(
    app: Any, *, host: str, port: int, drain_s: float, trusted_proxies: Sequence[str] = ()
) -> AsyncIterator[str]:
    """Serve inside the block; at its end stop accepting and let requests in flight finish.

    Args:
        app: ASGI application.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        drain_s: How long requests in flight may take at the end, in seconds.
        trusted_proxies: Addresses and networks of proxies; whom they name in X-Forwarded-For is the client, and
            what they say in X-Forwarded-Proto the scheme.

    Yields:
        The URL as bound.

    Raises:
        OSError: The port is taken.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(int(drain_s), 1),
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    while not server.started:
        if task.done():
            await task
            raise OSError(f"the HTTP server on {host}:{port} did not start")
        await asyncio.sleep(0.005)
    bound = listener.getsockname()[1]
    try:
        yield f"http://{host}:{bound}"
    finally:
        server.should_exit = True
        await task
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: is the port taken?") from error
    return listener
