"""What changing an audience does, as the command line says it: whom a new definition moves, and who goes by it."""

from __future__ import annotations

from typing import Any

from headrace.cli.command import DEFAULT_LIMIT
from headrace.cli.platform import Platform, listed
from headrace.cli.problems import CommandFailed

UNTOLD = (
    "Whom the new definition moves could not be found in time: once it is computed it waits for `confirm` or `discard`."
)


def moved(change: Any) -> str:
    """How many people a new definition moves, an AudienceChange; of an estimate with the intervals."""
    enter, leave, stay = (
        f"about {size:,} ({low:,} to {high:,})" if change.estimate else f"{size:,}"
        for size, low, high in (
            (change.enter, change.enter_low, change.enter_high),
            (change.leave, change.leave_low, change.leave_high),
            (change.stay, change.stay_low, change.stay_high),
        )
    )
    of = f", estimated from {change.sampled_people:,} people" if change.estimate else ""
    return f"{enter} enter, {leave} leave and {stay} stay{of}"


def difference(change: Any) -> str:
    """What a new definition does, in a sentence."""
    after = "it waits for `confirm` or `discard`" if change.needs_confirmation else "it takes effect by itself"
    return f"By the new definition {moved(change)}; once it is computed {after}."


def told(answer: Any) -> str:
    """What the answer of an update with a definition says of whom it moves; empty when nobody is moved by it."""
    if answer.HasField("change"):
        return difference(answer.change)
    return UNTOLD if answer.audience.HasField("pending_version") else ""


def what_waits(audience: Any) -> str:
    """What is to be known of a new version that waits for somebody; empty when there is none."""
    version = audience.pending_version
    if not audience.HasField("pending_version") or not version.needs_confirmation:
        return ""
    says = f": {moved(version.change)}" if version.HasField("change") else ""
    return f"its new definition waits for `headrace audiences confirm` or `discard`{says}"


async def check_no_syncs(platform: Platform, name: str, way_on: str = "Delete them first, or add --force") -> None:
    """Refuse to take away an audience by which syncs go; the audience service does not know them.

    Args:
        platform: The platform.
        name: Resource name of the audience.
        way_on: What can be done about it.

    Raises:
        CommandFailed: Syncs go by it.
    """
    from headrace.api.sync.v1.sync_service_pb2 import ListSyncsRequest

    stub, parent = platform.syncs, platform.parent
    syncs = await listed(
        lambda size, token: stub.ListSyncs(ListSyncsRequest(parent=parent, page_size=size, page_token=token)),
        "syncs",
        limit=DEFAULT_LIMIT,
        everything=True,
    )
    if users := sorted(sync.name for sync in syncs if sync.audience == name):
        raise CommandFailed(
            f"{name} is used by {', '.join(users)}: its members would leave, and be taken off their lists. {way_on}"
        )
