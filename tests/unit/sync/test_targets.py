"""Which list a sync fills, and what its rows go by."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from headrace_sync.config import DestinationConfig, SyncConfig
from headrace_sync.lists.diff import HeldRow, MemberRecord, RowState, difference, intend, leave_behind
from headrace_sync.lists.targets import (
    Change,
    RowsBy,
    brought_together,
    list_of,
    other_of_list,
    place_of,
    problem_with_list,
    rows_by,
    with_list,
)
from pydantic import BaseModel, SecretStr

from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.connector.wire import ConnectorInfo, describe
from headrace_sdk import ApiVersions, Capability, Manifest


class TextSettings(BaseModel):
    audience_id: str = "7"
    version: str = "v1"
    token: SecretStr = SecretStr("")
    key_type: str = "email"


class NumberSettings(BaseModel):
    sheet_id: int


def info(settings: type[BaseModel] = TextSettings, setting: str = "audience_id") -> ConnectorInfo:
    versions = ApiVersions(setting="version", ends={}) if settings is TextSettings else None
    return describe(
        Manifest(
            name="acme", title="Acme", factory="acme:Acme", settings=settings, list_setting=setting, versions=versions,
            capabilities=frozenset({Capability.LIST_SYNC}),
        )
    )  # fmt: skip


def destination(revision: int = 1, **settings: Any) -> DestinationConfig:
    return DestinationConfig(
        key="w\x1fd", workspace_id="w", id="d", display_name="D", connector="acme", sealed="",
        masked=json.dumps(settings), state=1, state_reason="", created_us=1, updated_us=1, revision=revision,
    )  # fmt: skip


def sync(id: str, list_id: str = "", **more: Any) -> SyncConfig:
    fields: dict[str, Any] = {
        "kind": SyncKind.SYNC_KIND_LIST, "mapping": "", "revision": 1, "display_name": id, "destination_id": "d",
        "audience_id": "a", "event_names": (), "send_removals": False, "paused": False, "created_us": 1,
        "updated_us": 1, "changed_us": 0, **more,
    }  # fmt: skip
    return SyncConfig(doc_id=f"w\x1f{id}", key=id, workspace_id="w", id=id, list_id=list_id, **fields)


def of(target: SyncConfig, where: DestinationConfig, about: ConnectorInfo | None = None) -> RowsBy:
    place = place_of(about or info(), where)
    return rows_by(target, dataclasses.replace(place, list_id=target.list_id or place.list_id))


def test_a_sync_fills_its_own_list_or_that_of_the_settings() -> None:
    assert list_of(info(), destination(audience_id="1"), sync("a")) == "1"
    assert list_of(info(), destination(audience_id="1"), sync("a", "2")) == "2"
    assert list_of(info(), destination(), sync("a")) == "7"
    numbered = info(NumberSettings, "sheet_id")
    assert list_of(numbered, destination(sheet_id=0), sync("a")) == "0"
    assert with_list(numbered, {"sheet_id": 0}, "12") == {"sheet_id": 12}
    assert with_list(info(), {"audience_id": "1", "key_type": "x"}, "12") == {"audience_id": "12", "key_type": "x"}


@pytest.mark.parametrize(
    ("setting", "list_id", "works"),
    [
        ("audience_id", "x y", True),
        ("audience_id", " x", False),
        ("audience_id", "x\n", False),
        ("audience_id", "x" * 256, False),
        ("sheet_id", "12", True),
        ("sheet_id", "012", False),
        ("sheet_id", "-1", False),
        ("sheet_id", "\u0661", False),
        ("", "12", False),
    ],
)
def test_what_can_name_a_list(setting: str, list_id: str, works: bool) -> None:
    settings = NumberSettings if setting == "sheet_id" else TextSettings
    assert (problem_with_list(info(settings, setting), list_id) == "") is works


def test_two_syncs_of_the_same_list_are_found() -> None:
    where = destination(audience_id="1")
    event = sync("event", kind=SyncKind.SYNC_KIND_EVENT)
    first, second, third = sync("first"), sync("second", "2"), sync("third", "1")
    everybody = [event, first, second]
    assert other_of_list(info(), where, third, everybody) is first
    assert other_of_list(info(), where, sync("second"), everybody) is first
    assert other_of_list(info(), where, second, everybody) is None
    assert other_of_list(info(), where, sync("third", "3"), everybody) is None
    assert other_of_list(info(setting=""), where, sync("fourth"), everybody) is first
    assert brought_together(info(), where, everybody) is None
    assert brought_together(info(), destination(audience_id="2"), everybody) == (first, second)
    assert brought_together(info(), destination(audience_id="2"), [second]) is None


def test_what_changes_the_rows() -> None:
    before = of(sync("a"), destination(audience_id="1", key_type="email", version="v1", token="*"))
    stored = before.document()

    def after(target: SyncConfig, **settings: Any) -> Change:
        return of(target, destination(audience_id="1", **settings)).change_since(stored)

    same: dict[str, Any] = {"key_type": "email", "version": "v1", "token": "*"}
    assert before.change_since(None) is Change.NONE
    assert after(sync("a"), **same) is Change.NONE
    assert after(sync("a", schedule="6h"), **same) is Change.NONE
    assert after(sync("a", "1"), **same) is Change.NONE
    assert after(sync("a"), **{**same, "version": "v2"}) is Change.NONE
    assert after(sync("a", mapping="{}"), **same) is Change.MAPPING
    assert after(sync("a", identifier_values=1), **same) is Change.MAPPING
    assert after(sync("a", mapping="{}"), **{**same, "key_type": "phone"}) is Change.SETTINGS
    assert after(sync("a", "2"), **{**same, "key_type": "phone"}) is Change.LIST
    assert of(sync("a"), destination(audience_id="2", **same)).change_since(stored) is Change.LIST
    assert of(sync("a", "1"), destination(audience_id="2", **same)).change_since(stored) is Change.NONE


def test_who_knows_less_waits() -> None:
    stored = of(sync("a", revision=3), destination(5)).document()
    assert of(sync("a", revision=2), destination(6)).is_older_than(stored)
    assert of(sync("a", revision=4), destination(4)).is_older_than(stored)
    assert not of(sync("a", revision=3), destination(5)).is_older_than(stored)
    assert not of(sync("a", revision=1), destination(1)).is_older_than(None)


def test_rows_that_are_elsewhere_are_added_here() -> None:
    record = MemberRecord("p", desired=True, rows={"a": HeldRow("a", RowState.ACKNOWLEDGED)})
    leave_behind(record)
    found = difference(record, {"a": "a"})
    assert found.add == {"a": "a"}
    assert intend(record, found.add)
    assert record.rows["a"].state is RowState.SENT
