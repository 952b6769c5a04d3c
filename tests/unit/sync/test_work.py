"""Deliveries as they are planned."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from headrace_sync.config import SyncConfig
from headrace_sync.deliveries.work import event_sync_document
from headrace_sync.store import FILTERED, WAITING

from headrace.api.audience.v1.audience_pb2 import MembershipChange
from headrace.api.common.v1.event_pb2 import Event
from headrace.api.sync.v1.sync_service_pb2 import SyncKind

SYNC = SyncConfig(
    doc_id="acme\x1fs",
    key="k",
    workspace_id="acme",
    id="s",
    display_name="S",
    kind=SyncKind.SYNC_KIND_EVENT,
    destination_id="d",
    audience_id="buyers",
    event_names=(),
    mapping="",
    send_removals=False,
    paused=False,
    created_us=0,
    updated_us=0,
    changed_us=0,
    revision=1,
)


def change(**more: Any) -> MembershipChange:
    values: dict[str, Any] = {
        "audience_id": "buyers",
        "profile_id": "p",
        "member": True,
        "version": 1,
        "effective_at_us": 1_000_000,
    }
    return MembershipChange(**{**values, **more})


def test_an_entry_is_an_event_of_its_moment() -> None:
    document = event_sync_document(SYNC, "acme", change(), 5)
    event = Event.FromString(document["e"])
    assert (document["st"], document["na"], document["c"]) == (WAITING, 5, 5)
    assert (event.name, event.timestamp_us, event.message_id) == ("added_to_segment", 1_000_000, document["m"])
    assert msgspec.json.decode(event.properties)["since"] == "1970-01-01T00:00:01Z"


@pytest.mark.parametrize("cause", ["fill", "definition", "reconciled"])
def test_what_comes_of_no_event_and_no_time_happens_when_it_is_found(cause: str) -> None:
    document = event_sync_document(SYNC, "acme", change(cause=cause), 5_000_000)
    event = Event.FromString(document["e"])
    assert event.timestamp_us == event.original_timestamp_us == 5_000_000, "vendors refuse what is old"
    assert msgspec.json.decode(event.properties)["since"] == "1970-01-01T00:00:01Z"


def test_exits_are_filtered_unless_wanted_and_merges_always() -> None:
    left = event_sync_document(SYNC, "acme", change(member=False), 5)
    assert (left["st"], left["r"]) == (FILTERED, "removals_off")
    assert "na" not in left
    wanting = dataclasses.replace(SYNC, send_removals=True)
    assert event_sync_document(wanting, "acme", change(member=False), 5)["st"] == WAITING
    merged = event_sync_document(wanting, "acme", change(member=False, merged_into="q"), 5)
    assert (merged["st"], merged["r"]) == (FILTERED, "merged")
