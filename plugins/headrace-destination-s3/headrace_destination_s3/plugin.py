"""What this plugin offers to Headrace."""

from __future__ import annotations

from collections.abc import Sequence

from headrace_destination_s3.destination import MANIFEST
from headrace_sdk import Manifest, hookimpl


@hookimpl
def headrace_connectors() -> Sequence[Manifest]:
    """The S3-compatible files destination."""
    return [MANIFEST]
