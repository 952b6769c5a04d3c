"""Events that were assigned to other profiles: by an undone merge, a manual link, a rebuild or a deletion.

Lists follow by themselves once their members are looked at again, because a pass compares what a profile has now with
what was acknowledged. Deliveries name the profile that their event belongs to, so that they are shown with the person
and a later try is made of the right one: they follow what the log says now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from headrace.api.identity.v1.profile_pb2 import Reassignment
from headrace.domain.times import now_us
from headrace.storage.mongo.log import StoredReassignment
from headrace_sync.deliveries.log_events import LogEvents
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.erasure.store import ErasureStore
from headrace_sync.ledger.accounts import Accounts
from headrace_sync.lists.store import ListStore
from headrace_sync.registry import Snapshot


class Reassigned:
    """Takes in reassignments; taking one in again changes nothing."""

    def __init__(
        self,
        *,
        lists: ListStore,
        deliveries: DeliveryStore,
        events: LogEvents,
        accounts: Accounts,
        erasures: ErasureStore,
        wake_list: Callable[[str], None],
        give_back: Callable[[str], None],
    ) -> None:
        """Wire it.

        Args:
            lists: Members of list syncs.
            deliveries: Deliveries.
            events: The log.
            accounts: What was counted of the log.
            erasures: What is known of people who are being deleted.
            wake_list: Tells that members of a list sync are to be looked at.
            give_back: Makes the worker of a destination key give back what it holds in memory.
        """
        self._lists = lists
        self._deliveries = deliveries
        self._events = events
        self._accounts = accounts
        self._erasures = erasures
        self._wake_list = wake_list
        self._give_back = give_back

    async def take(self, snapshot: Snapshot, workspace_id: str, profile_ids: Sequence[str], *, erased: bool) -> None:
        """Follow what became of profiles.

        Args:
            snapshot: The configuration.
            workspace_id: The workspace.
            profile_ids: Profiles that lost or got events, and their survivors.
            erased: True when the person was deleted: their events have left the log.
        """
        now = now_us()
        for sync in snapshot.lists.get(workspace_id, ()):
            if await self._lists.mark_dirty(sync.key, profile_ids, now=now):
                self._wake_list(sync.key)
        if erased:
            own = [s.key for s in snapshot.syncs.values() if s.workspace_id == workspace_id and not s.is_list]
            await self._erasures.events_removed(workspace_id, profile_ids, own)
            await self._accounts.count_again(workspace_id, snapshot.syncs.values())
            return
        moved = await self._deliveries.follow_profiles(workspace_id, profile_ids, self._events.profiles)
        for destination_key in moved:
            self._give_back(destination_key)


def profiles_of(reassignments: Iterable[Reassignment]) -> list[str]:
    """Ids of all profiles that reassignments name."""
    found: set[str] = set()
    for reassignment in reassignments:
        found |= {reassignment.profile_id, reassignment.survivor, *reassignment.parts}
    return sorted(found - {""})


def profiles_of_stored(stored: StoredReassignment) -> list[str]:
    """Ids of all profiles that a recorded reassignment names."""
    found: set[str] = set()
    for item in stored.items:
        found |= {item.profile_id, item.survivor, *item.parts}
    return sorted(found - {""})
