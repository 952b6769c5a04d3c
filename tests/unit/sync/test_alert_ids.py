"""Which alerts are the same."""

from __future__ import annotations

from dataclasses import replace

from headrace_sync.alerts.sender import unauthorized
from headrace_sync.config import DestinationConfig, key_of

DESTINATION = DestinationConfig(
    key=key_of("w", "crm"),
    workspace_id="w",
    id="crm",
    display_name="CRM",
    connector="webhook",
    sealed="",
    masked="{}",
    state=1,
    state_reason="",
    created_us=1_000_000,
    updated_us=1_000_000,
    revision=1,
)


def test_a_destination_that_is_stopped_is_told_of_once_a_revision() -> None:
    first, again = unauthorized(DESTINATION, "401"), unauthorized(DESTINATION, "401")
    assert first.id == again.id and first.resource == DESTINATION.name
    assert unauthorized(replace(DESTINATION, revision=2), "401").id != first.id


def test_a_destination_that_is_made_anew_is_another() -> None:
    made_anew = replace(DESTINATION, created_us=2_000_000, updated_us=2_000_000)
    assert unauthorized(made_anew, "401").id != unauthorized(DESTINATION, "401").id
