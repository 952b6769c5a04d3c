"""A vendor to play with: a local HTTP server with one list API and one webhook, that limits rates and fails at times.

The list API has the shape of Meta's Custom Audiences `users` edge: POST adds rows, DELETE removes them, rows with a
value that is no SHA-256 are counted as invalid, too many requests a second are refused with Meta's throttling error,
and every seventh request fails with a server error before it does anything. The webhook answers 503 with Retry-After
to every ninth delivery it sees for the first time. All of it is deterministic, so a run can be repeated.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

ACCESS_TOKEN = "sandbox-access-token"  # noqa: S105 - of the sandbox, which holds nothing
_SHA256 = re.compile(r"[0-9a-f]{64}")
_THROTTLE_CODE = 80003
_HASHED_KEYS = {"EMAIL", "PHONE", "FN", "LN", "CT", "ST", "ZIP", "COUNTRY", "GEN", "DOBY", "DOBM", "DOBD", "FI"}

Row = frozenset[tuple[str, str]]
"""A row of a list: (key of the schema, value) of each cell that is not empty."""


@dataclass
class SandboxVendor:
    """The sandbox: what it holds can be read at any time."""

    requests_per_second: int = 50
    lists: dict[str, set[Row]] = field(default_factory=dict)
    """Rows of each list."""
    webhook_ids: dict[str, int] = field(default_factory=dict)
    """How often each idempotency key was accepted by the webhook."""
    refused: dict[str, int] = field(default_factory=dict)
    """How often each kind of refusal was answered."""
    port: int = 0
    _runner: web.AppRunner | None = None
    _list_requests: int = 0
    _hook_first_seen: dict[str, int] = field(default_factory=dict)
    _second: tuple[int, int] = (0, 0)

    async def start(self) -> None:
        """Listen on a free port of the loopback interface."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("POST", "/{version}/{audience}/users", self._change_list)
        app.router.add_route("DELETE", "/{version}/{audience}/users", self._change_list)
        app.router.add_route("POST", "/hook", self._hook)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Address of the sandbox."""
        return f"http://127.0.0.1:{self.port}"

    async def _change_list(self, request: web.Request) -> web.Response:
        fields = await _fields(request)
        token = fields.get("access_token") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token != ACCESS_TOKEN:
            return self._refuse("unauthorized", 401, 190, "Invalid OAuth access token.")
        self._list_requests += 1
        if self._list_requests % 7 == 0:
            return self._refuse("server_error", 500, 2, "Service temporarily unavailable.")
        if self._too_fast():
            return self._refuse("throttled", 400, _THROTTLE_CODE, "There have been too many calls to this account.")
        payload = fields.get("payload")
        payload = json.loads(payload) if isinstance(payload, str) else payload
        if not isinstance(payload, dict) or not isinstance(payload.get("data"), list):
            return self._refuse("bad_request", 400, 100, "Invalid parameter: payload.")
        schema = [payload["schema"]] if isinstance(payload["schema"], str) else payload["schema"]
        rows = [tuple(row) if isinstance(row, list) else (row,) for row in payload["data"]]
        valid = [_row(schema, row) for row in rows if _valid(schema, row)]
        held = self.lists.setdefault(request.match_info["audience"], set())
        if request.method == "POST":
            held.update(valid)
        else:
            held.difference_update(valid)
        return web.json_response(
            {
                "audience_id": request.match_info["audience"],
                "session_id": "1",
                "num_received": len(rows),
                "num_invalid_entries": len(rows) - len(valid),
                "invalid_entry_samples": {},
            }
        )

    async def _hook(self, request: web.Request) -> web.Response:
        key = request.headers.get("Idempotency-Key", "")
        if not key:
            return web.json_response({"error": "no Idempotency-Key"}, status=400)
        if key not in self._hook_first_seen:
            self._hook_first_seen[key] = len(self._hook_first_seen) + 1
            if self._hook_first_seen[key] % 9 == 0:
                self.refused["unavailable"] = self.refused.get("unavailable", 0) + 1
                return web.json_response({"error": "busy"}, status=503, headers={"Retry-After": "1"})
        self.webhook_ids[key] = self.webhook_ids.get(key, 0) + 1
        return web.json_response({"ok": True})

    def _too_fast(self) -> bool:
        second, count = self._second
        now = int(time.monotonic())
        self._second = (now, count + 1) if now == second else (now, 1)
        return self._second[1] > self.requests_per_second

    def _refuse(self, kind: str, status: int, code: int, message: str) -> web.Response:
        self.refused[kind] = self.refused.get(kind, 0) + 1
        error = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "sandbox"}
        return web.json_response({"error": error}, status=status)


async def _fields(request: web.Request) -> dict[str, Any]:
    body = await request.text()
    if "json" in request.content_type:
        fields = json.loads(body or "{}")
        return fields if isinstance(fields, dict) else {}
    return {key: values[-1] for key, values in parse_qs(body).items()}


def _row(schema: list[str], cells: tuple[Any, ...]) -> Row:
    return frozenset((key, str(cell)) for key, cell in zip(schema, cells, strict=True) if cell != "")


def _valid(schema: list[str], row: tuple[Any, ...]) -> bool:
    if len(row) != len(schema) or not any(row):
        return False
    return all(
        cell == "" or key not in _HASHED_KEYS or _SHA256.fullmatch(str(cell)) is not None
        for key, cell in zip(schema, row, strict=True)
    )
