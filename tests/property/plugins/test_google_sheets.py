"""Whatever people and events hold: each is accounted for once, no value stands in an address or is a formula."""

from __future__ import annotations

import json
from typing import Any

from headrace_destination_google_sheets.destination import GoogleSheets
from headrace_destination_google_sheets.fields import EVENT_COLUMNS, FIELDS, PERSON_COLUMNS
from headrace_destination_google_sheets.settings import GoogleSheetsSettings
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import EventBatch, EventItem, Member, MemberBatch, RecordRejected, Request, Row, Skip

URL = "https://sheets.googleapis.com/v4/spreadsheets/1spreadsheet-for-tests:batchUpdate"
CONNECTOR = GoogleSheets(
    GoogleSheetsSettings.model_validate(
        {
            "spreadsheet_id": "1spreadsheet-for-tests", "sheet_id": 7, "columns": PERSON_COLUMNS,
            "event_columns": EVENT_COLUMNS,
            "service_account": json.dumps(
                {
                    "client_email": "a@b.example",
                    "private_key": "k",
                    "private_key_id": "1",
                    "token_uri": "https://t.example",
                }
            ),
        }
    )
)  # fmt: skip
TEXTS = st.text(max_size=20) | st.sampled_from(["=1+1", "007", "headrace_id"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = st.builds(
    Member,
    profile_id=st.sampled_from(["p", "q"]),
    fields=st.dictionaries(st.sampled_from(PERSON_COLUMNS), TEXTS | st.lists(TEXTS, max_size=2), max_size=4),
)
EVENTS = st.builds(
    EventItem,
    message_id=st.text(max_size=5),
    kind=st.sampled_from(["track", "page"]),
    name=TEXTS,
    fields=st.dictionaries(st.sampled_from([field.name for field in FIELDS]), JSON, max_size=4),
)


def appended(request: Request) -> list[list[dict[str, Any]]]:
    assert request.url == URL
    append, clean = json.loads(request.body)["requests"]
    assert "deleteDuplicates" in clean
    cells = [row["values"] for row in append["appendCells"]["rows"]]
    kinds = {kind for row in cells for cell in row for kind in cell.get("userEnteredValue", {})}
    assert kinds <= {"stringValue", "numberValue", "boolValue"}
    return cells


@given(st.lists(MEMBERS, max_size=4))
def test_members(members: list[Member]) -> None:
    rows: list[Row] = []
    for member in members:
        try:
            rows += CONNECTOR.rows(member)
        except RecordRejected:
            values = [value for value in member.fields.values() if (value.strip() if isinstance(value, str) else value)]
            assert not values or all(not "".join(value).strip(", ") for value in values)
    if not rows:
        return
    (added,) = CONNECTOR.add_members(MemberBatch(rows=tuple(rows), now_us=0))
    assert isinstance(added, Request) and added.items == tuple(range(len(rows)))
    assert [cells[0]["userEnteredValue"]["stringValue"] for cells in appended(added)] == [row.key for row in rows]
    (removed,) = CONNECTOR.remove_members(MemberBatch(rows=tuple(rows), now_us=0))
    assert isinstance(removed, Request) and removed.url == URL and removed.items == added.items
    finds = [one["findReplace"]["find"] for one in json.loads(removed.body)["requests"][:-1]]
    assert finds == [row.key for row in rows]


@given(st.lists(EVENTS, max_size=4))
def test_events(events: list[EventItem]) -> None:
    built = list(CONNECTOR.send_events(EventBatch(events=tuple(events), now_us=0)))
    requests = [one for one in built if isinstance(one, Request)]
    places = [place for request in requests for place in request.items]
    assert sorted(places + [one.item for one in built if isinstance(one, Skip)]) == list(range(len(events)))
    for request in requests:
        assert len(appended(request)) == len(request.items)
