"""Notices that Redis was lost: started again (perhaps from older data), emptied, or replaced by another.

Entries may then be missing between two that are there, so a position in a stream means nothing any more and the log
has to be read instead.
"""

from __future__ import annotations

from typing import Any

from headrace.domain.ids import new_time_ordered_id
from headrace.storage.streams.client import Redis

MARK = "headrace:audience:mark"
"""A key that only a Redis that was emptied lacks."""


async def incarnation(redis: Redis) -> str:
    """A text that stays the same as long as no entry of a stream can have been lost.

    Raises:
        redis.exceptions.RedisError: It cannot be reached.
    """
    mark = await redis.get(MARK)
    if mark is None:
        await redis.set(MARK, new_time_ordered_id(), nx=True)
        mark = await redis.get(MARK)
    server: dict[str, Any] = await redis.info("server")
    return f"{server['run_id']}:{mark.decode() if isinstance(mark, bytes) else mark}"
