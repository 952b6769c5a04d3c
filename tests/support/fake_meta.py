"""A vendor that enforces the documented rules of Meta's Custom Audiences: their `users` edge, lists of them, new ones.

What it holds is what a real list would: rows by their non-empty cells, and the people whom it finds by them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

VERSIONS = frozenset({"v25.0", "v26.0", "v27.0"})
HASHED = frozenset({"EMAIL", "PHONE", "GEN", "DOBY", "DOBM", "DOBD", "LN", "FN", "FI", "CT", "ST", "ZIP", "COUNTRY"})
PLAIN = frozenset({"EXTERN_ID", "MADID"})
MAX_ROWS = 10_000
_SHA256 = re.compile(r"[0-9a-f]{64}")

Row = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Failure:
    """An answer that the fake gives instead of doing anything."""

    status: int
    code: int = 0
    subcode: int = 0
    message: str = "An error."
    headers: Mapping[str, str] = field(default_factory=dict)
    html: bool = False
    transient: bool = False


@dataclass
class FakeMeta:
    """The vendor. Start it, point a destination's base_url at `url`, look at what it holds."""

    token: str = "meta-token-for-tests"
    app_secret: str = ""
    audiences: set[str] = field(default_factory=lambda: {"1234567890"})
    rows: dict[str, set[Row]] = field(default_factory=dict)
    people: dict[str, set[str]] = field(default_factory=dict)
    """Who is on each list, of those that `known` finds."""
    account: str = "act_42"
    described: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What an audience says of itself, by id; else it is an ordinary customer list."""
    known: dict[str, str] = field(default_factory=dict)
    """Cell (a hash) -> person behind it."""
    bad_cells: set[str] = field(default_factory=set)
    """A row with one of these is invalid, besides those that break a rule."""
    gives_samples: bool = True
    failures: deque[Failure] = field(default_factory=deque)
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """Method, path and body of each request that was well-formed and authorised."""
    violations: list[str] = field(default_factory=list)
    """What a client must never do, such as a token in the address."""
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{version}/{audience}/users", self._users)
        app.router.add_route("*", "/{version}/{account}/customaudiences", self._audiences)
        app.router.add_get("/{version}/{audience}", self._audience)
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

    async def _users(self, request: web.Request) -> web.Response:
        body = await self._admitted(request)
        if isinstance(body, web.Response):
            return body
        if request.method not in ("POST", "DELETE"):
            return failed(Failure(400, 100, 33, "Unsupported request."))
        audience = request.match_info["audience"]
        if audience not in self.audiences:
            return failed(Failure(400, 100, 33, f"Object with ID '{audience}' does not exist"))
        problem = _problem(body)
        if problem:
            return failed(Failure(400, 100, 0, problem))
        self.requests.append((request.method, request.path, body))
        return web.json_response(self._change(audience, request.method, body["payload"]))

    async def _audiences(self, request: web.Request) -> web.Response:
        body = await self._admitted(request)
        if isinstance(body, web.Response):
            return body
        if request.match_info["account"] != self.account:
            return failed(Failure(403, 200, 0, "Permissions error"))
        if request.method == "POST":
            if set(body) - {"name", "subtype", "customer_file_source", "description", "appsecret_proof"}:
                return failed(Failure(400, 100, 0, "Invalid parameter"))
            if body.get("subtype") == "CUSTOM" and not body.get("customer_file_source"):
                return failed(Failure(400, 100, 1870053, "customer_file_source is missing"))
            made = str(max((int(one) for one in self.audiences), default=0) + 1)
            self.audiences.add(made)
            self.described[made] = {"id": made, "name": body["name"], "subtype": "CUSTOM"}
            return web.json_response({"id": made})
        ids = sorted(self.audiences, key=int)
        start, size = int(request.query.get("after", "0")), min(int(request.query.get("limit", "25")), 2)
        page = [self._description(one) for one in ids[start : start + size]]
        wanted = request.query["fields"].split(",")
        data = [{name: one[name] for name in wanted if name in one} for one in page]
        paging: dict[str, Any] = {"cursors": {"before": str(start), "after": str(start + size)}}
        if start + size < len(ids):
            paging["next"] = f"{self.url}{request.path}?after={start + size}"
        return web.json_response({"data": data, "paging": paging})

    async def _audience(self, request: web.Request) -> web.Response:
        body = await self._admitted(request)
        if isinstance(body, web.Response):
            return body
        audience = request.match_info["audience"]
        if audience not in self.audiences:
            return failed(Failure(400, 100, 33, f"Object with ID '{audience}' does not exist"))
        wanted = request.query["fields"].split(",")
        return web.json_response({k: v for k, v in self._description(audience).items() if k in wanted})

    def _description(self, audience: str) -> dict[str, Any]:
        ordinary = {
            "id": audience,
            "name": f"Audience {audience}",
            "subtype": "CUSTOM",
            "approximate_count_lower_bound": 1_000,
            "operation_status": {"code": 200, "description": "Normal"},
            "permission_for_actions": {"can_edit": True, "can_see_insight": "True", "can_share": "True"},
        }
        return {**ordinary, **self.described.get(audience, {})}

    async def _admitted(self, request: web.Request) -> dict[str, Any] | web.Response:
        """The body of a request that may go on, else the answer to it."""
        if "access_token" in request.query or self.token in request.path_qs:
            self.violations.append("token in the address")
        if self.failures:
            return failed(self.failures.popleft())
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return failed(Failure(401, 190, 0, "Invalid OAuth access token - Cannot parse access token"))
        if request.match_info["version"] not in VERSIONS:
            return failed(Failure(400, 2635, 0, "You are calling a deprecated version of the Ads API."))
        body: Any = dict(request.query)
        if request.method != "GET":
            try:
                body = json.loads(await request.read())
            except ValueError:
                return failed(Failure(400, 100, 0, "Invalid parameter"))
        if self.app_secret:
            proof = hmac.new(self.app_secret.encode(), self.token.encode(), hashlib.sha256).hexdigest()
            if body.get("appsecret_proof") != proof:
                return failed(Failure(400, 100, 0, "Invalid appsecret_proof provided in the API argument"))
        return body if isinstance(body, dict) else failed(Failure(400, 100, 0, "Invalid parameter"))

    def _change(self, audience: str, method: str, payload: dict[str, Any]) -> dict[str, Any]:
        held, people = self.rows.setdefault(audience, set()), self.people.setdefault(audience, set())
        invalid: list[list[str]] = []
        for cells in payload["data"]:
            row = _row(payload["schema"], cells)
            if row is None or any(value in self.bad_cells for _, value in row):
                invalid.append([cell for cell in cells if isinstance(cell, str)])
                continue
            found = {self.known[value] for _, value in row if value in self.known}
            if method == "POST":
                held.add(row)
                people |= found
            else:
                held.discard(row)
                people -= found
        return {
            "audience_id": audience,
            "session_id": "778899",
            "num_received": len(payload["data"]),
            "num_invalid_entries": len(invalid),
            # The shape is not documented; this is the most roundabout that a client must cope with.
            "invalid_entry_samples": {json.dumps(cells): "invalid" for cells in invalid} if self.gives_samples else {},
        }


def _row(schema: list[str], cells: list[Any]) -> Row | None:
    """A row as the list keeps it; None when it is invalid."""
    filled = [(key, cell) for key, cell in zip(schema, cells, strict=True) if key != "DATA_PROCESSING_OPTIONS" and cell]
    if not filled or any(key in HASHED and not _SHA256.fullmatch(cell) for key, cell in filled):
        return None
    return frozenset(filled)


def _problem(body: Any) -> str:
    """Why the whole request is refused; empty when it is not."""
    payload = body.get("payload") if isinstance(body, dict) else None
    if not isinstance(payload, dict) or set(body) - {"payload", "session", "appsecret_proof"}:
        return "Invalid parameter: payload"
    schema, data = payload.get("schema"), payload.get("data")
    if not isinstance(schema, list) or set(schema) - HASHED - PLAIN - {"DATA_PROCESSING_OPTIONS"}:
        return "Invalid parameter: schema"
    if payload.get("is_raw", False) is not False:
        return "Invalid parameter: is_raw with hashed values"
    if not isinstance(data, list) or not data:
        return "Invalid parameter: data"
    if len(data) > MAX_ROWS:
        return f"Invalid parameter: at most {MAX_ROWS} rows"
    if any(not isinstance(cells, list) or len(cells) != len(schema) for cells in data):
        return "Invalid parameter: a row does not fit the schema"
    return ""


def failed(failure: Failure) -> web.Response:
    """The answer with which Meta says that something failed."""
    if failure.html:
        return web.Response(
            status=failure.status, text="<html>Sorry</html>", content_type="text/html", headers=failure.headers
        )
    error = {"message": failure.message, "type": "OAuthException", "code": failure.code, "fbtrace_id": "AbCdEf"}
    if failure.subcode:
        error["error_subcode"] = failure.subcode
    if failure.transient:
        error["is_transient"] = True
    return web.json_response({"error": error}, status=failure.status, headers=failure.headers)
