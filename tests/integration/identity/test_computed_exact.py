"""Computed traits: what is kept is what follows from all events, for random definitions, histories and moments."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from headrace_identity.computed import summaries
from headrace_identity.computed.store import ComputedTraitStore
from headrace_identity.worker import Incoming, Worker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.domain.computed_traits import reference
from headrace.domain.times import DAY_US, now_us, parse_duration_us
from headrace.storage.mongo.client import Database
from tests.support import computed
from tests.support.computed import assert_exact, definitions, fill, identifiers, offsets_us, properties, track

_workspaces = count()


@pytest.mark.parametrize("limits", ["ordinary", "tiny"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
async def test_kept_values_equal_the_reference(
    db: Database, monkeypatch: pytest.MonkeyPatch, limits: str, data: Any
) -> None:
    if limits == "tiny":  # nearly every summary of values is too large to be kept, and lists are cut
        monkeypatch.setattr(summaries, "MOST_COUNTED", 1)
        monkeypatch.setattr(summaries, "LARGEST_STORED", 6)
        monkeypatch.setattr(summaries, "MOST_LISTED", 2)
        monkeypatch.setattr(reference, "LONGEST_LIST", 2)
    workspace_id = f"w{next(_workspaces)}"
    now = now_us()
    midnight = now - now % DAY_US
    traits: dict[str, Any] = {
        f"t{i}": d for i, d in enumerate(data.draw(st.lists(definitions, min_size=1, max_size=4), label="definitions"))
    }
    history = data.draw(
        st.lists(
            st.tuples(offsets_us, st.booleans(), st.sampled_from(computed.NAMES[:2]), properties, identifiers),
            min_size=1,
            max_size=12,
        ),
        label="history",
    )
    events = [
        track(f"m{i}", (midnight if exact else now) + offset, p, workspace_id=workspace_id, name=name, who=who)
        for i, (offset, exact, name, p, who) in enumerate(history)
    ]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(events)), max_size=4), label="cuts"))
    batches = [events[i:j] for i, j in zip([0, *cuts], [*cuts, len(events)], strict=True) if i < j]
    defined_at = [data.draw(st.integers(0, len(batches)), label=f"{t} defined at") for t in traits]
    store, worker = ComputedTraitStore(db), Worker(db)
    for place in range(len(batches) + 1):
        for (trait_id, definition), at in zip(traits.items(), defined_at, strict=True):
            if at == place:
                await store.create(workspace_id, trait_id, "", json.dumps(definition).encode())
        if data.draw(st.booleans(), label="fill now"):
            await fill(db, most_parts=1)
        if place < len(batches):
            batch = batches[place] + events[: data.draw(st.integers(0, 2), label="repeated")]
            await worker.process(workspace_id, [Incoming(e, "s", i) for i, e in enumerate(batch)])
    await fill(db)
    windows = [parse_duration_us(d["within"]) for d in traits.values() if "within" in d] or [0]
    edges = [e.timestamp_us + w + u for e in events for w in (0, *windows) for u in (-1, 0)]
    present = data.draw(st.lists(st.sampled_from([e for e in edges if e >= now] or [now]), max_size=5), label="moments")
    past = data.draw(st.lists(st.sampled_from([e for e in edges if e < now] or [now]), max_size=2), label="past")
    await assert_exact(db, workspace_id, traits, [now, *present])
    await assert_exact(db, workspace_id, traits, past, past=True)
