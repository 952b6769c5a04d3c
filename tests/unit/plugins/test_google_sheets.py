"""Google Sheets: settings, rows, the changes that are sent, and what answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_destination_google_sheets.destination import GoogleSheets
from headrace_destination_google_sheets.settings import GoogleSheetsSettings
from pydantic import ValidationError

from headrace_sdk import (
    AuthError,
    ConfigError,
    Delivered,
    EventBatch,
    EventItem,
    Member,
    MemberBatch,
    Outcomes,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    Retry,
    Row,
    Skip,
    TransientError,
)

KEY = json.dumps(
    {
        "client_email": "a@b.example",
        "private_key": "key-secret-for-tests",
        "private_key_id": "1",
        "token_uri": "https://t.example",
    }
)
SETTINGS = {"spreadsheet_id": "1spreadsheet-for-tests", "sheet_id": 7, "service_account": KEY}
ADA: dict[str, str | list[str]] = {"email": "ada@example.com", "first_name": "Ada", "phone": ["+491", "+492"]}


def connector(**more: Any) -> GoogleSheets:
    return GoogleSheets(GoogleSheetsSettings.model_validate({**SETTINGS, **more}))


def changes(built: Any) -> list[dict[str, Any]]:
    (request,) = built
    found: list[dict[str, Any]] = json.loads(request.body)["requests"]
    return found


def rows_of(change: dict[str, Any]) -> list[list[Any]]:
    return [
        [next(iter(cell.get("userEnteredValue", {"": None}).values())) for cell in row["values"]]
        for row in change["appendCells"]["rows"]
    ]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"spreadsheet_id": "https://example.com"}, "id of a spreadsheet"),
        ({"service_account": "{"}, "JSON key file"),
        ({"service_account": '{"client_email": "a"}'}, "with client_email, private_key"),
        ({"columns": ["email", "shoe_size"]}, "no column 'shoe_size'"),
        ({"columns": ["email", "email"]}, "names a column twice"),
        ({"columns": []}, "at least 1"),
        ({"columns": ["order_id"]}, "no column 'order_id'"),
        ({"event_columns": ["when"]}, "no column 'when'"),
        ({"sheet_id": -1}, "greater than or equal"),
        ({"base_url": "sheets"}, "absolute http"),
        ({"token": "x"}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_work(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as caught:
        connector(**more)
    assert "key-secret" not in str(caught.value)


def test_the_address_of_a_spreadsheet_will_do() -> None:
    made = connector(spreadsheet_id="https://docs.google.com/spreadsheets/d/1spreadsheet-for-tests/edit#gid=7")
    assert made.settings.spreadsheet_id == "1spreadsheet-for-tests"


def test_a_row_is_the_chosen_columns() -> None:
    (row,) = connector(columns=["phone", "email", "city"]).rows(Member(profile_id="p", fields=dict(ADA)))
    assert row.data == ["+491, +492", "ada@example.com", ""]
    assert "ada" not in row.key
    (other,) = connector(columns=["phone", "email", "city"]).rows(Member(profile_id="q", fields=dict(ADA)))
    assert other.key != row.key


def test_a_member_without_any_value_is_left_out() -> None:
    with pytest.raises(RecordRejected, match="in no column"):
        connector(columns=["city"]).rows(Member(profile_id="p", fields=dict(ADA)))
    with pytest.raises(RecordRejected, match="50,000"):
        connector(columns=["city"]).rows(Member(profile_id="p", fields={"city": "x" * 50_001}))


def test_rows_are_appended_and_repeated_ones_deleted() -> None:
    batch = MemberBatch(rows=(Row(key="k1", data=["=1+1", ""]), Row(key="k2", data=["007", "x"])), now_us=0)
    append, clean = changes(connector().add_members(batch))
    assert append["appendCells"]["rows"][0]["values"] == [
        {"userEnteredValue": {"stringValue": "k1"}}, {"userEnteredValue": {"stringValue": "=1+1"}}, {},
    ]  # fmt: skip
    assert clean == {
        "deleteDuplicates": {
            "range": {"sheetId": 7},
            "comparisonColumns": [{"sheetId": 7, "dimension": "COLUMNS", "startIndex": 0, "endIndex": 1}],
        }
    }


def test_rows_are_made_duplicates_of_the_header_and_deleted() -> None:
    batch = MemberBatch(rows=(Row(key="k1", data=["a"]), Row(key="k2", data=["b"])), now_us=0)
    first, second, clean = changes(connector().remove_members(batch))
    assert [one["findReplace"]["find"] for one in (first, second)] == ["k1", "k2"]
    assert first["findReplace"]["replacement"] == "headrace_id" and first["findReplace"]["matchEntireCell"]
    assert first["findReplace"]["range"] == {
        "sheetId": 7, "startColumnIndex": 0, "endColumnIndex": 1,
    }  # fmt: skip
    assert "deleteDuplicates" in clean


def test_events_are_rows_too() -> None:
    fields = {"email": "ada@example.com", "value": 29.9, "properties": {"a": [1]}, "order_id": 2**60, "audience": ""}
    event = EventItem(message_id="M", kind="track", name="Bought", timestamp_us=1_796_000_000_000_000, fields=fields)
    page = EventItem(message_id="m", kind="page", fields={"properties": {}})
    append, _ = changes(connector().send_events(EventBatch(events=(event, page), now_us=0)))
    (key, *values), (other, *rest) = rows_of(append)
    assert values == [
        "2026-11-30T00:53:20.000Z", "Bought", "ada@example.com", None, str(2**60), 29.9, None, None, '{"a": [1]}',
    ]  # fmt: skip
    assert rest == ["1970-01-01T00:00:00.000Z", "page", *[None] * 7]
    # Google takes keys that differ in case alone for equal.
    assert key != other and key.lower() == key


def test_an_event_that_fits_no_cell_fails_alone() -> None:
    long = EventItem(message_id="m", kind="track", name="A", fields={"properties": {"a": "x" * 50_000}})
    skip, request = connector().send_events(EventBatch(events=(long, EventItem(message_id="n", kind="page")), now_us=0))
    assert isinstance(skip, Skip) and skip.is_failure and skip.field == "properties"
    assert isinstance(request, Request) and request.items == (1,)


def answer(status: int, document: Any, *, removing: int = 0) -> Outcomes:
    requests: list[Any] = (
        [{"findReplace": {}}] * removing + [{"appendCells": {}}] * (not removing) + [{"deleteDuplicates": {}}]
    )
    asked = Request(method="POST", url="https://x", body=json.dumps({"requests": requests}).encode(), items=(0, 1))
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return connector().read(asked, Response(status=status, body=body))


def refusal(status: int, name: str, message: str = "") -> dict[str, Any]:
    return {"error": {"code": status, "status": name, "message": message}}


def test_answers_that_accept() -> None:
    assert answer(200, {"replies": [{}, {}]}).items == (Delivered(), Delivered())
    removed = {
        "replies": [{"findReplace": {"rowsChanged": 1}}, {}, {"deleteDuplicates": {"duplicatesRemovedCount": 1}}]
    }
    assert answer(200, removed, removing=2).items == (Delivered(), Delivered())


@pytest.mark.parametrize("document", [b"<html>", {}, {"replies": [{}]}, {"replies": "x"}, {"replies": [1, 2]}, [], b""])
def test_what_is_no_answer_is_tried_again(document: Any) -> None:
    assert all(isinstance(one, Retry) for one in answer(200, document).items)


def test_a_header_that_is_gone_is_noticed() -> None:
    with pytest.raises(ConfigError, match="lost its header"):
        answer(200, {"replies": [{"findReplace": {"rowsChanged": 1}}, {}]}, removing=1)


def test_a_refused_row_is_looked_for() -> None:
    found = answer(400, refusal(400, "INVALID_ARGUMENT", "Invalid requests[0]: ada@example.com"))
    assert found.refused_whole
    assert found.items == (Rejected(reason="Google answered 400 (INVALID_ARGUMENT)"),) * 2


@pytest.mark.parametrize(
    ("status", "name", "message", "error", "text"),
    [
        (400, "INVALID_ARGUMENT", "Invalid requests[0].appendCells: No grid with id: 7", ConfigError, "no such tab"),
        (400, "INVALID_ARGUMENT", "above the limit of 10000000 cells", ConfigError, "full"),
        (401, "UNAUTHENTICATED", "", AuthError, "key of the service account"),
        (403, "PERMISSION_DENIED", "", AuthError, "share the spreadsheet"),
        (404, "NOT_FOUND", "", ConfigError, "no such spreadsheet"),
        (429, "RESOURCE_EXHAUSTED", "", RateLimited, "429"),
        (500, "INTERNAL", "", TransientError, "500"),
        (503, "ada@example.com", "", TransientError, "503$"),
    ],
)
def test_answers_that_refuse(status: int, name: str, message: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        answer(status, refusal(status, name, message))
