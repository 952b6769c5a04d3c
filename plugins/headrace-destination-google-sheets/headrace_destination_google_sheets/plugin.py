"""What this plugin offers to Headrace."""

from __future__ import annotations

from collections.abc import Sequence

from headrace_destination_google_sheets.destination import MANIFEST
from headrace_sdk import Manifest, hookimpl


@hookimpl
def headrace_connectors() -> Sequence[Manifest]:
    """The Google Sheets destination."""
    return [MANIFEST]
