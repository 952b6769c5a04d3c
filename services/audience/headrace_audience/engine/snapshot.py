"""A partition as bytes, and back.

The bytes start with a mark and a version; the rest is compressed msgpack: the profiles in order, and for each state
key arrays of (position of the profile, time, id). Memberships are not in it: the store knows them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

import msgspec
import numpy as np
import zstandard

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace_audience.engine.people import Ordinals, People, Times
from headrace_audience.engine.states import States
from headrace_audience.engine.waiting import Future, FutureItem, TraitWrite

MARK = b"HRA3"
"""First bytes of a snapshot; the digit is the version."""


class SnapshotError(ValueError):
    """Bytes that are no snapshot, or one of a version that this code does not know: fold the log instead."""


class _Events(msgspec.Struct, array_like=True):
    profiles: bytes
    times: bytes
    ids: bytes


class _List(msgspec.Struct, array_like=True):
    profiles: list[int]
    events: list[tuple[int | str | bool | None, ...]]
    cut: list[int]


class _Trait(msgspec.Struct, array_like=True):
    kind: str
    name: str
    profiles: bytes
    times: bytes
    writers: list[str]
    codes: dict[str, bytes]


class _Future(msgspec.Struct, array_like=True):
    time_us: int
    message_id: str
    profile: int
    event: bytes
    kind: str
    name: str
    value: bytes
    cause: str


class _Snapshot(msgspec.Struct):
    workspace: str
    partition: int
    horizon_us: int
    profiles: list[str]
    merged: dict[str, str]
    keys: list[str]
    events: dict[str, _Events]
    waiting: dict[str, _Events]
    lists: dict[str, _List]
    firsts: dict[str, _Events]
    traits: list[_Trait]
    identifiers: dict[str, _Events]
    future: list[_Future]
    epochs: dict[str, int] = {}


def _events(profiles: Ordinals, times: Times, ids: Times | None = None) -> _Events:
    return _Events(profiles.astype(np.int32).tobytes(), times.tobytes(), b"" if ids is None else ids.tobytes())


def write(
    workspace_id: str,
    partition: int,
    horizon: int,
    people: People,
    states: States,
    future: Future,
    complete: Collection[str],
) -> bytes:
    """A partition as bytes; only the state keys in `complete` go in."""
    ordinals = people.ordinals_of(partition)
    ordinals = ordinals[people.alive[ordinals]]
    profiles = [people.ids[ordinal] for ordinal in ordinals.tolist()]
    position = np.full(people.capacity, -1, np.int64)
    position[ordinals] = np.arange(len(ordinals))
    content = _Snapshot(
        workspace=workspace_id,
        partition=partition,
        horizon_us=horizon,
        profiles=profiles,
        merged={a: b for a, b in people.merged.items() if people.partition_of(a) == partition},
        keys=sorted(complete),
        events={},
        waiting={},
        lists={},
        firsts={},
        traits=[],
        identifiers={},
        future=[],
        epochs={p: epoch for p, epoch in people.epochs.items() if people.partition_of(p) == partition},
    )
    for key, route in states.events.items():
        if key in complete:
            content.events[key] = _events(*route.column.entries(ordinals))
            waiters, times, ids = route.waiting.entries()
            mine = position[waiters] >= 0
            if mine.any():
                content.waiting[key] = _events(position[waiters[mine]], times[mine], ids[mine])
    for key, one in states.lists.items():
        if key in complete:
            content.lists[key] = _List(*one.column.entries(ordinals))
    for key, first in states.firsts.items():
        if key in complete:
            content.firsts[key] = _events(*first.column.entries(ordinals))
    for (kind, name), trait in states.attributes.items():
        have, times, writers, codes = trait.column.entries(ordinals)
        kept = {key: values.astype(np.int64).tobytes() for key, values in codes.items() if key in complete}
        if kept:
            content.traits.append(_Trait(kind, name, have.astype(np.int32).tobytes(), times.tobytes(), writers, kept))
    for identifier in states.identifiers.values():
        if identifier.key in complete:
            content.identifiers[identifier.key] = _events(*identifier.column.entries(ordinals))
    place = {profile_id: i for i, profile_id in enumerate(profiles)}
    for profile_id in future.profiles():
        if profile_id in place:
            content.future += [_future(item, place[profile_id]) for item in future.of_profile(profile_id)]
    return MARK + zstandard.ZstdCompressor(level=1).compress(msgspec.msgpack.encode(content))


def _future(item: FutureItem, place: int) -> _Future:
    content = item.content
    if isinstance(content, TraitWrite):
        value = msgspec.json.encode(content.value)
        return _Future(item.time_us, item.message_id, place, b"", content.kind, content.name, value, item.cause)
    return _Future(item.time_us, item.message_id, place, content.SerializeToString(), "", "", b"", item.cause)


_decode = msgspec.msgpack.Decoder(_Snapshot).decode


def read(workspace_id: str, partition: int, data: bytes) -> Any:
    """Check and unpack a snapshot, for load(). Raises SnapshotError."""
    if data[: len(MARK)] != MARK:
        raise SnapshotError(f"no snapshot of a known version: it starts with {data[: len(MARK)]!r}")
    try:
        content = _decode(zstandard.ZstdDecompressor().decompress(data[len(MARK) :]))
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise SnapshotError(f"the snapshot is damaged: {error}") from error
    if content.workspace != workspace_id or content.partition != partition:
        raise SnapshotError("the snapshot is of another workspace or partition")
    return content


def mentions(workspace_id: str, partition: int, data: bytes, profile_ids: frozenset[str]) -> bool:
    """Whether a partition as bytes knows any of these profiles; one that cannot be read does not."""
    try:
        content = cast("_Snapshot", read(workspace_id, partition, data))
    except SnapshotError:
        return False
    known = (content.profiles, content.merged, content.merged.values())
    return any(not profile_ids.isdisjoint(some) for some in known)


def load(content: Any, people: People, states: States, future: Future) -> frozenset[str]:
    """Take an unpacked snapshot in; returns the state keys that it has."""
    snapshot = cast("_Snapshot", content)
    of_profile = np.full(len(snapshot.profiles), -1, np.int64)
    for i, profile_id in enumerate(snapshot.profiles):
        if profile_id not in people.merged:
            ordinal = people.index.get(profile_id)
            of_profile[i] = people.add(profile_id) if ordinal is None else ordinal
    states.ensure_room()
    has = frozenset(snapshot.keys)
    for key, entries in snapshot.events.items():
        if key in states.events:
            states.events[key].column.insert(*_arrays(entries, of_profile))
    for key, entries in snapshot.waiting.items():
        if key in states.events:
            states.events[key].waiting.add(*_arrays(entries, of_profile))
    for key, entries in snapshot.identifiers.items():
        for route in states.identifiers.values():
            if route.key == key:
                ordinals, times, _ = _arrays(entries, of_profile)
                route.column.insert(ordinals, times)
    for key, entries in snapshot.firsts.items():
        if key in states.firsts:
            ordinals, times, _ = _arrays(entries, of_profile)
            states.firsts[key].column.insert(ordinals, times)
    for key, one in snapshot.lists.items():
        if key in states.lists:
            _load_list(one, of_profile, states, key, snapshot.horizon_us)
    for trait in snapshot.traits:
        if (trait.kind, trait.name) in states.attributes:
            _load_trait(trait, of_profile, states)
    for item in snapshot.future:
        write = None if item.event else TraitWrite(item.kind, item.name, msgspec.json.decode(item.value))
        resolved = write if write is not None else ResolvedEvent.FromString(item.event)
        profile_id = snapshot.profiles[item.profile]
        if profile_id not in people.merged:
            future.add(FutureItem(item.time_us, item.message_id, profile_id, resolved, item.cause))
    return has


def _arrays(entries: _Events, of_profile: Ordinals) -> tuple[Ordinals, Times, Times]:
    ordinals = of_profile[np.frombuffer(entries.profiles, np.int32)]
    times = np.frombuffer(entries.times, np.int64)
    ids = np.frombuffer(entries.ids, np.int64) if entries.ids else np.zeros_like(times)
    known = ordinals >= 0
    return ordinals[known], times[known], ids[known]


def _load_list(one: _List, of_profile: Ordinals, states: States, key: str, horizon: int) -> None:
    column = states.lists[key].column
    ordinals = of_profile.tolist()
    for place, event in zip(one.profiles, one.events, strict=True):
        if ordinals[place] >= 0:
            column.insert(ordinals[place], event, horizon)
    column.mark_cut(ordinals[place] for place in one.cut)


def _load_trait(trait: _Trait, of_profile: Ordinals, states: States) -> None:
    ordinals = of_profile[np.frombuffer(trait.profiles, np.int32)]
    times = np.frombuffer(trait.times, np.int64)
    known = ordinals >= 0
    writers = [w for w, k in zip(trait.writers, known.tolist(), strict=True) if k]
    codes: Mapping[str, bytes] = trait.codes
    values = {key: np.frombuffer(data, np.int64)[known] for key, data in codes.items()}
    states.attributes[trait.kind, trait.name].column.load(ordinals[known], times[known], writers, values)
