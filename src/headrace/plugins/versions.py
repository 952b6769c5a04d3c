"""Versions of vendors' APIs: what there is to say about the one that a destination has set. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from headrace.connector import wire
from headrace.domain.times import SECOND_US

WARN_DAYS = 60
"""Days before the end of a version from which on it is warned of."""


def version_remark(info: wire.ConnectorInfo, settings: Mapping[str, Any], now_us: int) -> str:
    """What to say about the version of the vendor's API that the settings choose; empty when there is nothing to say.

    Args:
        info: The connector, whose manifest names the setting and the known ends.
        settings: The destination's settings; without the setting its default holds.
        now_us: The clock, in microseconds since 1970 UTC.
    """
    versions = info.versions
    if versions is None:
        return ""
    version = settings.get(versions.setting) or info.default_of(versions.setting)
    end = versions.end_of(version) if isinstance(version, str) else None
    if end is None:
        return ""
    left = (end - datetime.fromtimestamp(now_us / SECOND_US, UTC).date()).days
    if left > WARN_DAYS:
        return ""
    stops = "stopped" if left <= 0 else "stops"
    return f"{info.title}: the vendor {stops} answering version {version} on {end}: set a newer {versions.setting}"

