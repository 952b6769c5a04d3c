"""Who is in which audience, as was reported: one bit per profile and audience."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from headrace_audience.engine.people import Bools, Ordinals


class Memberships:
    """A matrix of bits: a line per profile, a place per audience."""

    def __init__(self, capacity: int) -> None:
        self._bits: npt.NDArray[np.uint8] = np.zeros((capacity, 1), np.uint8)
        self._places: dict[str, int] = {}
        self._free: list[int] = []
        self._sizes: dict[str, int] = {}

    def ensure(self, capacity: int) -> None:
        """Have room for ordinals below a capacity."""
        missing = capacity - len(self._bits)
        if missing > 0:
            self._bits = np.concatenate([self._bits, np.zeros((missing, self._bits.shape[1]), np.uint8)])

    def add(self, audience_id: str) -> None:
        """Give an audience a place, if it has none."""
        if audience_id in self._places:
            return
        if not self._free:
            width = self._bits.shape[1]
            known = len(self._places)
            if known == width * 8:
                self._bits = np.concatenate([self._bits, np.zeros((len(self._bits), width), np.uint8)], axis=1)
                width *= 2
            self._free = list(range(width * 8 - 1, known - 1, -1))
        self._places[audience_id] = self._free.pop()
        self._sizes[audience_id] = 0

    def remove(self, audience_id: str) -> None:
        """Forget an audience."""
        place = self._places.pop(audience_id)
        del self._sizes[audience_id]
        self._bits[:, place >> 3] &= np.uint8(0xFF ^ (1 << (place & 7)))
        self._free.append(place)

    def of(self, audience_id: str, ordinals: Ordinals) -> Bools:
        """Membership in an audience, per ordinal."""
        place = self._places[audience_id]
        return cast("Bools", (self._bits[ordinals, place >> 3] & np.uint8(1 << (place & 7))) != 0)

    def all_of(self, audience_id: str) -> Ordinals:
        """Ordinals of the members of an audience."""
        place = self._places[audience_id]
        return np.flatnonzero(self._bits[:, place >> 3] & np.uint8(1 << (place & 7)))

    def size(self, audience_id: str) -> int:
        """Number of members."""
        return self._sizes[audience_id]

    def flip(self, audience_id: str, ordinals: Ordinals) -> None:
        """Turn the membership of different ordinals round."""
        place = self._places[audience_id]
        mask = np.uint8(1 << (place & 7))
        bits = self._bits[ordinals, place >> 3] ^ mask
        self._bits[ordinals, place >> 3] = bits
        entered = int(np.count_nonzero(bits & mask))
        self._sizes[audience_id] += 2 * entered - len(ordinals)

    def any(self, ordinals: Ordinals) -> Bools:
        """Whether there is any membership, per ordinal."""
        return cast("Bools", self._bits[ordinals].any(axis=1))

    def clear(self, ordinals: Ordinals) -> None:
        """Forget profiles."""
        for audience_id in self._places:
            members = ordinals[self.of(audience_id, ordinals)]
            if len(members):
                self.flip(audience_id, members)
