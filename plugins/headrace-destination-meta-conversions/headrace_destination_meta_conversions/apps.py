"""What Meta wants to know of an app and its device, from the context of Segment's mobile spec.

https://developers.facebook.com/documentation/ads-commerce/conversions-api/parameters/app-data
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace_sdk import RecordRejected
from headrace_sdk.commerce import text

_VERSIONS = {"android": "a2", "ios": "i2", "ipados": "i2", "iphone os": "i2"}


def app_data(context: Mapping[str, Any], tracking_allowed: bool | None) -> dict[str, Any]:
    """The app_data of an app event.

    Args:
        context: The event's context.
        tracking_allowed: Whether the person allowed tracking; None when nobody said, which is no permission.

    Raises:
        RecordRejected: The system is none that Meta knows, or its version is not said.
    """
    device, system = _part(context, "device"), _part(context, "os")
    version = _VERSIONS.get(text(device.get("type")).lower()) or _VERSIONS.get(text(system.get("name")).lower())
    if version is None:
        raise RecordRejected("an app event needs context.device.type or context.os.name, ios or android")
    if not text(system.get("version")):
        raise RecordRejected("an app event needs context.os.version")
    allowed = 1 if tracking_allowed else 0
    return {
        "advertiser_tracking_enabled": allowed,
        "application_tracking_enabled": allowed,
        "extinfo": _extinfo(version, context),
    }


def _extinfo(version: str, context: Mapping[str, Any]) -> list[str]:
    """Sixteen texts, all of which must be there, empty where unknown."""
    app, device, screen = _part(context, "app"), _part(context, "device"), _part(context, "screen")
    return [
        version,
        text(app.get("namespace")),
        text(app.get("build")),
        text(app.get("version")),
        text(_part(context, "os").get("version")),
        text(device.get("model")),
        text(context.get("locale")),
        "",  # abbreviation of the time zone
        text(_part(context, "network").get("carrier")),
        text(screen.get("width")),
        text(screen.get("height")),
        text(screen.get("density")),
        "",  # number of processors
        "",  # size of the disk
        "",  # free space of the disk
        text(context.get("timezone")),
    ]


def _part(context: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = context.get(name)
    return found if isinstance(found, Mapping) else {}
