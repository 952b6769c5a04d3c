"""Names of the Redis streams and consumer groups: one place, so that lag can be watched by name."""

from __future__ import annotations

CHANGES = "headrace:changes"
"""MembershipChangeBatch, from audience to sync."""

IDENTITY_GROUP = "identity"
SYNC_GROUP = "sync"


def events(partition: int) -> str:
    """EventBatch of one partition of identity keys, from ingest to identity."""
    return f"headrace:events:{partition}"


def resolved(partition: int) -> str:
    """ResolvedBatch of one partition of profiles, from identity to audience and sync."""
    return f"headrace:resolved:{partition}"
