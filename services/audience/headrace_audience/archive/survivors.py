"""Which profile a merged one is now: merges are pointers, followed when the archive is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol


class Item(Protocol):
    """What a reassignment says of one profile: a Reassignment of a stream, or a Reassigned of the log."""

    @property
    def profile_id(self) -> str:
        """The profile."""
        ...

    @property
    def parts(self) -> Sequence[str]:
        """All parts of it now; empty when it is no profile of its own any more."""
        ...

    @property
    def survivor(self) -> str:
        """The profile that holds it now, if any."""
        ...


class Survivors:
    """The merges of a workspace."""

    def __init__(self, merges: Iterable[tuple[str, str]] = ()) -> None:
        """Know (loser, survivor) pairs, in any order; repeated ones are harmless."""
        self._next: dict[str, str] = {}
        self._found: dict[str, str] = {}
        self.add(merges)

    def add(self, merges: Iterable[tuple[str, str]]) -> None:
        """Know more pairs."""
        for loser, survivor in merges:
            if loser and survivor and loser != survivor and self._next.get(loser) != survivor:
                self._next[loser] = survivor
                self._found.clear()

    def reassign(self, items: Iterable[Item]) -> None:
        """Know what became of profiles whose events were assigned anew; what was said of them before is void."""
        concerned = list(items)
        for item in concerned:
            self._next.pop(item.profile_id, None)
        for item in concerned:
            self._next.update((part, item.profile_id) for part in item.parts if part != item.profile_id)
            if item.survivor:
                self._next[item.profile_id] = item.survivor
        self._found.clear()

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
            step = self._found.get(step) or self._next.get(step)
        final = trail.pop()
        self._found.update(dict.fromkeys(trail, final))  # so that the next look-up is two steps
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
