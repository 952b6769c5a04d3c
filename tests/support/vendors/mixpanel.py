"""A vendor that keeps the documented rules of Mixpanel's /import, /engage, /groups and deletions."""

from __future__ import annotations

import base64
import json
import re
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_INSERT_ID = re.compile(r"[A-Za-z0-9-]{1,36}")
_NOBODY = {"anon", "anonymous", "nil", "none", "null", "n/a", "undefined", "unknown", "0", "-1", "true", "false"}
_OPERATIONS = {"$set", "$set_once", "$add", "$union", "$append", "$remove", "$unset", "$delete"}


@dataclass
class FakeMixpanel:
    """The vendor. Point a destination's base_url at `url`, look at what it stored."""

    token: str = "projecttoken1"
    account: str = "sender.1.mp-service-account"
    secret: str = "service-secret-for-tests"
    project: str = "4711"
    gdpr_token: str = "gdpr-token-for-tests"
    events: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)
    """By what Mixpanel knows duplicates by."""
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    deletions: list[list[str]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=50_000_000)
        app.router.add_post("/import", self._import)
        app.router.add_post("/engage", self._engage)
        app.router.add_post("/groups", self._groups)
        app.router.add_get("/lookup-tables", self._tables)
        app.router.add_post("/api/app/data-deletions/v3.0/", self._delete)
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

    async def _import(self, request: web.Request) -> web.Response:
        if self.failures:
            return self.failures.popleft()
        if not self._let_in(request):
            return _error(401, "Invalid credentials", "Unauthorized")
        body = await request.read()
        if len(body) > 2_097_152:
            return _error(413, "request exceeds max limit of 2097152 bytes", "Request Entity Too Large")
        records = json.loads(body)
        if request.query.get("strict") != "1" or not 1 <= len(records) <= 2_000:
            return _error(400, "between 1 and 2000 events, with strict=1", "Bad Request")
        self.sizes.append(len(records))
        failed = []
        for index, record in enumerate(records):
            where, problem = wrong_event(record, int(time.time() * 1_000))
            properties = record["properties"]
            if problem:
                failed.append(
                    {"index": index, "insert_id": properties.get("$insert_id"), "field": where, "message": problem}
                )
                continue
            known = (properties.get(key) for key in ("time", "distinct_id", "$insert_id"))
            self.events[(record["event"], *(str(one) for one in known))] = record
        stored = len(records) - len(failed)
        if failed:
            said = {"error": "some data points in the request failed validation", "failed_records": failed}
            answer = {"code": 400, "status": "Bad Request", "num_records_imported": stored, **said}
            return web.json_response(answer, status=400)
        return web.json_response({"code": 200, "num_records_imported": stored, "status": "OK"})

    async def _engage(self, request: web.Request) -> web.Response:
        return await self._updates(request, 2_000, ("$distinct_id",))

    async def _groups(self, request: web.Request) -> web.Response:
        return await self._updates(request, 200, ("$group_key", "$group_id"))

    async def _updates(self, request: web.Request, most: int, keys: tuple[str, ...]) -> web.Response:
        """Answers 200 even where nothing was taken, as the vendor does."""
        if self.failures:
            return self.failures.popleft()
        updates = json.loads(await request.read())
        if not 1 <= len(updates) <= most:
            return web.json_response({"status": 0, "error": f"at most {most} updates"})
        failed = []
        for index, update in enumerate(updates):
            operations = [one for one in update if one in _OPERATIONS]
            if update.get("$token") != self.token or len(operations) != 1:
                failed.append({"index": index, "field": "$token", "message": "'$token' or operation is invalid"})
            elif any(not isinstance(update.get(key), str) or not update[key] for key in keys):
                failed.append({"index": index, "field": keys[-1], "message": f"'{keys[-1]}' is invalid"})
            elif operations[0] == "$set" and len(update["$set"]) > 2_000:
                failed.append({"index": index, "field": "$set", "message": "'$set' has too many properties"})
            else:
                self._apply(update, operations[0], keys)
        if failed:
            error = "some data points in the request failed validation"
            return web.json_response(
                {"code": 400, "error": error, "failed_records": failed, "num_good_events": len(updates) - len(failed)}
            )
        return web.json_response({"error": None, "status": 1})

    def _apply(self, update: dict[str, Any], operation: str, keys: tuple[str, ...]) -> None:
        if len(keys) == 2:
            self.groups.setdefault((update["$group_key"], update["$group_id"]), {}).update(update["$set"])
            return
        who = update["$distinct_id"]
        if operation == "$delete":
            self.profiles.pop(who, None)
            return
        profile = self.profiles.setdefault(who, {})
        for name, value in update[operation].items():
            listed = [one for one in profile.get(name, []) if operation != "$set" and one != value]
            if operation == "$union":
                profile[name] = listed + [one for one in value if one not in listed]
            else:
                profile[name] = value if operation == "$set" else listed

    async def _tables(self, request: web.Request) -> web.Response:
        if request.query.get("project_id") != self.project or not self._let_in(request):
            return _error(401, "Invalid credentials", "Unauthorized")
        return web.json_response({"code": 200, "status": "OK", "results": []})

    async def _delete(self, request: web.Request) -> web.Response:
        if self.failures:
            return self.failures.popleft()
        if request.headers.get("Authorization") != f"Bearer {self.gdpr_token}":
            return web.json_response({"status": "error", "error": "Invalid token"}, status=401)
        body = json.loads(await request.read())
        if request.query.get("token") != self.token or not 1 <= len(body["distinct_ids"]) <= 1_999:
            return web.json_response({"status": "error", "error": "invalid request"}, status=400)
        self.deletions.append(body["distinct_ids"])
        return web.json_response({"status": "ok", "results": {"task_id": "t-1"}}, status=201)

    def _let_in(self, request: web.Request) -> bool:
        scheme, _, pair = request.headers.get("Authorization", "").partition(" ")
        known = base64.b64decode(pair).decode() if scheme == "Basic" else ""
        if "project_id" in request.query:
            return known == f"{self.account}:{self.secret}" and request.query["project_id"] == self.project
        return known == f"{self.token}:"


