"""What a sample says of everybody: a size with the interval in which it lies. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

_Z = 1.959963984540054
"""Of the normal distribution, for 95 %."""


class Estimate(NamedTuple):
    """A size, and the interval that holds the true one in 95 of 100 samples."""

    size: int
    low: int
    high: int


def estimate(found: int, share: float) -> Estimate:
    """The number of people of a kind, from how many of them are in a sample.

    Each person is in the sample or not by chance, whatever the others are. The interval is Wilson's score interval, for
    a number of people where his is for a share: all sizes that a score test would not reject. It is narrower the more
    were found: about 2 in the square root of their number to each side.

    Args:
        found: Those in the sample.
        share: The chance of each to be in it, above 0; 1 is no sample.
    """
    if share >= 1:
        return Estimate(found, found, found)
    # Where (found - size * share)^2 = z^2 * size * share * (1 - share).
    spread = _Z * _Z * (1 - share)
    middle = found + spread / 2
    half = math.sqrt(found * spread + spread * spread / 4)
    low, high = math.ceil((middle - half) / share - 1e-9), math.floor((middle + half) / share + 1e-9)
    return Estimate(round(found / share), max(low, found), high)
