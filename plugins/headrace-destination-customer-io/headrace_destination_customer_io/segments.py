"""Manual segments: their members, which ones there are, new ones.

https://docs.customer.io/integrations/api/track/tag/track-segments/
https://docs.customer.io/integrations/api/app/tag/segments/
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headrace_destination_customer_io import operations
from headrace_destination_customer_io.answers import answer_of
from headrace_destination_customer_io.settings import CustomerIoSettings
from headrace_sdk import Lists, RecordRejected, Request, Response, Row, Subject, TransientError, VendorList, values
from headrace_sdk.values import Unusable, sha256

_MANUAL = "manual"


def rows_of(fields: Mapping[str, str | Sequence[str]], settings: CustomerIoSettings) -> list[Row]:
    """A row per id (or e-mail address) of a member.

    Raises:
        RecordRejected: The member has none, or the settings name no segment.
    """
    if not settings.segment_id:
        raise RecordRejected("the setting segment_id is empty", "segment_id")
    name = "user_id" if settings.identify_by == "id" else "email"
    given = fields.get(name, ())
    found = {_usable(one, settings) for one in ((given,) if isinstance(given, str) else given)}
    usable = sorted(one for one in found if one)
    if not usable:
        raise RecordRejected(f"has no {'user id' if name == 'user_id' else 'e-mail address'}", name)
    return [Row(key=sha256(one), data={"id": one}) for one in usable]


def people_of(subject: Subject) -> list[dict[str, str]]:
    """All identifiers by which Customer.io may know a person."""
    ids = [{"id": one} for one in subject.identifiers.get("user_id", ()) if one and not operations.too_long(one)]
    return ids + [{"email": one} for one in subject.identifiers.get("email", ()) if one]


def read(request: Request, response: Response) -> Lists:
    """The manual segments in an answer, or the one that was made.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    answer = answer_of(response, "app_api_key")
    if request.method == "POST":
        made = answer.get("segment")
        if not isinstance(made, Mapping) or not _id(made):
            raise TransientError("Customer.io answered without a new segment")
        return Lists(lists=(VendorList(id=_id(made), name=json.loads(request.body)["segment"]["name"]),))
    given = answer.get("segments")
    if not isinstance(given, list):
        raise TransientError("Customer.io answered with something that is no list of segments")
    manual = [one for one in given if isinstance(one, Mapping) and one.get("type") == _MANUAL and _id(one)]
    return Lists(lists=tuple(VendorList(id=_id(one), name=str(one.get("name", ""))) for one in manual))


def problem_of(response: Response) -> str:
    """What hinders changes of the segment that was asked for; empty when nothing does."""
    segment = response.json_object().get("segment")
    if response.status == 200 and isinstance(segment, Mapping):
        if segment.get("type") == _MANUAL:
            return ""
        return "The segment is data-driven: only manual segments can be changed. Choose or make another one."
    if response.status in (401, 403):
        return "Customer.io refuses the App API key, or it has no right to see segments."
    if response.status == 404:
        return "There is no such segment in this workspace: choose or make another one."
    return f"Customer.io answered with status {response.status}: try again."


def _usable(value: str, settings: CustomerIoSettings) -> str:
    if settings.identify_by == "email":
        try:
            return values.email(value)
        except Unusable:
            return ""
    id = value.strip()
    return "" if operations.too_long(id) else id


def _id(segment: Mapping[str, Any]) -> str:
    id = segment.get("id")
    return str(id) if isinstance(id, int) and not isinstance(id, bool) else ""
