"""People in bulk: as many as wanted, stored in the form in which identity stores them, without resolving one by one."""

from __future__ import annotations

from collections.abc import Sequence

from headrace_identity.documents import identifier_key, profile_document
from headrace_identity.resolving.graph import Changes, Graph
from headrace_identity.resolving.resolver import prepare, resolve
from headrace_identity.resolving.rules import DEFAULT_RULES, Identifier
from headrace_identity.store import IDENTIFIERS, PROFILES
from headrace_identity.worker import Incoming, Worker
from pymongo.write_concern import WriteConcern

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.domain.ids import event_key, profile_id
from headrace.domain.times import SECOND_US
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document

WORKSPACE = "bench"
START_US = 1_767_225_600 * SECOND_US
_CHUNK = 5_000
_COLLECTIONS = (PROFILES, IDENTIFIERS, log.EVENTS)


def identifiers_of(person: int) -> tuple[Identifier, Identifier]:
    """The identifiers of a person."""
    return ("email", f"person-{person}@shop.example"), ("anonymous_id", f"browser-{person}")


def first_event(person: int, workspace_id: str = WORKSPACE) -> Event:
    """The event that created a person."""
    return Event(
        message_id=f"first-{person:09d}",
        workspace_id=workspace_id,
        source_id="bench",
        kind=EventKind.EVENT_KIND_IDENTIFY,
        identifiers=[IdentifierMessage(namespace=n, value=v) for n, v in identifiers_of(person)],
        traits=b'{"plan": "gold", "visits": %d}' % person,
        received_at_us=START_US,
        timestamp_us=START_US + person,
    )


async def fill(db: Database, people: range) -> None:
    """Store people who are not stored yet, each with the event that created them."""
    for start in range(people.start, people.stop, _CHUNK):
        events = [first_event(n) for n in range(start, min(start + _CHUNK, people.stop))]
        for collection, documents in zip(
            _COLLECTIONS, _documents(events, first_sequence=START_US + start), strict=True
        ):
            # Nothing of this has to survive a crash.
            quick = db.get_collection(collection, write_concern=WriteConcern(w=1, j=False))
            await quick.insert_many(documents, ordered=False)


def _documents(events: Sequence[Event], first_sequence: int) -> tuple[list[Document], list[Document], list[Document]]:
    """What is stored of events of which each is somebody's first: profiles, identifiers, events."""
    graph, changes = Graph(), Changes()
    stored = []
    for sequence, event in enumerate(events, start=first_sequence):
        resolution = resolve(graph, DEFAULT_RULES, prepare(event, DEFAULT_RULES), sequence, changes)
        stored.append(
            log.event_document_of(
                event,
                event.SerializeToString(),
                profile_id=resolution.profile_id,
                sequence=sequence,
                decision=resolution.decision.SerializeToString(),
                resolved_at_us=sequence,
                segment_id="segment",
                segment_index=0,
                linked=log.linked_of(resolution.decision),
            )
        )
    workspace_id = events[0].workspace_id
    profiles = [profile_document(workspace_id, profile) for profile in graph.profiles.values()]
    identifiers = [{"_id": identifier_key(workspace_id, i), "p": holder} for i, holder in graph.holders.items()]
    return profiles, identifiers, stored


async def check_form(db: Database) -> None:
    """Make sure that what `fill` stores is what the service stores for the same event.

    Raises:
        AssertionError: They differ.
    """
    workspace_id = f"{WORKSPACE}-form"
    event = first_event(1, workspace_id)
    await Worker(db).process(workspace_id, [Incoming(event, "segment", 0)])
    keys = [
        {f"{workspace_id}\x1f{profile_id(workspace_id, event.message_id)}"},
        {identifier_key(workspace_id, i) for i in identifiers_of(1)},
        {event_key(workspace_id, event.message_id)},
    ]
    served = [
        {d["_id"]: d async for d in db[collection].find({"_id": {"$in": sorted(of_it)}})}
        for collection, of_it in zip(_COLLECTIONS, keys, strict=True)
    ]
    stored = next(iter(served[2].values()))
    built = _documents([event], first_sequence=stored["s"])
    built[2][0]["r"] = stored["r"]  # when it was resolved is its own
    assert [{d["_id"]: d for d in documents} for documents in built] == served
