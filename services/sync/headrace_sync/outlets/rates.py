"""Rate limits shared by all replicas: a token bucket per limit in Redis, a local one while Redis is away.

A bucket is kept as one number, the moment at which it will be full again (the generic cell rate algorithm), so the
rule is the same few lines here and in the script that runs inside Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from headrace.connector import wire
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.streams.client import Redis

_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local full = tonumber(redis.call('GET', KEYS[1]) or '0')
if full < now then full = now end
local step, span = tonumber(ARGV[1]), tonumber(ARGV[2])
local wait = full + step - now - span
if wait > 0 then return wait end
redis.call('SET', KEYS[1], string.format('%.0f', full + step), 'PX', math.ceil((full + step - now) / 1000) + 1000)
return 0
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` per `per_s` seconds.

    Attributes:
        key: Name of the bucket; the same in all replicas.
        count: Size of the bucket.
        per_s: Seconds in which it fills.
    """

    key: str
    count: int
    per_s: float

    @property
    def span_us(self) -> int:
        """The time in which an empty bucket fills, in microseconds."""
        return int(self.per_s * SECOND_US)

    @property
    def step_us(self) -> int:
        """The time in which one token fills, in microseconds."""
        return max(1, self.span_us // self.count)


def take(full_at_us: int, now: int, limit: Limit) -> tuple[int, int]:
    """Take a token at a moment.

    Args:
        full_at_us: The moment at which the bucket is full again.
        now: The clock, in microseconds.
        limit: The limit.

    Returns:
        (new full_at_us, 0) when a token was taken, else (full_at_us, microseconds until there is one).
    """
    full = max(full_at_us, now)
    wait = full + limit.step_us - now - limit.span_us
    return (full_at_us, wait) if wait > 0 else (full + limit.step_us, 0)


def limits_of(info: wire.ConnectorInfo, destination_key: str) -> list[Limit]:
    """The limits of a destination, by its connector's manifest.

    Args:
        info: What the connector is.
        destination_key: Database id of the destination.
    """
    found = []
    for at, limit in enumerate(info.limits):
        whose = info.name if limit.scope == "connector" else destination_key
        found.append(Limit(f"headrace:rate:{info.name}:{at}:{whose}", limit.count, limit.per_s))
    return found


class RateLimiter:
    """Hands out tokens of limits."""

    def __init__(self, redis: Redis, *, clock: Callable[[], int] = now_us) -> None:
        self._script = redis.register_script(_SCRIPT)
        self._clock = clock
        self._local: dict[str, int] = {}
        self._redis_back_at_us = 0

    async def acquire(self, limits: Sequence[Limit]) -> None:
        """Wait until each limit gives a token."""
        for limit in limits:
            while (wait := await self._take(limit)) > 0:  # noqa: ASYNC110 - nothing signals that time has passed
                await asyncio.sleep(min(wait / SECOND_US, 5.0))

    async def _take(self, limit: Limit) -> int:
        now = self._clock()
        if now >= self._redis_back_at_us:
            try:
                return int(await self._script(keys=[limit.key], args=[limit.step_us, limit.span_us]))
            except (RedisError, OSError):
                # Local until Redis is back: each replica then has the whole budget, which beats not delivering.
                self._redis_back_at_us = now + 2 * SECOND_US
        self._local[limit.key], wait = take(self._local.get(limit.key, 0), now, limit)
        return wait
