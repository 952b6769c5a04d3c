"""Which messages are refused because their person was deleted or suppressed.

Identity keeps the tombstones and has the last word. This follows them, one small call a second for all workspaces, so
that senders get a proper answer and nothing of the person is stored in the first place. While identity is away what was
known last holds, and events are taken as ever.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.api.identity.v1.profile_service_pb2 import FollowTombstonesRequest, FollowTombstonesResponse, Refusals
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.domain.identifiers import ANONYMOUS_ID, CLICK_ID_NAMESPACES, USER_ID, normalise
from headrace.domain.times import SECOND_US
from headrace.domain.tombstones import TOMBSTONE_KEY_PLACE, digest_of, refuses
from headrace.storage.sealing import Sealer
from headrace.telemetry.logs import get_logger
from headrace_ingest.mentions import possible_identifiers

log = get_logger(__name__)

_ALIAS = EventKind.EVENT_KIND_ALIAS
_MARGIN_US = 30 * SECOND_US
"""A tombstone may appear this long after its sequence was reserved."""
_CALL_S = 10.0
_MOST_POSSIBLE = 10_000


@dataclass(slots=True)
class _Marks:
    """The tombstones of a workspace: its key, and the digests of its deleted and suppressed people."""

    key: bytes
    own: set[bytes] = field(default_factory=set)
    shared: set[bytes] = field(default_factory=set)


class Tombstones:
    """Knows the tombstones of all workspaces."""

    def __init__(self, identity: grpc.aio.Channel, sealer: Sealer, *, every_s: float) -> None:
        """Follow identity.

        Args:
            identity: Channel to identity, with the service token.
            sealer: Opens the keys of workspaces.
            every_s: How often to ask, in seconds.
        """
        self._stub = ProfileServiceStub(identity)
        self._sealer = sealer
        self._every_s = every_s
        self._marks: dict[str, _Marks] = {}
        self._from = 0
        self._refused: Counter[str] = Counter()
        self._away = False

    def refuses(self, event: Event) -> bool:
        """Whether the event's person was deleted or suppressed; an event that is refused is counted."""
        marks = self._marks.get(event.workspace_id)
        if marks is None or not (marks.own or marks.shared):
            return False
        key = marks.key
        named = [
            [digest_of(key, i.namespace, form) for form in forms_of(i.namespace, i.value)]
            for i in event.identifiers
            if i.namespace not in CLICK_ID_NAMESPACES
        ]
        refused = refuses(named, marks.own, marks.shared)
        if not refused and event.kind == _ALIAS and event.previous_id:
            before = (digest_of(key, namespace, event.previous_id) for namespace in (USER_ID, ANONYMOUS_ID))
            refused = not marks.own.isdisjoint(before)
        if refused:
            self._refused[event.workspace_id] += 1
        return refused

    def speaks_of(self, workspace_id: str, body: bytes) -> bool:
        """Whether a body that is to be kept as it came speaks of a deleted or suppressed person.

        Where there are no tombstones it costs nothing; else it is for what is rarely kept: refused messages, and raw
        bodies of webhooks.
        """
        marks = self._marks.get(workspace_id)
        if marks is None or not marks.own:
            return False
        return any(
            digest_of(marks.key, namespace, form) in marks.own
            for namespace, value in possible_identifiers(body, _MOST_POSSIBLE)
            for form in forms_of(namespace, value)
        )

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self.follow()
            except grpc.aio.AioRpcError as error:
                if not self._away:
                    log.warning("identity does not tell its tombstones: those known last hold", failure=error)
                self._away = True
            else:
                self._away = False
            await asyncio.sleep(self._every_s)

    async def follow(self) -> None:
        """Ask once for what changed, and tell what was refused since.

        Raises:
            grpc.aio.AioRpcError: Identity does not answer; the next call asks for the same.
        """
        refused, self._refused = self._refused, Counter()
        request = FollowTombstonesRequest(
            from_sequence=self._from,
            refusals=[Refusals(workspace_id=workspace_id, count=count) for workspace_id, count in refused.items()],
        )
        try:
            page = await self._stub.FollowTombstones(request, timeout=_CALL_S)
        except grpc.aio.AioRpcError:
            self._refused.update(refused)
            raise
        reached = page.sequence
        self._take(page)
        while page.next_page_token:
            request = FollowTombstonesRequest(from_sequence=self._from, page_token=page.next_page_token)
            page = await self._stub.FollowTombstones(request, timeout=_CALL_S)
            self._take(page)
        self._from = max(self._from, reached - _MARGIN_US)

    def _take(self, page: FollowTombstonesResponse) -> None:
        for key in page.keys:
            if key.workspace_id not in self._marks:
                text = self._sealer.open(key.sealed_key, f"{TOMBSTONE_KEY_PLACE}\x1f{key.workspace_id}")
                self._marks[key.workspace_id] = _Marks(base64.b64decode(text))
        for tombstone in page.tombstones:
            marks = self._marks[tombstone.workspace_id]
            marks.own.discard(tombstone.digest)
            marks.shared.discard(tombstone.digest)
            if not tombstone.lifted:
                (marks.shared if tombstone.shared else marks.own).add(tombstone.digest)


def forms_of(namespace: str, value: str) -> Iterator[str]:
    """The forms in which an identifier may stand in tombstones: as it came, and the normal one, where that can be told.

    A phone number without a country code has none here: it depends on the workspace's rules, which identity has.
    """
    trimmed = value.strip()
    yield trimmed
    normal = normalise(namespace, trimmed, None)
    if normal is not None and normal != trimmed:
        yield normal
