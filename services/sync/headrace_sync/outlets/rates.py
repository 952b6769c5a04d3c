"""Rate limits shared by all replicas: each request takes the next free place in a row that Redis keeps.

The row is one number, the moment of the next free place (the generic cell rate algorithm), so the rule is the same few
lines here and in the script that runs inside Redis. Places are as far apart as the limit allows on average, and a few
that nobody took are kept: in no span of the limit's length are there more than `count` and 2 %, whoever asks. A place
is taken before it is due, so that nothing of the rate is lost to asking late or twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.exceptions import RedisError

from headrace.connector import wire
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.streams.client import Redis
from headrace.telemetry import logs
from headrace_sdk import LimitScope, RateLimit
from headrace_sync.config import workspace_of

log = logs.get_logger(__name__)

_KEPT_SHARE = 50
"""One in so many places may be kept: 2 %."""

_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local step, kept = tonumber(ARGV[1]), tonumber(ARGV[2])
local place = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now - kept)
local life = math.ceil((place + step + kept - now) / 1000) + 1000
redis.call('SET', KEYS[1], string.format('%.0f', place + step), 'PX', life)
return math.max(0, place - now)
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` per `per_s` seconds.

    Attributes:
        key: Name of the row; the same in all replicas.
        count: Requests.
        per_s: Seconds.
    """

    key: str
    count: int
    per_s: float

    @property
    def step_us(self) -> int:
        """From one place to the next, in microseconds."""
        return max(1, math.ceil(self.per_s * SECOND_US / self.count))

    @property
    def kept_us(self) -> int:
        """How far back free places are kept, in microseconds."""
        return self.count // _KEPT_SHARE * self.step_us


def take(next_us: int, now: int, limit: Limit) -> tuple[int, int]:
    """Take the next place at a moment.

    Args:
        next_us: The moment of the next place.
        now: The clock, in microseconds.
        limit: The limit.

    Returns:
        (the moment of the place after the one taken, microseconds until that one is due).
    """
    place = max(next_us, now - limit.kept_us)
    return place + limit.step_us, max(0, place - now)


def limits_of(info: wire.ConnectorInfo, destination_key: str, settings: Mapping[str, Any]) -> list[Limit]:
    """The limits of a destination, by its connector's manifest.

    Args:
        info: What the connector is.
        destination_key: Database id of the destination.
        settings: Its settings, of which some limits go by one.
    """
    found = []
    for at, limit in enumerate(info.limits):
        whose = _whose(info, limit, destination_key, settings)
        found.append(Limit(f"headrace:places:{info.name}:{at}:{whose}", limit.count, limit.per_s))
    return found


def _whose(info: wire.ConnectorInfo, limit: RateLimit, destination_key: str, settings: Mapping[str, Any]) -> str:
    """Who shares a limit, as a part of its key."""
    if limit.scope is LimitScope.CONNECTOR:
        return info.name
    value = settings.get(limit.setting) or info.default_of(limit.setting) if limit.setting else None
    if value in (None, ""):
        return destination_key
    # Of the workspace alone: nobody slows others by naming their account. As a digest: the setting may be a secret.
    said = msgspec.json.encode([workspace_of(destination_key), value])
    return f"{limit.setting}:{hashlib.blake2b(said, digest_size=16).hexdigest()}"


class RateLimiter:
    """Hands out places of limits."""

    def __init__(self, redis: Redis, *, clock: Callable[[], int] = now_us) -> None:
        self._script = redis.register_script(_SCRIPT)
        self._clock = clock
        self._local: dict[str, int] = {}
        self._redis_back_at_us = 0

    async def acquire(self, limits: Sequence[Limit]) -> None:
        """Take a place of each limit and wait until it is due."""
        for limit in limits:
            wait_us = await self._take(limit)
            if wait_us > 0:
                await asyncio.sleep(wait_us / SECOND_US)

    async def _take(self, limit: Limit) -> int:
        now = self._clock()
        if now >= self._redis_back_at_us:
            try:
                return int(await self._script(keys=[limit.key], args=[limit.step_us, limit.kept_us]))
            except (RedisError, OSError) as error:
                # Local until Redis is back: each replica then has the whole budget, which beats not delivering.
                log.warning("rate limits are not shared by all replicas: Redis does not answer", error=error)
                self._redis_back_at_us = now + 2 * SECOND_US
        self._local[limit.key], wait_us = take(self._local.get(limit.key, 0), now, limit)
        return wait_us
