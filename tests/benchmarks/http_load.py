"""A small HTTP/1.1 load generator: keep-alive connections that each send prepared requests one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class LoadResult:
    """What a run of load came to."""

    seconds: float = 0.0
    requests: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    def percentile_ms(self, share: float) -> float:
        """Latency in milliseconds that this share (0 to 1) of the requests stayed under."""
        ordered = sorted(self.latencies_s)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000 if ordered else 0.0


class _Connection(asyncio.Protocol):
    def __init__(self, next_request: Callable[[], bytes], result: LoadResult, deadline: float, pause_s: float) -> None:
        self._next_request = next_request
        self._result = result
        self._deadline = deadline
        self._pause_s = pause_s
        self._buffer = bytearray()
        self._started = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._buffer[:head_end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < head_end + 4 + length:
            return
        status = int(head[9:12])
        self._buffer.clear()
        now = time.perf_counter()
        self._result.latencies_s.append(now - self._started)
        self._result.requests += 1
        self._result.statuses[status] = self._result.statuses.get(status, 0) + 1
        if now >= self._deadline:
            self._transport.close()
        elif self._pause_s:
            asyncio.get_running_loop().call_later(self._pause_s, self._send)
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._started = time.perf_counter()
        self._transport.write(self._next_request())


def post(path: str, host: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of a POST request with a JSON body."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def load(
    port: int, next_request: Callable[[], bytes], *, connections: int, seconds: float, pause_s: float = 0.0
) -> LoadResult:
    """Send requests to a port of this machine for some seconds.

    Args:
        port: Port on the loopback interface.
        next_request: Gives the bytes of the next request.
        connections: Number of keep-alive connections.
        seconds: How long.
        pause_s: Pause of each connection between an answer and the next request, in seconds.
    """
    result = LoadResult()
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    made = [
        await loop.create_connection(
            lambda: _Connection(next_request, result, started + seconds, pause_s), "127.0.0.1", port
        )
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    result.seconds = time.perf_counter() - started
    return result
