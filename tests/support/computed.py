"""Helpers of the tests of computed traits: random definitions and histories, and the naive reference beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headrace_identity.computed import reference
from headrace_identity.computed.filling import Filler
from headrace_identity.computed.reading import ComputedValues
from headrace_identity.store import PROFILES
from hypothesis import strategies as st

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.domain.computed_traits.definition import parse_definition
from headrace.domain.times import DAY_US, HOUR_US
from headrace.storage.mongo.client import Database
from tests.support.identity import Stored, read_stored

NAMES = ("Purchased", "Product viewed", "Left")
TEXTS = ("a", "b", "B", "é", "😀", "", "1", 'q"\\', "\u0000", "x" * 501)
NUMBERS: tuple[Any, ...] = (
    0,
    -0.0,
    1,
    1.0,
    2,
    -3,
    0.1,
    0.2,
    0.7,
    19.9,
    19.99,
    1e300,
    -1e300,
    1e-300,
    2**53 + 1,
    10**30,
)
ODD: tuple[Any, ...] = (True, False, None, [], ["a"], {"x": 1}, 10**400)
VALUES = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.sampled_from(ODD))
FUNCTIONS = ("sum", "avg", "min", "max", "first", "last", "most_frequent", "unique_list")
WINDOWS = ("30m", "5h", "1d", "36h", "3d", "30d")

predicates = st.sampled_from(
    [
        {"property": "v", "gt": 0},
        {"property": "v", "neq": "a"},
        {"property": "deep.v", "exists": True},
        {"property": "flag", "eq": True},
        {"property": "v", "contains": "b", "ignore_case": True},
    ]
)
computes = st.one_of(
    st.just("count"),
    st.builds(lambda f, path: {f: path}, st.sampled_from(FUNCTIONS), st.sampled_from(("v", "deep.v"))),
)
definitions = st.fixed_dictionaries(
    {"event": st.one_of(st.sampled_from(NAMES), st.just(list(NAMES[:2]))), "compute": computes},
    optional={"within": st.sampled_from(WINDOWS), "where": st.lists(predicates, max_size=2)},
)

# Days and hours around now, so that events lie together, at the borders of days, and exactly a window apart.
offsets_us = st.one_of(
    st.builds(lambda d, h, u: d * DAY_US + h * HOUR_US + u, st.integers(-4, 3), st.integers(-3, 3), st.integers(-1, 1)),
    st.integers(-40, 40).map(lambda d: d * DAY_US),
    st.integers(-3 * DAY_US, 2 * DAY_US),
)
properties = st.fixed_dictionaries(
    {}, optional={"v": VALUES, "deep": st.fixed_dictionaries({"v": VALUES}), "flag": st.booleans()}
)
identifiers = st.lists(
    st.tuples(st.sampled_from(("user_id", "anonymous_id")), st.sampled_from(("k1", "k2", "k3"))),
    min_size=1,
    max_size=2,
    unique_by=lambda i: i[0],
)


def track(
    message_id: str,
    time_us: int,
    properties: Mapping[str, Any] | None = None,
    *,
    workspace_id: str,
    name: str = "Purchased",
    who: Sequence[tuple[str, str]] = (("user_id", "u1"),),
    kind: EventKind.ValueType = EventKind.EVENT_KIND_TRACK,
) -> Event:
    """An event with properties at a time."""
    return Event(
        message_id=message_id,
        workspace_id=workspace_id,
        source_id="web",
        kind=kind,
        name=name,
        identifiers=[Identifier(namespace=n, value=v) for n, v in who],
        properties=json.dumps(properties).encode() if properties else b"",
        timestamp_us=time_us,
        received_at_us=time_us,
    )


async def fill(db: Database, most_parts: int = 1_000) -> None:
    """Do all that there is to fill and to remove."""
    filler = Filler(db, most_parts=most_parts)
    while await filler.step():
        pass


async def people_of(db: Database, workspace_id: str) -> dict[str, list[str]]:
    """The parts of each person."""
    query = {"w": workspace_id, "into": {"$exists": False}}
    found = [d async for d in db[PROFILES].find(query)]
    return {(i := d["_id"].partition("\x1f")[2]): d.get("parts") or [i] for d in found}


async def assert_exact(
    db: Database,
    workspace_id: str,
    definitions: Mapping[str, Mapping[str, Any]],
    moments: Sequence[int],
    *,
    past: bool = False,
) -> int:
    """What is kept is what the naive reference computes from all events; returns the number of values."""
    stored: Stored = await read_stored(db, workspace_id)
    people = await people_of(db, workspace_id)
    values = ComputedValues(db)
    parsed = {trait_id: parse_definition(json.dumps(d)) for trait_id, d in definitions.items()}
    number = 0
    for moment in moments:
        read = values.values_at if past else values.values
        found = await read(workspace_id, people, moment)
        assert found.keys() == people.keys()
        for person, parts in people.items():
            events = [r.event for r in stored.events if r.profile_id in parts]
            by_id = {v.computed_trait_id: v for v in found[person]}
            assert by_id.keys() <= parsed.keys()
            for trait_id, definition in parsed.items():
                expected = reference.compute(definition, events, moment)
                kept = by_id[trait_id].value if trait_id in by_id else b""
                assert reference.same(kept, expected), (definition, moment, kept, expected)
                number += bool(kept)
    return number
