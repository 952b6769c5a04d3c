"""A vendor that keeps BigQuery's documented rules: tabledata.insertAll and tables.get, with tokens of service accounts.

https://docs.cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll
https://docs.cloud.google.com/bigquery/docs/error-messages
https://docs.cloud.google.com/bigquery/quotas#streaming_inserts
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_SCOPE = "https://www.googleapis.com/auth/bigquery"
_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_PRIVATE = _KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


@dataclass
class FakeBigQuery:
    """The vendor: one table in one dataset of one project; `url` for the setting base_url."""

    email: str = "writer@shop-12345.iam.gserviceaccount.com"
    project: str = "shop-12345"
    dataset: str = "shop"
    table: str = "headrace_events"
    schema: dict[str, str] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rows by insertId: a repetition is dropped."""
    tokens: set[str] = field(default_factory=set)
    failures: deque[web.Response] = field(default_factory=deque)
    may_write: bool = True
    requests: int = 0
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=10_000_000)
        app.router.add_post("/token", self._token)
        path = "/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{table}"
        app.router.add_get(path, self._get)
        app.router.add_post(f"{path}/insertAll", self._insert_all)
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

    @property
    def key_file(self) -> str:
        """For the setting service_account."""
        found = {"client_email": self.email, "private_key_id": "k1", "private_key": _PRIVATE}
        return json.dumps(found | {"token_uri": f"{self.url}/token"})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        try:
            claims = jwt.decode(
                str(form.get("assertion")), _KEY.public_key(), algorithms=["RS256"], audience=f"{self.url}/token"
            )
        except jwt.InvalidTokenError:
            return web.json_response({"error": "invalid_grant"}, status=400)
        wanted = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        if form.get("grant_type") != wanted or claims["iss"] != self.email or claims["scope"] != _SCOPE:
            return web.json_response({"error": "invalid_scope"}, status=400)
        token = f"ya29.bigquery-{len(self.tokens)}"
        self.tokens.add(token)
        return web.json_response({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    async def _get(self, request: web.Request) -> web.Response:
        refused = self._refusal(request)
        fields = [{"name": name, "type": type, "mode": "NULLABLE"} for name, type in self.schema.items()]
        return refused or web.json_response({"kind": "bigquery#table", "schema": {"fields": fields}})

    async def _insert_all(self, request: web.Request) -> web.Response:
        refused = self._refusal(request)
        if refused is not None:
            return refused
        self.requests += 1
        if self.failures:
            return self.failures.popleft()
        body = await request.json()
        rows = body.get("rows")
        if set(body) - {"kind", "skipInvalidRows", "ignoreUnknownValues", "templateSuffix", "rows", "traceId"}:
            return error(400, "badRequest")
        if not isinstance(rows, list) or not 0 < len(rows) <= 50_000:
            return error(400, "invalid")
        found = [self._wrong_with(row) for row in rows]
        is_partial = body.get("skipInvalidRows") is True
        errors = []
        stopped = {"reason": "stopped", "location": "", "message": ""}
        if any(found) and not is_partial:
            found = [wrong or stopped for wrong in found]
        for place, (row, wrong) in enumerate(zip(rows, found, strict=True)):
            if wrong is None:
                self.rows.setdefault(row["insertId"], row["json"])
            else:
                errors.append({"index": place, "errors": [wrong]})
        answer: dict[str, Any] = {"kind": "bigquery#tableDataInsertAllResponse"}
        return web.json_response(answer | ({"insertErrors": errors} if errors else {}))

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return error(401, "authError")
        asked = tuple(request.match_info[name] for name in ("project", "dataset", "table"))
        if asked != (self.project, self.dataset, self.table):
            return error(404, "notFound")
        return None if self.may_write else error(403, "accessDenied")

    def _wrong_with(self, row: Any) -> dict[str, str] | None:
        if not isinstance(row, dict) or set(row) - {"insertId", "json"} or len(row.get("insertId", "")) > 128:
            return {"reason": "invalid", "location": "", "message": "bad row"}
        for name, value in row["json"].items():
            if name not in self.schema:
                return {"reason": "invalid", "location": name, "message": f"no such field: {name}."}
            if not _fits(self.schema[name], value):
                return {"reason": "invalid", "location": name, "message": f"bad value: {value}"}
        return None


def _fits(type: str, value: Any) -> bool:
    if not isinstance(value, str):
        return type == "INTEGER" and isinstance(value, int)
    try:
        if type == "JSON":
            json.loads(value)
        elif type == "TIMESTAMP":
            datetime.fromisoformat(value)
    except ValueError:
        return False
    return type != "INTEGER"


def error(status: int, reason: str) -> web.Response:
    """An error as Google writes it."""
    errors = [{"domain": "global", "reason": reason, "message": "no"}]
    return web.json_response({"error": {"code": status, "message": "no", "errors": errors}}, status=status)
