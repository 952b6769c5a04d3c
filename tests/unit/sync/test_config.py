from __future__ import annotations

import dataclasses

import pytest
from headrace_sync.config import SyncConfig

from headrace.api.sync.v1.sync_service_pb2 import SyncKind


def _sync(*event_names: str) -> SyncConfig:
    return SyncConfig(
        doc_id="acme\x1fpurchases",
        key="k",
        workspace_id="acme",
        id="purchases",
        display_name="Purchases",
        kind=SyncKind.SYNC_KIND_FORWARDING,
        destination_id="hook",
        audience_id="",
        event_names=event_names,
        mapping="",
        send_removals=False,
        paused=False,
        created_us=1,
        updated_us=1,
        changed_us=0,
        revision=1,
    )


@pytest.mark.parametrize("name", ["Purchased", "Order Completed", "order_completed"])
def test_a_standard_name_means_the_same_event_in_any_spelling(name: str) -> None:
    assert "Purchased" in _sync(name).forwarding.event_names


def test_a_sync_keeps_that_it_takes_offline_events_alone() -> None:
    sync = dataclasses.replace(_sync(), offline_only=True)
    assert SyncConfig.from_document(sync.document()) == sync
    assert sync.forwarding.offline_only and not _sync().forwarding.offline_only
    stored_before = {name: value for name, value in _sync().document().items() if name != "offline_only"}
    assert SyncConfig.from_document(stored_before) == _sync()


def test_the_names_are_kept_as_they_were_written() -> None:
    sync = _sync("Order Completed")
    assert SyncConfig.from_document(sync.document()) == sync
    assert sync.event_names == ("Order Completed",)
    assert _sync().forwarding.event_names == frozenset()
