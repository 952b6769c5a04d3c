"""What a reassignment is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.storage.mongo.client import Session
from headrace.storage.mongo.log import Reassigned
from headrace_identity.resolving.links import ManualLink
from headrace_identity.resolving.rules import Identifier, Rules


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a reassignment.

    Attributes:
        epoch: Epoch of the workspace from which it holds.
        moved_events: Number of events that belong to another profile (survivor) than before.
        holders: Who holds each of the change's identifiers now (survivor); those that nobody holds are left out.
        affected: Every profile id for which something changed, with what became of it.
        changed: Whether anything about anybody changed, which raises the epoch by one.
    """

    epoch: int
    moved_events: int
    holders: Mapping[Identifier, str]
    affected: Sequence[Reassigned] = ()
    changed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of what events are resolved by, and whom it concerns.

    Whoever is concerned is found from the seeds: everybody who is tied to them by any event, and all their events.

    Attributes:
        identifiers: Seeds: normalised identifiers.
        profiles: Seeds: ids of profiles or parts.
        messages: Seeds: message ids of stored events, for events that belong to nobody.
        add_links: Manual links to be stored; they are seeds too. They must not contradict each other.
        remove_links: Ids of manual links to be removed; they are seeds too. Unknown ones are passed over.
        rules_of: Version and rules by which an event is resolved anew; None means those by which it was resolved.
            Called often: look up, do not compute.
        write: Writes the rest of the change, in the same transaction, after everything else of the reassignment was
            written and before it is committed. May be called more than once, each time in another transaction.
        most_events: Budget of events; None means the setting `identity_reassign_events`.
    """

    identifiers: Collection[Identifier] = ()
    profiles: Collection[str] = ()
    messages: Collection[str] = ()
    add_links: Sequence[ManualLink] = ()
    remove_links: Collection[str] = ()
    rules_of: Callable[[ResolvedEvent], tuple[int, Rules]] | None = None
    write: Callable[[Session, Outcome], Awaitable[None]] | None = None
    most_events: int | None = None
