"""Which profile a merged one is now: merges are pointers, followed when the archive is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping


class Survivors:
    """The merges of a workspace."""

    def __init__(self, merges: Iterable[tuple[str, str]] = ()) -> None:
        """Know (loser, survivor) pairs, in any order; repeated ones are harmless."""
        self._next: dict[str, str] = {}
        self.add(merges)

    def add(self, merges: Iterable[tuple[str, str]]) -> None:
        """Know more pairs."""
        for loser, survivor in merges:
            if loser and survivor and loser != survivor:
                self._next[loser] = survivor

    def __len__(self) -> int:
        return len(self._next)

    def of(self, profile_id: str) -> str:
        """The profile that this one is now: itself, when it was not merged."""
        step = self._next.get(profile_id)
        if step is None:
            return profile_id
        trail = [profile_id]
        seen = {profile_id}
        while step is not None and step not in seen:
            trail.append(step)
            seen.add(step)
            step = self._next.get(step)
        final = trail.pop()
        for passed in trail:  # so that the next look-up is one step
            self._next[passed] = final
        return final

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(loser, the profile that it is now) of every loser."""
        for loser in list(self._next):
            yield loser, self.of(loser)

    def parts_of(self, profile_ids: Iterable[str]) -> Mapping[str, str]:
        """Every part of the given survivors, themselves included, to its survivor."""
        wanted = set(profile_ids)
        parts = {p: p for p in wanted}
        parts.update((loser, survivor) for loser, survivor in self.pairs() if survivor in wanted)
        return parts
