"""What this plugin offers to Headrace."""

from __future__ import annotations

from collections.abc import Sequence

from headrace_destination_customer_io.destination import MANIFEST
from headrace_sdk import Manifest, hookimpl


@hookimpl
def headrace_connectors() -> Sequence[Manifest]:
    """The Customer.io destination."""
    return [MANIFEST]
