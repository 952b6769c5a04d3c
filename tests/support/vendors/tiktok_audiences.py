"""A vendor that keeps the documented rules of TikTok's audience segments, and answers 200 with a code of its own."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.vendors.tiktok_events import answer

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COLUMNS = frozenset({"EMAIL_SHA256", "PHONE_SHA256", "IDFA_SHA256", "AAID_SHA256"})


@dataclass
class FakeTikTokAudiences:
    """The vendor. Point a destination's base_url at `url`, look at who is on its audiences."""

    token: str = "tiktok-token-for-tests"
    account: str = "7178918106775994370"
    names: dict[str, str] = field(default_factory=lambda: {"167290896": "Everybody"})
    members: dict[str, set[str]] = field(default_factory=dict)
    """Identifiers by audience."""
    names_rows: bool = True
    """Whether a refusal names the row at fault."""
    requests_a_second: int = 10
    bodies: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _moments: deque[float] = field(default_factory=deque)
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=50_000_000)
        app.router.add_post("/open_api/v1.3/segment/mapping/", self._mapping)
        app.router.add_post("/open_api/v1.3/segment/audience/", self._make)
        app.router.add_get("/open_api/v1.3/dmp/custom_audience/list/", self._list)
        app.router.add_get("/open_api/v1.3/dmp/custom_audience/get/", self._get)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Address for the setting base_url."""
        return f"http://127.0.0.1:{self.port}"

    def _refused(self, request: web.Request, accounts: Any) -> web.Response | None:
        if self.failures:
            return self.failures.popleft()
        now = time.monotonic()
        while self._moments and self._moments[0] < now - 1:
            self._moments.popleft()
        self._moments.append(now)
        if len(self._moments) > self.requests_a_second:
            return answer(40100, "Too many requests. Please retry in some time.")
        if request.headers.get("Access-Token") != self.token:
            return answer(40105, "Access token is incorrect or has been revoked.")
        if accounts != [self.account]:
            return answer(40001, "No permission to operate advertiser")
        return None

    async def _mapping(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        if refused := self._refused(request, body.get("advertiser_ids")):
            return refused
        unknown = {one for row in body["batch_data"] for cell in row for one in cell.get("audience_ids", ())}
        if unknown - set(self.names):
            return answer(40002, "Audience does not exist")
        if problem := next(self._wrong(request, body), ""):
            self.problems.append(problem)
            return answer(40002, problem)
        self.bodies.append(body)
        for row in body["batch_data"]:
            for cell in row:
                for audience in cell.get("audience_ids", ()):
                    there = self.members.setdefault(audience, set())
                    (there.add if body["action"] == "add" else there.discard)(cell["id"])
        return answer(0, "OK")

    def _wrong(self, request: web.Request, body: dict[str, Any]) -> Iterator[str]:
        if request.content_type != "application/json" or body.get("action") not in ("add", "delete"):
            yield "action: add or delete"
        schema, rows = body.get("id_schema"), body.get("batch_data")
        if not isinstance(schema, list) or not schema or set(schema) - _COLUMNS or len(set(schema)) < len(schema):
            yield "id_schema: Not one of the types"
            return
        if not isinstance(rows, list) or not 1 <= len(rows) <= 10_000:
            yield "from 1 to 10000 rows"
            return
        for place, row in enumerate(rows):
            cells = [cell for cell in row if cell]
            right = all(set(cell) == {"id", "audience_ids"} and _SHA256.fullmatch(cell["id"]) for cell in cells)
            if not right or not cells or len(row) != len(schema):
                yield f"batch_data[{place}]: Not a valid row" if self.names_rows else "Not a valid row"

    async def _make(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        if refused := self._refused(request, [body.get("advertiser_id")]):
            return refused
        if set(body) != {"action", "advertiser_id", "custom_audience_name"} or body["action"] != "create":
            return answer(40002, "Missing data for required field")
        audience_id = str(167290896 + len(self.names))
        self.names[audience_id] = body["custom_audience_name"]
        return _data({"audience_id": audience_id})

    async def _list(self, request: web.Request) -> web.Response:
        if refused := self._refused(request, [request.query.get("advertiser_id")]):
            return refused
        page, size = int(request.query["page"]), int(request.query["page_size"])
        if not 1 <= size <= 100:
            return answer(40002, "page_size: from 1 to 100")
        known = [
            {"audience_id": one, "name": name, "cover_num": len(self.members.get(one, ()))}
            for one, name in self.names.items()
        ]
        info = {"page": page, "page_size": size, "total_number": len(known), "total_page": -(-len(known) // size)}
        return _data({"list": known[(page - 1) * size : page * size], "page_info": info})

    async def _get(self, request: web.Request) -> web.Response:
        if refused := self._refused(request, [request.query.get("advertiser_id")]):
            return refused
        wanted = json.loads(request.query["custom_audience_ids"])
        found = [{"audience_details": {"audience_id": one}} for one in wanted if one in self.names]
        return _data({"list": found})


def _data(data: dict[str, Any]) -> web.Response:
    return web.json_response({"code": 0, "message": "OK", "request_id": "20261126", "data": data})
