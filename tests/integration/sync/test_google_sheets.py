"""Google Sheets through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from headrace_sync.outlets.batch import ADD_MEMBERS, REMOVE_MEMBERS
from headrace_sync.outlets.verdicts import Kind

from headrace.connector import wire
from headrace_sdk import EventItem, Profile, Row
from tests.support.connector_outlets import Station, Way
from tests.support.vendors.google_sheets import SPREADSHEET, FakeGoogleSheets

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "google-sheets"


@pytest_asyncio.fixture(loop_scope="module")
async def vendor() -> AsyncIterator[FakeGoogleSheets]:
    fake = FakeGoogleSheets()
    await fake.start()
    yield fake
    await fake.stop()


def settings(vendor: FakeGoogleSheets, **more: Any) -> dict[str, Any]:
    return {
        "spreadsheet_id": SPREADSHEET, "sheet_id": 7, "service_account": vendor.key_file, "base_url": vendor.url,
        "columns": ["email", "first_name"], "event_columns": ["event", "email"], **more,
    }  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module")
async def sheet(vendor: FakeGoogleSheets, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(vendor)) as found:
        yield found


async def rows_of(sheet: Way, *people: tuple[str, str]) -> list[Row]:
    profiles = [
        Profile(id=f"p-{email}", identifiers={"email": [email]}, traits={"first_name": name}) for email, name in people
    ]
    found = await sheet.outlet.rows(sheet.members(profiles))
    return [row for one in found if isinstance(one, wire.MemberRows) for row in one.rows]


async def kinds(sheet: Way, operation: str, rows: list[Row]) -> list[Kind]:
    return [verdict.kind for verdict in await sheet.outlet.send(operation, rows)]


async def test_the_tab_follows_the_audience_whatever_is_repeated_or_moved(vendor: FakeGoogleSheets, sheet: Way) -> None:
    ada, bob, eve = await rows_of(
        sheet, ("ada@a.example", "=Ada()"), ("bob@a.example", "Bob"), ("eve@a.example", "Eve")
    )
    assert await kinds(sheet, ADD_MEMBERS, [ada, bob]) == [Kind.DELIVERED] * 2
    vendor.lost = 1  # carried out, and the answer says that it was not
    assert await kinds(sheet, ADD_MEMBERS, [bob, eve]) == [Kind.RETRY] * 2
    assert await kinds(sheet, ADD_MEMBERS, [bob, eve]) == [Kind.DELIVERED] * 2
    assert vendor.rows() == [["ada@a.example", "=Ada()"], ["bob@a.example", "Bob"], ["eve@a.example", "Eve"]]
    vendor.tabs[7][1:] = reversed(vendor.tabs[7][1:])  # somebody sorts
    vendor.lost = 1
    assert await kinds(sheet, REMOVE_MEMBERS, [ada, bob]) == [Kind.RETRY] * 2
    assert await kinds(sheet, REMOVE_MEMBERS, [ada, bob]) == [Kind.DELIVERED] * 2
    assert vendor.tabs[7] == [["headrace_id", "email", "first_name"], [eve.key, "eve@a.example", "Eve"]]


async def test_a_row_at_fault_is_found_and_the_others_are_written(vendor: FakeGoogleSheets, sheet: Way) -> None:
    people = [(f"{place}@a.example", "refused by the fake" if place == 2 else "Ok") for place in range(4)]
    found = await kinds(sheet, ADD_MEMBERS, await rows_of(sheet, *people))
    assert found == [Kind.DELIVERED, Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
    assert len(vendor.rows()) == 3


async def test_without_a_header_the_destination_stops(vendor: FakeGoogleSheets, sheet: Way) -> None:
    (ada,) = await rows_of(sheet, ("ada@a.example", "Ada"))
    await kinds(sheet, ADD_MEMBERS, [ada])
    del vendor.tabs[7][0]
    assert await kinds(sheet, REMOVE_MEMBERS, [ada]) == [Kind.UNTRIED]
    assert "lost its header" in sheet.halted[0]


async def test_events_are_there_once(vendor: FakeGoogleSheets, sheet: Way) -> None:
    events = [
        EventItem(message_id=id, kind="track", name="Bought", identifiers={"email": ["ada@a.example"]}) for id in "abA"
    ]
    for _ in range(2):
        assert {verdict.kind for verdict in await sheet.deliver(events)} == {Kind.DELIVERED}
    assert vendor.rows() == [["Bought", "ada@a.example"]] * 3


@pytest.mark.parametrize("fault", ["not shared", "no tab", "no spreadsheet"])
async def test_what_pauses(vendor: FakeGoogleSheets, shared: Station, fault: str) -> None:
    vendor.shared = fault != "not shared"
    more: dict[str, Any] = {"sheet_id": 8} if fault == "no tab" else {}
    more |= {"spreadsheet_id": "another-spreadsheet"} if fault == "no spreadsheet" else {}
    async with shared.way(settings(vendor, **more)) as found:
        (verdict,) = await found.deliver([EventItem(message_id="m", kind="track", name="A")])
        assert verdict.kind is Kind.UNTRIED and len(found.halted) == 1
    assert vendor.rows() == []


async def test_google_asks_for_fewer_requests(vendor: FakeGoogleSheets, sheet: Way) -> None:
    error = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded"}}
    vendor.answers.append(web.json_response(error, status=429, headers={"Retry-After": "7"}))
    (verdict,) = await sheet.deliver([EventItem(message_id="m", kind="track", name="A")])
    assert verdict.kind is Kind.RETRY and 5 < sheet.outlet.paused_s() <= 7


async def test_questions(vendor: FakeGoogleSheets, shared: Station) -> None:
    async with shared.way(settings(vendor)) as found:
        opened = await shared.host.open(CONNECTOR, settings(vendor))
        signer, client = found.outlet._signer, found.outlet._client

        async def ask(request: Any) -> Any:
            return await signer.send(client, request, timeout_s=5.0, headers={})

        (check,) = await opened.check()
        assert await opened.read_check(check, await ask(check.request)) == ""
        vendor.tabs[7][0] = ["E-mail"]
        assert "headrace_id" in await opened.read_check(check, await ask(check.request))
        made = await opened.create_list("Loyal")
        (loyal,) = (await opened.read_lists(made, await ask(made))).lists
        assert vendor.tabs[int(loyal.id)] == [["headrace_id", "email", "first_name"]]
        again = await opened.read_lists(made, await ask(made))
        assert again.problem  # there is one of this name
        listed = await opened.lists()
        assert [one.name for one in (await opened.read_lists(listed, await ask(listed))).lists] == ["People", "Loyal"]
