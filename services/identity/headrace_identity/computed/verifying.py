"""Checking a kept value against the one that follows from the events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.times import now_us
from headrace.rpc.errors import wrong_state
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, transaction
from headrace_identity.computed import reference
from headrace_identity.computed.reading import ComputedValues
from headrace_identity.computed.store import ComputedTraitStore, compiled
from headrace_identity.computed.traits import ComputedTraits


class Verified(NamedTuple):
    """The kept value and the computed one as JSON, empty for none, and the moment for which both hold."""

    kept: bytes
    computed: bytes
    at_us: int


async def verify(
    db: Database,
    store: ComputedTraitStore,
    values: ComputedValues,
    workspace_id: str,
    trait_id: str,
    parts: Sequence[str],
) -> Verified:
    """Compute the value for a person from all their events, beside the kept one: both of one moment and one snapshot.

    Args:
        db: Database.
        store: Where the definition is.
        values: Reads what is kept.
        workspace_id: The workspace.
        trait_id: The computed trait.
        parts: All parts of the person.

    Returns:
        Equal values as equal bytes.

    Raises:
        ApiError: NOT_FOUND, or WRONG_STATE while it is filling.
    """
    async with transaction(db.client) as session:
        trait = compiled(await store.get(workspace_id, trait_id, session))
        if not trait.ready:
            raise wrong_state("FILLING", "The computed trait is being filled: there is nothing to compare yet.")
        at_us = now_us()
        traits = ComputedTraits([trait])
        found = (await values.values(workspace_id, {"": parts}, at_us, session, traits=traits))[""]
        query = {"p": {"$in": list(parts)}, "w": workspace_id}
        events = [Event.FromString(d["e"]) async for d in db[log.EVENTS].find(query, {"e": 1}, session=session)]
    computed = reference.compute(trait.definition, events, at_us)
    kept = found[0].value if found else b""
    # Numbers can be written in more than one way: what is equal is shown in the same way.
    return Verified(kept, kept if reference.same(kept, computed) else reference.as_json(computed), at_us)
