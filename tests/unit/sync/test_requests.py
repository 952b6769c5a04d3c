"""Masks, etags and settings of management calls."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from headrace_sync.calls.requests import changed_fields, check_etag, etag, settings_object

from headrace.rpc.errors import ApiError

CAN, FIXED = frozenset({"display_name", "paused"}), frozenset({"name", "kind"})


def test_without_a_mask_what_is_set_is_changed() -> None:
    assert changed_fields(FieldMask(), ["name", "paused"], CAN, FIXED) == {"paused"}


def test_a_mask_can_name_what_is_not_set() -> None:
    assert changed_fields(FieldMask(paths=["paused"]), ["name"], CAN, FIXED) == {"paused"}


@pytest.mark.parametrize(("path", "text"), [("kind", "cannot be changed"), ("colour", "no field")])
def test_other_paths_are_refused(path: str, text: str) -> None:
    with pytest.raises(ApiError, match=text):
        changed_fields(FieldMask(paths=[path]), [], CAN, FIXED)


def test_etags() -> None:
    check_etag("", 7)
    check_etag(etag(7), 7)
    with pytest.raises(ApiError):
        check_etag(etag(6), 7)


@pytest.mark.parametrize("text", ["[1]", "{", "null", '"secret-text"', "\ud800", "[" * 100_000, '{"a":' * 3_000])
def test_settings_that_are_no_object_are_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        settings_object("settings", text)
    assert "secret-text" not in caught.value.message


def test_settings_may_be_empty() -> None:
    assert settings_object("settings", "") == {}
