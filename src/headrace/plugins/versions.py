"""Versions of vendors' APIs: what there is to say about the one that a destination has set. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headrace.connector import wire
from headrace.domain.times import SECOND_US

WARN_DAYS = 60
"""Days before the end of a version from which on it is warned of."""


@dataclass(frozen=True, slots=True)
class VersionRemark:
    """What there is to say about a version.

    Attributes:
        text: A sentence; empty when there is nothing to say.
        warns: True when something is to be done.
    """

    text: str = ""
    warns: bool = False


def version_remark(info: wire.ConnectorInfo, settings: Mapping[str, Any], now_us: int) -> VersionRemark:
    """What to say about the version of the vendor's API that the settings choose.

    Args:
        info: The connector, whose manifest names the setting and the known ends.
        settings: The destination's settings; without the setting its default holds.
        now_us: The clock, in microseconds since 1970 UTC.

    Returns:
        A warning when the version ends within `WARN_DAYS` or has ended; a remark when its end is not known.
    """
    versions = info.versions
    if versions is None:
        return VersionRemark()
    version = settings.get(versions.setting) or info.default_of(versions.setting)
    end = versions.end_of(version) if isinstance(version, str) else None
    if end is None:
        return VersionRemark(f"the end of version {version} is not known to this version of the connector")
    left = (end - datetime.fromtimestamp(now_us / SECOND_US, UTC).date()).days
    if left > WARN_DAYS:
        return VersionRemark()
    stops = "stopped" if left <= 0 else "stops"
    said = f"the vendor {stops} answering version {version} on {end}: set a newer {versions.setting}"
    return VersionRemark(f"{info.title}: {said}", warns=True)
