"""What this plugin offers to Headrace."""

from __future__ import annotations

from collections.abc import Sequence

from headrace_destination_bigquery.destination import MANIFEST
from headrace_sdk import Manifest, hookimpl


@hookimpl
def headrace_connectors() -> Sequence[Manifest]:
    """The BigQuery destination."""
    return [MANIFEST]
