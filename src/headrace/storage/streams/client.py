"""Redis Streams: send batches, read them by consumer group or by position.

A stream is a fast path, never the only home of anything acknowledged: whoever reads one can
lose entries to a Redis that forgets, and must be able to read the log instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import redis.asyncio
from redis.exceptions import ResponseError

Redis = redis.asyncio.Redis

_FIELD = b"b"
_REWRITE_AT_ONCE = 50
_MOST_CONNECTIONS = 100


class Entry(NamedTuple):
    """One entry of a stream."""

    stream: str
    id: str
    payload: bytes


def connect(url: str, *, timeout_s: float = 10.0) -> Redis:
    """Make a client; no connection is opened before the first call.

    Calls beyond its connections wait for one: the client library's own pool fails them, and a call that fails looks to
    rate limits and streams like a Redis that is away.

    Args:
        url: redis:// or rediss:// address.
        timeout_s: How long a call may take before it fails, in seconds; blocking reads must stay below it.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=_MOST_CONNECTIONS,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        health_check_interval=15,
    )
    return redis.asyncio.Redis.from_pool(pool)


async def send(client: Redis, messages: Sequence[tuple[str, bytes]], *, max_length: int | None = None) -> None:
    """Append messages in one round trip, in order.

    Args:
        client: Redis.
        messages: (stream, payload) pairs.
        max_length: Trim each stream to about this many entries; None leaves it as it is.

    Raises:
        redis.exceptions.RedisError: Some or none were appended; sending all again is safe for readers.
    """
    if not messages:
        return
    pipeline = client.pipeline(transaction=False)
    for stream, payload in messages:
        pipeline.xadd(stream, {_FIELD: payload}, maxlen=max_length, approximate=True)
    await pipeline.execute()


class GroupReader:
    """Reads streams as one consumer of a group: each entry goes to one consumer, again if it is not acknowledged."""

    def __init__(
        self,
        client: Redis,
        streams: Sequence[str],
        *,
        group: str,
        consumer: str,
        claim_idle_ms: int = 10_000,
    ) -> None:
        """Read as a consumer.

        Args:
            client: Redis.
            streams: Names of the streams.
            group: Consumer group; made when missing, from the streams' beginning.
            consumer: Name of this consumer, different in each process.
            claim_idle_ms: After how long another consumer's unacknowledged entry is taken over.
        """
        self._client = client
        self._streams = list(streams)
        self._group = group
        self._consumer = consumer
        self._claim_idle_ms = claim_idle_ms
        self._ready = False

    async def read(self, *, count: int, block_ms: int) -> list[Entry]:
        """New entries, up to count per stream; empty when none came within block_ms."""
        if not self._ready:
            await self._make_groups()
        try:
            answer = await self._client.xreadgroup(
                self._group, self._consumer, dict.fromkeys(self._streams, ">"), count=count, block=block_ms
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._ready = False  # Redis lost the group with the stream: make it again at the next read
            return []
        return _entries(answer)

    async def claim(self, *, count: int) -> list[Entry]:
        """Entries that some consumer took and never acknowledged, now this consumer's."""
        if not self._ready:
            await self._make_groups()
        claimed: list[Entry] = []
        for stream in self._streams:
            answer: Any = await self._client.xautoclaim(
                stream, self._group, self._consumer, self._claim_idle_ms, count=count
            )
            claimed += _entries([(stream, answer[1])])
        return claimed

    async def acknowledge(self, entries: Sequence[Entry], *, delete: bool) -> None:
        """Mark entries as done; with delete they leave the stream, for streams with one group."""
        if not entries:
            return
        pipeline = self._client.pipeline(transaction=False)
        for entry in entries:
            pipeline.xack(entry.stream, self._group, entry.id)
            if delete:
                pipeline.xdel(entry.stream, entry.id)
        await pipeline.execute()

    async def _make_groups(self) -> None:
        for stream in self._streams:
            try:
                await self._client.xgroup_create(stream, self._group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        self._ready = True


async def read_from(client: Redis, positions: Mapping[str, str], *, count: int, block_ms: int) -> list[Entry]:
    """Entries after a position of each stream (an entry id, "0" for the beginning), up to count per stream."""
    if not positions:
        return []
    wanted: dict[Any, Any] = dict(positions)  # the client's own type is a dict, whose types do not vary
    return _entries(await client.xread(wanted, count=count, block=block_ms))


async def rewrite(
    client: Redis, stream: str, change: Callable[[bytes], bytes | None], *, groups: Sequence[str] = ()
) -> int:
    """Replace entries of a stream: the new one is appended, then the old one removed, so that no reader misses both.

    A reader that has the old one already gets the new one too. Entries that are appended meanwhile are not looked at.

    Args:
        client: Redis.
        stream: Name of the stream.
        change: Gives the new payload of an entry; None leaves it as it is, b"" removes it.
        groups: Consumer groups, for which the old entry counts as done.

    Returns:
        Number of entries that were replaced or removed.

    Raises:
        redis.exceptions.RedisError: Not all were; doing it again is safe.
    """
    replaced = 0
    ((_, last),) = (await edges(client, [stream])).values()
    position = "-"
    while True:
        found: Any = await client.xrange(stream, position, last, count=_REWRITE_AT_ONCE)
        for entry in _entries([(stream, found)]):
            payload = change(entry.payload)
            if payload is None:
                continue
            pipeline = client.pipeline(transaction=True)
            if payload:
                pipeline.xadd(stream, {_FIELD: payload})
            for group in groups:
                pipeline.xack(stream, group, entry.id)
            pipeline.xdel(stream, entry.id)
            await pipeline.execute()
            replaced += 1
        if len(found) < _REWRITE_AT_ONCE:
            return replaced
        position = "(" + _text(found[-1][0])


async def edges(client: Redis, streams: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(first entry id, last generated id) of each stream that exists; ("", "0-0") for the others."""
    pipeline = client.pipeline(transaction=False)
    for stream in streams:
        pipeline.xinfo_stream(stream)
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    found: dict[str, tuple[str, str]] = {}
    for stream, answer in zip(streams, answers, strict=True):
        if isinstance(answer, ResponseError):
            found[stream] = ("", "0-0")
            continue
        if isinstance(answer, Exception):
            raise answer
        first = answer["first-entry"]
        found[stream] = (_text(first[0]) if first else "", _text(answer["last-generated-id"]))
    return found


def reaches_back(position: str, first: str, last: str) -> bool:
    """Whether every entry after a position is certainly still there.

    Args:
        position: An entry id.
        first: Id of the first entry of the stream, "" when it has none, as of `edges`.
        last: The last id that the stream gave.
    """
    here, end = id_order(position), id_order(last)
    if here == end:
        return True
    return end > here and bool(first) and id_order(first) <= here


def id_order(entry_id: str) -> tuple[int, int]:
    """An entry id as numbers that compare in stream order."""
    milliseconds, _, serial = entry_id.partition("-")
    return int(milliseconds), int(serial or 0)


def _entries(answer: Any) -> list[Entry]:
    pairs = answer.items() if isinstance(answer, dict) else answer or ()
    entries: list[Entry] = []
    for stream, items in pairs:
        name = _text(stream)
        for entry_id, fields in items:
            if fields and _FIELD in fields:
                entries.append(Entry(name, _text(entry_id), fields[_FIELD]))
    return entries


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
