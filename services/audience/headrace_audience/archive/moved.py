"""What reassignments mean for the archive: which merges are valid, and of which profiles its rows are out of date.

Rows name the profile to which an event was resolved. Identity may assign events anew later, and then says which
profiles are concerned. Until the files are written anew, rows of the profiles named here are not to be believed; the
log has them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from typing import NamedTuple

from headrace.storage.mongo.log import StoredReassignment
from headrace_audience.archive.survivors import Survivors


class StoredMerge(NamedTuple):
    """A merge, as files and log have it."""

    sequence: int
    loser: str
    survivor: str


def follow(
    merges: Iterable[StoredMerge], reassignments: Sequence[StoredReassignment]
) -> tuple[Survivors, dict[str, int]]:
    """What is valid after merges and reassignments, in their recorded order.

    Args:
        merges: The merges of files, perhaps from before the reassignments, and of the log.
        reassignments: Those that the files do not contain yet, in recorded order.

    Returns:
        The merges that are valid now; and all profiles that the reassignments concern, before and after, with all their
        parts, to the sequence of the last one that concerns them: merges of them from before that are void.
    """
    if not reassignments:
        return Survivors((m.loser, m.survivor) for m in merges), {}
    survivors = Survivors()
    concerned: dict[str, int] = {}
    waiting = sorted(merges)
    place = 0
    for sequence, documents in groupby(reassignments, key=lambda r: r.sequence):
        start = place
        while place < len(waiting) and waiting[place].sequence < sequence:
            place += 1
        survivors.add((m.loser, m.survivor) for m in waiting[start:place])
        items = [item for document in documents for item in document.items]
        named = {item.profile_id for item in items}
        losers = (loser for loser, survivor in survivors.pairs() if survivor in named)
        parts = (part for item in items for part in item.parts)
        concerned.update((profile_id, sequence) for profile_id in chain(named, parts, losers))
        survivors.reassign(items)
    survivors.add((m.loser, m.survivor) for m in waiting[place:])
    return survivors, concerned
