"""Changes of a tab, each one atomic request that may be repeated: no row is there twice, nothing is read first.

Every row has its key in the first column, below a header that says `headrace_id`.

- Rows are added by appending them and then deleting rows whose key stands further up already.
- Rows are removed by writing the header's text over their keys, which makes them duplicates of the header, and then
  deleting duplicates. So they are found by key, wherever people sorted or moved them to.

https://developers.google.com/workspace/sheets/api/reference/rest/v4/spreadsheets/request
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

KEY_HEADER = "headrace_id"
LONGEST_CELL = 50_000
"""Characters of a cell. https://support.google.com/drive/answer/37603"""
_LARGEST_NUMBER = 2**53
"""Numbers of a sheet are doubles: a longer id would lose its last digits, and is written as text."""

Change = dict[str, Any]


def additions(sheet_id: int, rows: Sequence[Sequence[Any]]) -> list[Change]:
    """Puts rows on a tab, unless their keys, the first cells, are there already."""
    appended = [{"values": [_cell(value) for value in row]} for row in rows]
    return [
        {"appendCells": {"sheetId": sheet_id, "rows": appended, "fields": "userEnteredValue"}},
        _without_duplicates(sheet_id),
    ]


def removals(sheet_id: int, keys: Sequence[str]) -> list[Change]:
    """Takes the rows with these keys off a tab, if they are there."""
    found = [
        {
            "findReplace": {
                "find": key,
                "replacement": KEY_HEADER,
                "matchCase": True,
                "matchEntireCell": True,
                "range": _key_column(sheet_id),
            }
        }
        for key in keys
    ]
    return [*found, _without_duplicates(sheet_id)]


def tab(name: str, columns: Sequence[str]) -> list[Change]:
    """Makes a tab with a header. Its id comes of its name, so that a repeated request makes no second one."""
    sheet_id = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 2_000_000_000 + 1
    header = [{"userEnteredValue": {"stringValue": column}} for column in (KEY_HEADER, *columns)]
    grid = {"rowCount": 2, "columnCount": len(header), "frozenRowCount": 1}
    start = {"sheetId": sheet_id, "rowIndex": 0, "columnIndex": 0}
    return [
        {"addSheet": {"properties": {"sheetId": sheet_id, "title": name, "gridProperties": grid}}},
        {"updateCells": {"start": start, "rows": [{"values": header}], "fields": "userEnteredValue"}},
    ]


def _without_duplicates(sheet_id: int) -> Change:
    """Deletes rows whose key stands further up: the first of equal ones stays."""
    column = {"sheetId": sheet_id, "dimension": "COLUMNS", "startIndex": 0, "endIndex": 1}
    return {"deleteDuplicates": {"range": {"sheetId": sheet_id}, "comparisonColumns": [column]}}


def _key_column(sheet_id: int) -> dict[str, int]:
    """The first column with its first row: where the header is gone, that is somebody's."""
    return {"sheetId": sheet_id, "startColumnIndex": 0, "endColumnIndex": 1}


def _cell(value: Any) -> dict[str, Any]:
    """A cell with a value as it is: a text never becomes a formula, a number or a date."""
    if value is None or value == "":
        return {}
    if isinstance(value, bool):
        return {"userEnteredValue": {"boolValue": value}}
    if isinstance(value, int | float) and abs(value) <= _LARGEST_NUMBER:
        return {"userEnteredValue": {"numberValue": value}}
    return {"userEnteredValue": {"stringValue": str(value)}}
