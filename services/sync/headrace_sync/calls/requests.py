"""Reading management calls: masks, etags, settings as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from google.protobuf.field_mask_pb2 import FieldMask

from headrace.rpc.errors import ApiError, etag_mismatch, invalid_argument

LONGEST_TEXT = 200
MOST_SETTINGS_BYTES = 256 * 1024


def changed_fields(
    mask: FieldMask, set_fields: Iterable[str], changeable: frozenset[str], fixed: frozenset[str]
) -> set[str]:
    """The fields that an update changes.

    Args:
        mask: The call's update mask; without paths all fields that are set are meant.
        set_fields: Names of the fields that are set.
        changeable: Names of the fields that can be changed.
        fixed: Names of the fields that cannot; naming one in the mask is an error.

    Raises:
        ApiError: INVALID_ARGUMENT, on a path that is no changeable field.
    """
    if not mask.paths:
        return set(set_fields) & changeable
    for path in mask.paths:
        if path in fixed:
            raise invalid_argument("update_mask", f"{path} cannot be changed")
        if path not in changeable:
            raise invalid_argument("update_mask", f"there is no field {path[:LONGEST_TEXT]!r} that could be changed")
    return set(mask.paths)


def check_etag(given: str, revision: int) -> None:
    """Refuse a change of what was changed since it was read.

    Raises:
        ApiError: ABORTED.
    """
    if given and given != etag(revision):
        raise etag_mismatch()


def etag(revision: int) -> str:
    """The etag of a revision."""
    return f'"{revision}"'


def settings_object(field: str, text: str) -> dict[str, Any]:
    """Settings as an object.

    Raises:
        ApiError: INVALID_ARGUMENT, without quoting anything of the text.
    """
    problem: ApiError = invalid_argument(field, "must be a JSON object")
    if len(text) > MOST_SETTINGS_BYTES:
        raise invalid_argument(field, f"must not be longer than {MOST_SETTINGS_BYTES:,} bytes")
    try:
        value = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise problem from None
    if not isinstance(value, dict):
        raise problem
    return value
