"""What is known of people's last visits, for events that no browser sends: click ids, address, user agent.

An event of an event sync happens in no browser, and of an anonymous person a vendor knows only the click that brought
them. So such an event carries what the person's own last events said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from pymongo import DESCENDING

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.identifiers import CLICK_ID_NAMESPACES
from headrace.storage.mongo.client import Database
from headrace.storage.mongo.log import EVENTS

_EVENTS_READ = 20
_AT_A_TIME = 16
_OF_A_BROWSER = frozenset({"fbp", "ttp", "ga_client_id", "anonymous_id"})
_CONTEXT = ("ip", "userAgent", "userAgentData", "locale", "campaign")


@dataclass(slots=True)
class Visit:
    """What a person's last events said.

    Attributes:
        identifiers: Click ids and ids of the browser by namespace, the newest of each.
        context: Address, user agent, language and campaign, of the newest event that has any.
    """

    identifiers: dict[str, list[str]] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)


def visit_of(events: Iterable[Event]) -> Visit:
    """What events of a person say, the newest first."""
    visit = Visit()
    for event in events:
        for identifier in event.identifiers:
            if identifier.namespace in CLICK_ID_NAMESPACES or identifier.namespace in _OF_A_BROWSER:
                visit.identifiers.setdefault(identifier.namespace, [identifier.value])
        if not visit.context and event.context:
            context = msgspec.json.decode(event.context, type=dict[str, Any])
            visit.context = {name: context[name] for name in _CONTEXT if context.get(name)}
    return visit


class Visits:
    """Reads the newest events of people in the log."""

    def __init__(self, db: Database) -> None:
        self._events = db[EVENTS]

    async def of(self, workspace_id: str, profile_ids: Iterable[str]) -> dict[str, Visit]:
        """The last visit of each profile, by its id.

        Raises:
            pymongo.errors.PyMongoError: The store does not answer.
        """
        at_a_time = asyncio.Semaphore(_AT_A_TIME)

        async def read(profile_id: str) -> Visit:
            async with at_a_time:
                query = {"p": profile_id, "w": workspace_id}
                order = [("t", DESCENDING), ("s", DESCENDING)]
                cursor = self._events.find(query, {"e": 1}).sort(order).limit(_EVENTS_READ)
                return visit_of([Event.FromString(d["e"]) async for d in cursor])

        ids = sorted({id for id in profile_ids if id})
        return dict(zip(ids, await asyncio.gather(*map(read, ids)), strict=True))
