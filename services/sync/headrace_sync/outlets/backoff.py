"""How long to wait before the next try: exponential back-off with full jitter, bounded by the item's age."""

from __future__ import annotations

from headrace.domain.times import SECOND_US

_MAX_DOUBLINGS = 30


def delay_us(attempts: int, *, base_s: float, cap_s: float, draw: float, asked_s: float | None = None) -> int:
    """The wait before the next try.

    Args:
        attempts: Tries made so far, at least 1.
        base_s: Largest first wait, in seconds; doubled by each further try.
        cap_s: Largest wait, in seconds.
        draw: Random number in [0, 1): full jitter spreads the tries over the whole wait.
        asked_s: Seconds that the vendor asked to wait; never undercut, with a little jitter on top.

    Returns:
        Microseconds, at least 0.
    """
    span_s = min(cap_s, base_s * 2 ** min(max(attempts - 1, 0), _MAX_DOUBLINGS))
    if asked_s is not None:
        return int((asked_s + draw * min(base_s, asked_s * 0.1)) * SECOND_US)
    return int(span_s * draw * SECOND_US)


def is_out_of_time(now_us: int, begun_us: int, max_age_s: float) -> bool:
    """True when an item that began to be tried at begun_us has used up its time."""
    return now_us - begun_us >= max_age_s * SECOND_US
