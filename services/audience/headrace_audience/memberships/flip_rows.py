"""What flips become in the database: the changes of their memberships' rows and the history of these.

Nothing here does I/O: the writer reads the rows and writes what comes out, in one transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pymongo import UpdateMany, UpdateOne

from headrace.storage.mongo.client import Document
from headrace_audience.engine.engine import Flip
from headrace_audience.store import change_key


class Placed(NamedTuple):
    """A flip among those that are written together."""

    place: int
    partition: int
    key: str
    """The database id of its membership."""
    flip: Flip


@dataclass(frozen=True)
class Stamp:
    """What is the same for all flips of a transaction."""

    workspace_id: str
    version_base: Mapping[str, int]
    """Version after which new memberships of an audience start; missing means 0."""
    numbers: Mapping[int, int]
    """The flush number by partition."""
    now: int


class _Move(NamedTuple):
    """How a row that is stored changes; those that change alike are written by one statement."""

    member: bool
    since: int
    into: str
    versions: int
    """By how many changes: an entry and an exit may come together."""


@dataclass
class Changes:
    """What a transaction writes."""

    history: list[tuple[int, Document]] = field(default_factory=list)
    """Each change with the place of its flip."""
    new: list[Document] = field(default_factory=list)
    """Rows of memberships that had none."""
    updates: list[UpdateOne | UpdateMany] = field(default_factory=list)
    """Of rows that are stored."""


def what_changes(
    stamp: Stamp, flips: Sequence[Placed], stored: Mapping[str, Document], told: Mapping[str, int]
) -> Changes:
    """What flips change; nothing comes of those that the rows say already.

    Args:
        stamp: Of the transaction.
        flips: In order.
        stored: The rows of their memberships by key, as the transaction sees them, with "in" and "version".
        told: Versions by key up to which there is history, where this is known beside the rows.
    """
    found = Changes()
    states = {key: (row["in"], row["version"]) for key, row in stored.items()}
    last: dict[str, Placed] = {}
    for placed in flips:
        key, flip = placed.key, placed.flip
        member, version = states.get(key) or (False, stamp.version_base.get(flip.audience_id, 0))
        if member == flip.member:
            continue
        version = max(version, told.get(key, 0)) + 1
        states[key] = (flip.member, version)
        last[key] = placed
        found.history.append((placed.place, _history(stamp, placed, version, len(found.history))))
    moved: dict[_Move, list[str]] = defaultdict(list)
    for key, placed in last.items():
        version = states[key][1]
        old = stored.get(key)
        if old is None:
            found.new.append(_row(stamp, placed, version))
        else:
            flip = placed.flip
            moves = _Move(flip.member, flip.effective_at_us, flip.merged_into, version - old["version"])
            moved[moves].append(key)
    found.updates = [_update(move, keys) for move, keys in moved.items()]
    return found


def _row(stamp: Stamp, placed: Placed, version: int) -> Document:
    flip = placed.flip
    return {
        "_id": placed.key,
        "w": stamp.workspace_id,
        "a": flip.audience_id,
        "p": flip.profile_id,
        "q": placed.partition,
        "in": flip.member,
        "since": flip.effective_at_us,
        "version": version,
        "into": flip.merged_into,
    }


def _update(move: _Move, keys: Sequence[str]) -> UpdateOne | UpdateMany:
    change: Document = {
        "$set": {"in": move.member, "since": move.since, "into": move.into},
        "$inc": {"version": move.versions},
    }
    # One statement for all costs both processes less than one for each.
    return UpdateOne({"_id": keys[0]}, change) if len(keys) == 1 else UpdateMany({"_id": {"$in": list(keys)}}, change)


def _history(stamp: Stamp, placed: Placed, version: int, number: int) -> Document:
    flip = placed.flip
    document: Document = {
        "_id": change_key(placed.key, version),
        "w": stamp.workspace_id,
        "a": flip.audience_id,
        "p": flip.profile_id,
        "q": placed.partition,
        "f": stamp.numbers[placed.partition],
        "n": number,
        "in": flip.member,
        "v": version,
        "e": flip.effective_at_us,
        "t": stamp.now,
        "c": flip.cause,
    }
    if flip.message_id:
        document["m"] = flip.message_id
    if flip.traceparent:
        document["tp"] = flip.traceparent
    if flip.merged_into:
        document["into"] = flip.merged_into
    return document
