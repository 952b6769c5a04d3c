"""The Google Sheets destination: rows of a tab for people in an audience, or for events.

https://developers.google.com/workspace/sheets/api/reference/rest/v4/spreadsheets/batchUpdate
https://developers.google.com/workspace/sheets/api/limits
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from headrace_destination_google_sheets import answers, sheet
from headrace_destination_google_sheets.fields import FIELDS
from headrace_destination_google_sheets.settings import GoogleSheetsSettings
from headrace_sdk import (
    BatchPolicy,
    Built,
    Capability,
    Check,
    Destination,
    EventBatch,
    EventItem,
    Idempotency,
    Lists,
    Manifest,
    Member,
    MemberBatch,
    Outcomes,
    RateLimit,
    RecordRejected,
    Request,
    Response,
    Row,
    Skip,
    digest_key,
    iso_time,
)
from headrace_sdk.auth import ServiceAccount

MANIFEST = Manifest(
    name="google-sheets",
    title="Google Sheets",
    description="Keeps the rows of a tab equal to an audience, or adds a row per event.",
    factory="headrace_destination_google_sheets.destination:GoogleSheets",
    settings=GoogleSheetsSettings,
    capabilities=frozenset(
        {Capability.LIST_SYNC, Capability.EVENT_SYNC, Capability.FORWARDING, Capability.LISTS, Capability.CHECK}
    ),
    list_setting="sheet_id",
    fields=FIELDS,
    batch=BatchPolicy(max_items=500, max_bytes=2_000_000, max_wait_s=5.0),
    limits=(RateLimit(count=60, per_s=60.0),),
    concurrency=1,
    timeout_s=180.0,
    idempotency=Idempotency.NATURAL,
    auth=ServiceAccount(setting="service_account", scopes=("https://www.googleapis.com/auth/spreadsheets",)),
    not_deleted="Rows of events, and earlier versions of the spreadsheet: somebody has to delete them there.",
)


class GoogleSheets(Destination[GoogleSheetsSettings]):
    """Keeps rows of a tab."""

    manifest = MANIFEST

    def rows(self, member: Member) -> Sequence[Row]:
        """A row of the chosen columns; its key is a digest of them and of the profile's id."""
        values = [_text(member.fields.get(column)) for column in self.settings.columns]
        if not any(values):
            raise RecordRejected("has a value in no column")
        _check_length(self.settings.columns, values)
        return [Row(key=digest_key([member.profile_id, values]), data=values)]

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """One request that appends the rows which are not there yet."""
        rows = [[row.key, *row.data] for row in batch.rows]
        yield self._changed(sheet.additions(self.settings.sheet_id, rows), tuple(range(len(rows))))

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """One request that deletes the rows which are still there, by their keys."""
        keys = [row.key for row in batch.rows]
        yield self._changed(sheet.removals(self.settings.sheet_id, keys), tuple(range(len(keys))))

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """One request that appends a row per event whose row is not there yet."""
        rows: list[list[Any]] = []
        places: list[int] = []
        for place, event in enumerate(batch.events):
            values = [_event_value(event, column) for column in self.settings.event_columns]
            try:
                _check_length(self.settings.event_columns, values)
            except RecordRejected as error:
                yield Skip(item=place, reason=error.reason, field=error.field, is_failure=True)
                continue
            rows.append([digest_key(event.message_id), *values])
            places.append(place)
        if rows:
            yield self._changed(sheet.additions(self.settings.sheet_id, rows), tuple(places))

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Google's answer means, see `answers`."""
        return answers.read(request, response)

    def check(self) -> Iterable[Check]:
        """Whether the tab is there, with a header of ours."""
        first_row = {"sheetId": self.settings.sheet_id, "startRowIndex": 0, "endRowIndex": 1}
        yield Check(
            title="May see the tab, and it has a header",
            request=self._asked("/values:batchGetByDataFilter", {"dataFilters": [{"gridRange": first_row}]}),
        )

    def read_check(self, check: Check, response: Response) -> str:
        """What Google says of the tab."""
        return answers.read_check(response)

    def lists(self, page: str = "") -> Request:
        """The tabs of the spreadsheet; there are no pages."""
        return self._request("GET", "?fields=sheets.properties(sheetId,title,gridProperties.rowCount)")

    def create_list(self, name: str) -> Request:
        """Makes a tab with a header for people."""
        return self._asked(":batchUpdate", {"requests": sheet.tab(name, self.settings.columns)})

    def read_lists(self, request: Request, response: Response) -> Lists:
        """Tabs in Google's answer."""
        return answers.read_lists(response)

    def _changed(self, changes: Sequence[sheet.Change], items: tuple[int, ...]) -> Request:
        return self._asked(":batchUpdate", {"requests": list(changes)}, items)

    def _asked(self, method: str, body: Mapping[str, Any], items: tuple[int, ...] = ()) -> Request:
        return self._request("POST", method, json.dumps(body, separators=(",", ":")).encode(), items)

    def _request(self, verb: str, method: str, body: bytes = b"", items: tuple[int, ...] = ()) -> Request:
        settings = self.settings
        return Request(
            method=verb,
            url=f"{settings.base_url}/v4/spreadsheets/{quote(settings.spreadsheet_id, safe='')}{method}",
            headers={"Content-Type": "application/json"} if body else {},
            body=body,
            items=items,
        )


def _text(value: str | list[str] | None) -> str:
    return ", ".join(value) if isinstance(value, list) else (value or "").strip()


def _event_value(event: EventItem, column: str) -> Any:
    if column == "time":
        return iso_time(event.timestamp_us)
    if column == "event":
        return event.name or event.kind
    value = event.fields.get(column)
    if isinstance(value, dict | list) and not value:
        return None
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _check_length(columns: Sequence[str], values: Sequence[Any]) -> None:
    for column, value in zip(columns, values, strict=True):
        if isinstance(value, str) and len(value) > sheet.LONGEST_CELL:
            raise RecordRejected(f"longer than the {sheet.LONGEST_CELL:,} characters that a cell holds", column)
