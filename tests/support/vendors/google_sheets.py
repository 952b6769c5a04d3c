"""A fake of the Google Sheets API that enforces what Google documents of the methods that the connector uses.

https://developers.google.com/workspace/sheets/api/reference/rest/v4/spreadsheets/request
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

SPREADSHEET = "1spreadsheet-for-tests"
_CHANGES = frozenset({"appendCells", "deleteDuplicates", "findReplace", "addSheet", "updateCells"})


class _Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.response = web.json_response(
            {"error": {"code": status, "message": message, "status": name}}, status=status
        )


class FakeGoogleSheets:
    """Tabs, each a list of rows of cells. Start it, point a destination at `url`."""

    def __init__(self) -> None:
        self.tabs: dict[int, list[list[Any]]] = {7: [["headrace_id", "email", "first_name"]]}
        self.titles: dict[int, str] = {7: "People"}
        self.answers: deque[web.Response] = deque()
        """The next answers, in place of its own."""
        self.lost = 0
        """How many of the next changes are carried out and then answered by 500."""
        self.token = "token-for-tests"
        self.shared = True
        self.requests = 0
        self.url = ""
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=10_000_000)
        app.router.add_post("/token", self._give_token)
        app.router.add_route("*", "/v4/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def key_file(self) -> str:
        """The key file of a service account that this fake knows."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {"type": "service_account", "client_email": "a@b.example", "private_key_id": "1"}
        return json.dumps({**account, "private_key": pem.decode(), "token_uri": f"{self.url}/token"})

    def rows(self, sheet_id: int = 7) -> list[list[Any]]:
        """Rows below the header without their keys."""
        return [row[1:] for row in self.tabs[sheet_id][1:]]

    async def _give_token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" or not form.get("assertion"):
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"access_token": self.token, "expires_in": 3600, "token_type": "Bearer"})

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _Refused(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.").response
        if self.answers:
            return self.answers.popleft()
        try:
            return await self._served(request)
        except _Refused as refused:
            return refused.response

    async def _served(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/v4/spreadsheets/")
        name, _, method = path.partition(":")
        if name.removesuffix("/values") != SPREADSHEET:
            raise _Refused(404, "NOT_FOUND", "Requested entity was not found.")
        if not self.shared:
            raise _Refused(403, "PERMISSION_DENIED", "The caller does not have permission")
        if request.method == "GET" and not method:
            sheets = [{"properties": {"sheetId": id, "title": title}} for id, title in self.titles.items()]
            return web.json_response({"sheets": sheets})
        body = await request.json()
        if method == "batchGetByDataFilter":
            sheet_id = body["dataFilters"][0]["gridRange"]["sheetId"]
            values = self._tab(sheet_id)[:1]
            found = {"range": "A1", "majorDimension": "ROWS", **({"values": values} if values else {})}
            return web.json_response({"valueRanges": [{"valueRange": found}]})
        if method != "batchUpdate" or request.method != "POST":
            raise _Refused(404, "NOT_FOUND", "no such method")
        return self._batch_update(body)

    def _batch_update(self, body: dict[str, Any]) -> web.Response:
        """All of the changes or none."""
        before = json.dumps([list(self.tabs.items()), list(self.titles.items())])
        replies = []
        try:
            if not body.get("requests"):
                raise _Refused(400, "INVALID_ARGUMENT", "Must specify at least one request.")
            for place, change in enumerate(body["requests"]):
                replies.append(self._change(place, change))
        except _Refused:
            tabs, titles = json.loads(before)
            self.tabs, self.titles = dict(map(tuple, tabs)), dict(map(tuple, titles))
            raise
        if self.lost:
            self.lost -= 1
            raise _Refused(500, "INTERNAL", "Internal error encountered.")
        return web.json_response({"spreadsheetId": SPREADSHEET, "replies": replies})

    def _change(self, place: int, change: dict[str, Any]) -> dict[str, Any]:
        if len(change) != 1 or not change.keys() <= _CHANGES:
            raise _Refused(400, "INVALID_ARGUMENT", f"Invalid JSON payload received at 'requests[{place}]'")
        ((kind, what),) = change.items()
        if kind == "appendCells":
            return self._append(place, what)
        if kind == "findReplace":
            return self._replace(what)
        if kind == "deleteDuplicates":
            return self._delete_duplicates(what)
        if kind == "addSheet":
            return self._add_sheet(place, what["properties"])
        start = what["start"]
        self._tab(start["sheetId"])[start["rowIndex"] : start["rowIndex"] + len(what["rows"])] = [
            _values(place, row) for row in what["rows"]
        ]
        return {}

    def _append(self, place: int, what: dict[str, Any]) -> dict[str, Any]:
        if what["fields"] not in ("userEnteredValue", "*"):
            raise _Refused(400, "INVALID_ARGUMENT", f"Invalid requests[{place}].appendCells: bad fields")
        self._tab(what["sheetId"]).extend(_values(place, row) for row in what["rows"])
        return {}

    def _replace(self, what: dict[str, Any]) -> dict[str, Any]:
        where = what["range"]
        assert (where["startColumnIndex"], where["endColumnIndex"], what["matchEntireCell"]) == (0, 1, True)
        found = 0
        for row in self._tab(where["sheetId"])[where.get("startRowIndex", 0) :]:
            if row and row[0] == what["find"]:
                row[0] = what["replacement"]
                found += 1
        return {"findReplace": {"rowsChanged": found, "occurrencesChanged": found} if found else {}}

    def _delete_duplicates(self, what: dict[str, Any]) -> dict[str, Any]:
        (column,) = what["comparisonColumns"]
        assert (column["dimension"], column["startIndex"], column["endIndex"]) == ("COLUMNS", 0, 1)
        rows = self._tab(what["range"]["sheetId"])
        seen: set[str] = set()
        kept = []
        for row in rows:
            key = str(row[0]).casefold() if row else ""
            if key not in seen:
                kept.append(row)
            seen.add(key)
        gone = len(rows) - len(kept)
        rows[:] = kept
        return {"deleteDuplicates": {"duplicatesRemovedCount": gone} if gone else {}}

    def _add_sheet(self, place: int, properties: dict[str, Any]) -> dict[str, Any]:
        if properties["title"] in self.titles.values() or properties["sheetId"] in self.tabs:
            message = f"Invalid requests[{place}].addSheet: A sheet with the name already exists."
            raise _Refused(400, "INVALID_ARGUMENT", message)
        self.tabs[properties["sheetId"]], self.titles[properties["sheetId"]] = [], properties["title"]
        return {"addSheet": {"properties": properties}}

    def _tab(self, sheet_id: int) -> list[list[Any]]:
        if sheet_id not in self.tabs:
            raise _Refused(400, "INVALID_ARGUMENT", f"Invalid requests[0]: No grid with id: {sheet_id}")
        return self.tabs[sheet_id]


def _values(place: int, row: dict[str, Any]) -> list[Any]:
    """The cells of a row, each with one value of its kind."""
    found: list[Any] = []
    for cell in row["values"]:
        value = cell.get("userEnteredValue", {})
        if value.keys() - {"stringValue", "numberValue", "boolValue"} or len(value) > 1:
            raise _Refused(400, "INVALID_ARGUMENT", f"Invalid requests[{place}]: odd cell")
        text = next(iter(value.values()), "")
        if isinstance(text, str) and (len(text) > 50_000 or text == "refused by the fake"):
            raise _Refused(400, "INVALID_ARGUMENT", f"Invalid requests[{place}]: Your input contains more than 50000")
        found.append(text)
    return found