def wrong_event(record: dict[str, Any], now_ms: int) -> tuple[str, str]:
    """Field at fault and why, by Mixpanel's rules; empty when nothing is."""
    properties = record.get("properties", {})
    if not isinstance(record.get("event"), str) or not record["event"]:
        return "event", "'event' is invalid: must be a non-empty string"
    if record["event"] == "$merge":
        ids = properties.get("$distinct_ids", [])
        return ("", "") if len(ids) == 2 else ("properties.$distinct_ids", "must be two ids")
    moment = properties.get("time")
    if not isinstance(moment, int) or not 31_536_000_000 <= moment <= now_ms + 3_600_000:
        return "properties.time", "'properties.time' is invalid: must be after 1971 and not in the future"
    who = properties.get("distinct_id")
    if not isinstance(who, str) or who.lower() in _NOBODY:
        return "properties.distinct_id", "'properties.distinct_id' is invalid"
    insert_id = properties.get("$insert_id")
    if not isinstance(insert_id, str) or not _INSERT_ID.fullmatch(insert_id):
        return "properties.$insert_id", "'properties.$insert_id' is invalid: alphanumeric or -, at most 36 bytes"
    if len(properties) >= 255:
        return "properties", "'properties' is invalid: must have fewer than 255 properties"
    for name, value in properties.items():
        if _depth(value) > 3 or (isinstance(value, list | dict) and len(value) >= 255):
            return f"properties.{name}", f"'properties.{name}' is invalid: too deep or too large"
    return "", ""


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0) if isinstance(value, dict | list) else 0


def _error(code: int, error: str, status: str) -> web.Response:
    return web.json_response({"code": code, "error": error, "status": status}, status=code)
