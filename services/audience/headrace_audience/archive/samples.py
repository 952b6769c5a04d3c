"""Which people are in which sample of a workspace: nested samples, by a hash of the profile's id.

People are sampled, never events: of who is in a sample all events are read, so each answer about them is exact. The
archive keeps each sample's rows together, so that a small one is read without the rest.
"""

from __future__ import annotations

import zlib

SHARES = (1 / 256, 1 / 64, 1 / 16, 1 / 4, 1.0)
"""The share of all people that each sample holds; each holds the ones before it."""

EVERYBODY = len(SHARES) - 1
"""The sample that is no sample."""

_PARTS = 256
_SAMPLES = [sum(part >= share * _PARTS for share in SHARES) for part in range(_PARTS)]


def sample_of(profile_id: str) -> int:
    """The smallest sample that a profile is in."""
    return _SAMPLES[zlib.crc32(profile_id.encode()) % _PARTS]
