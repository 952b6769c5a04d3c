"""Folds what the batch evaluator found of the past into the columns."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import repeat
from operator import add
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa

from headrace.domain.consent import DENIED, GRANTED
from headrace.domain.predicates import decode_object, decode_value
from headrace_audience.engine.columns import hashes_of
from headrace_audience.engine.conditions import CONSENT
from headrace_audience.engine.list_columns import Event
from headrace_audience.engine.people import Ordinals, People, Times
from headrace_audience.engine.states import PROFILES, States, TraitRoute
from headrace_audience.engine.waiting import Future, FutureItem, TraitWrite

T = TypeVar("T")


def fold_table(
    states: States,
    people: People,
    future: Future,
    key: str,
    table: Any,
    horizon: int,
    partitions: Collection[int] | None,
    without: Collection[str],
) -> None:
    """Take in a table of queries.condition_history(); see Engine.fold_history()."""
    if key != PROFILES and key not in states.keys:
        return
    profiles = table.column("profile").combine_chunks().dictionary_encode()
    of_value = _ordinals(states, people, _listed(profiles.dictionary), partitions, without)
    states.ensure_room()
    if key == PROFILES or not len(of_value):
        return
    ordinals: Ordinals = of_value[profiles.indices.to_numpy(zero_copy_only=False)]
    wanted = ordinals >= 0
    times = table.column("timestamp_us").to_numpy().astype(np.int64)
    if key in states.events:
        route = states.events[key]
        if route.state.keep > 1:
            ids = hashes_of(_listed(table.column("message_id").cast(pa.binary())))
        else:
            ids = np.zeros_like(times)
        states.insert(route, ordinals[wanted], times[wanted], ids[wanted], horizon)
        return
    if key in states.firsts:
        states.touched.add(key, states.firsts[key].column.insert(ordinals[wanted], times[wanted]))
        return
    if key in states.lists:
        _fold_list(states, key, table, ordinals, times, horizon)
        return
    for namespace in states.identifiers.values():
        if namespace.key == key:
            states.touched.add(key, namespace.column.insert(ordinals[wanted], times[wanted]))
            return
    attribute = states.attribute_of(key)
    if attribute is None:
        return
    _fold_writes(states, people, future, attribute, table, ordinals, times, horizon)


def _fold_writes(
    states: States,
    people: People,
    future: Future,
    attribute: TraitRoute,
    table: Any,
    ordinals: Ordinals,
    times: Times,
    horizon: int,
) -> None:
    """Take in what events wrote: of most profiles one write, and it is the first that is known here."""
    message_ids = _listed(table.column("message_id"))
    values = _each_text(table.column("value"), lambda text: _value_of(attribute, text))
    fresh = (ordinals >= 0) & (times <= horizon)
    fresh &= np.bincount(ordinals + 1)[ordinals + 1] == 1  # those that are not wanted are at -1
    fresh[fresh] = ~attribute.column.knows(ordinals[fresh])
    places = np.flatnonzero(fresh)
    if len(places):
        some = places.tolist()
        written = [message_ids[place] for place in some], [values[place] for place in some]
        attribute.column.write_first(ordinals[places], times[places], *written)
        for key in attribute.keys:
            states.touched.add(key, ordinals[places])
    for place in np.flatnonzero((ordinals >= 0) & ~fresh).tolist():
        ordinal, time, message_id = int(ordinals[place]), int(times[place]), message_ids[place]
        write = TraitWrite(attribute.kind, attribute.name, values[place])
        if time > horizon:
            future.add(FutureItem(time, message_id, people.ids[ordinal], write, "event"))
        else:
            states.write_trait(write, ordinal, time, message_id)


def _value_of(attribute: TraitRoute, text: str | None) -> Any:
    """What was written, from its JSON text."""
    value = None if text is None else decode_value(text)
    if attribute.kind == CONSENT:
        return GRANTED if value else DENIED
    return value


def _fold_list(states: States, key: str, table: Any, ordinals: Ordinals, times: Times, horizon: int) -> None:
    """Take in events with their properties; a list holds those of the future too."""
    route = states.lists[key]
    events: list[Event] = list(zip(times.tolist(), _listed(table.column("message_id")), strict=True))
    if route.reads_properties:
        values = _each_text(table.column("value"), lambda text: route.values(decode_object(text)))
        events = list(map(add, events, values))
    states.touched.add(key, route.fill(ordinals, times, events, horizon))


def _listed(column: Any) -> list[Any]:
    """The values of a column; to_pylist() makes an object of each on the way."""
    return cast("list[Any]", column.to_numpy(zero_copy_only=False).tolist())


def _each_text(column: Any, read: Callable[[str | None], T]) -> list[T]:
    """What is read of each text of a column; the same text is read once."""
    texts = column.combine_chunks().dictionary_encode()
    of_text = [*map(read, _listed(texts.dictionary)), read(None)]
    return list(map(of_text.__getitem__, texts.indices.fill_null(-1).to_numpy().tolist()))


def _ordinals(
    states: States, people: People, ids: list[str], partitions: Collection[int] | None, without: Collection[str]
) -> Ordinals:
    """The ordinals of profiles, new ones if need be; -1 of those whose history is not wanted."""
    ordinals: Ordinals = np.fromiter(map(people.index.get, ids, repeat(-1)), np.int64, len(ids))
    unwanted = ~people.alive[ordinals]
    if partitions is not None:
        unwanted |= ~np.isin(people.partition[ordinals], list(partitions))
    unknown = np.flatnonzero(ordinals < 0).tolist()
    ordinals[unwanted] = -1
    for place in unknown:
        if ids[place] not in without:
            ordinals[place] = _added(states, people, ids[place], partitions)
    if without:
        ordinals[[place for place, profile_id in enumerate(ids) if profile_id in without]] = -1
    return ordinals


def _added(states: States, people: People, profile_id: str, partitions: Collection[int] | None) -> int:
    """The ordinal of a new profile; -1 when its history is not wanted."""
    if not profile_id or profile_id in people.merged:
        return -1
    if partitions is not None and people.partition_of(profile_id) not in partitions:
        return -1
    ordinal = people.add(profile_id)
    states.touched.new.append(ordinal)
    return ordinal
