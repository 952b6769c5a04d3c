"""A vendor that keeps the documented rules of Customer.io's Track API (v1 and v2) and of the App API's segments."""

from __future__ import annotations

import base64
import json
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_PERSON = {"id", "email", "phone", "cio_id"}
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_ACTIONS = {
    "person": {"identify", "delete", "event", "page", "screen", "merge", "suppress", "add_relationships"},
    "object": {"identify", "delete", "add_relationships"},
}


@dataclass
class FakeCustomerIo:
    """The vendor. Point a destination's base_url at `url`, look at what it holds."""

    site_id: str = "site-for-tests"
    api_key: str = "track-key-for-tests"
    app_api_key: str = "app-key-for-tests"
    region: str = "us"
    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Attributes by id or e-mail address."""
    suppressed: set[str] = field(default_factory=set)
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By their ULID: a repeated one is ignored."""
    anonymous: dict[str, dict[str, Any]] = field(default_factory=dict)
    segments: dict[int, dict[str, Any]] = field(
        default_factory=lambda: {7: {"name": "Mine", "type": "manual"}, 8: {"name": "Theirs", "type": "dynamic"}}
    )
    members: set[str] = field(default_factory=set)
    sizes: list[int] = field(default_factory=list)
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=50_000_000)
        app.router.add_post("/api/v2/batch", self._batch)
        app.router.add_post("/api/v1/events", self._anonymous)
        app.router.add_post("/api/v1/segments/{segment}/{action}", self._change)
        app.router.add_get("/api/v1/accounts/region", self._region)
        app.router.add_get("/v1/segments", self._list)
        app.router.add_get("/v1/segments/{segment}", self._segment)
        app.router.add_post("/v1/segments", self._make)
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

    def _refused(self, request: web.Request) -> web.Response | None:
        if self.failures:
            return self.failures.popleft()
        pair = base64.b64encode(f"{self.site_id}:{self.api_key}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {pair}":
            return web.json_response({"meta": {"error": "Unauthorized request"}}, status=401)
        return None

    async def _batch(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        body = await request.read()
        operations = json.loads(body).get("batch")
        if len(body) > 500_000 or not isinstance(operations, list) or not operations:
            error = {"reason": "invalid", "field": "batch", "message": "must have operations and be smaller than 500kb"}
            return web.json_response({"errors": [error]}, status=400)
        self.sizes.append(len(operations))
        errors = []
        for index, operation in enumerate(operations):
            where, problem = wrong_operation(operation)
            if problem:
                errors.append({"batch_index": index, "reason": "invalid", "field": where, "message": problem})
            else:
                self._apply(operation)
        return web.json_response({"errors": errors}, status=207) if errors else web.json_response({})

    def _apply(self, operation: dict[str, Any]) -> None:
        action = operation["action"]
        if operation["type"] == "object":
            self.objects[operation["identifiers"]["object_id"]] = operation
        elif action == "merge":
            (primary,), (secondary,) = operation["primary"].values(), operation["secondary"].values()
            self.people[primary] = {**self.people.pop(secondary, {}), **self.people.get(primary, {})}
        else:
            (who,) = operation["identifiers"].values()
            if action == "identify" and who not in self.suppressed:
                self.people.setdefault(who, {}).update(operation["attributes"])
            elif action in ("delete", "suppress"):
                self.people.pop(who, None)
                self.suppressed |= {who} if action == "suppress" else set()
            elif action in ("event", "page", "screen"):
                self.events.setdefault(operation["id"], operation)

    async def _anonymous(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        event = json.loads(await request.read())
        if not event.get("name") or event.get("type") not in ("event", "page", "screen"):
            return web.json_response({"meta": {"errors": ["name cannot be blank"]}}, status=400)
        if not _ULID.fullmatch(event.get("id", "")) or not isinstance(event.get("timestamp"), int):
            return web.json_response({"meta": {"errors": ["id must be a ULID"]}}, status=400)
        self.anonymous.setdefault(event["id"], event)
        return web.json_response({})

    async def _change(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        segment = self.segments.get(int(request.match_info["segment"]))
        if segment is None:
            return web.json_response({"meta": {"error": "not found"}}, status=404)
        ids = json.loads(await request.read()).get("ids", [])
        is_known = request.query.get("id_type", "id") in ("id", "email", "cio_id")
        if segment["type"] != "manual" or not is_known or not 1 <= len(ids) <= 1_000:
            return web.json_response({"meta": {"errors": ["invalid request"]}}, status=400)
        if any(len(id.encode()) > 150 for id in ids):
            return web.json_response({"meta": {"errors": ["id is too long"]}}, status=400)
        self.sizes.append(len(ids))
        self.members = self.members | set(ids) if "add" in request.match_info["action"] else self.members - set(ids)
        return web.json_response({})

    async def _region(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        return web.json_response({"url": self.url, "region": self.region, "environment_id": 3})

    def _kept_out(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") != f"Bearer {self.app_api_key}"

    async def _list(self, request: web.Request) -> web.Response:
        if self._kept_out(request):
            return web.json_response({"errors": [{"detail": "unauthorized"}]}, status=401)
        return web.json_response({"segments": [{"id": id, **one} for id, one in self.segments.items()]})

    async def _segment(self, request: web.Request) -> web.Response:
        if self._kept_out(request):
            return web.json_response({"errors": [{"detail": "unauthorized"}]}, status=401)
        found = self.segments.get(int(request.match_info["segment"]))
        if found is None:
            return web.json_response({"errors": [{"detail": "not found"}]}, status=404)
        return web.json_response({"segment": {"id": int(request.match_info["segment"]), **found}})

    async def _make(self, request: web.Request) -> web.Response:
        if self._kept_out(request):
            return web.json_response({"errors": [{"detail": "unauthorized"}]}, status=401)
        given = json.loads(await request.read())["segment"]
        id = max(self.segments) + 1
        self.segments[id] = {"name": given["name"], "type": "manual"}
        return web.json_response({"segment": {"id": id, **self.segments[id]}})


def wrong_operation(operation: dict[str, Any]) -> tuple[str, str]:
    """Field at fault and why, by Customer.io's rules; empty when nothing is."""
    kind, action = operation.get("type"), operation.get("action")
    if action not in _ACTIONS.get(str(kind), ()):
        return "action", "is not supported for this type"
    if len(json.dumps(operation, ensure_ascii=False).encode("utf-8", "replace")) > 32 * 1024:
        return "", "is larger than 32kb"
    people = [operation.get(one) for one in ("primary", "secondary")] if action == "merge" else []
    for person in people or [operation.get("identifiers")]:
        if not isinstance(person, dict) or any(
            len(str(one).encode("utf-8", "replace")) > 150 for one in person.values()
        ):
            return "identifiers", "is invalid"
        names = {"object_type_id", "object_id"} if kind == "object" else set(person) & _PERSON
        if set(person) != names or (kind == "person" and len(person) != 1) or not all(person.values()):
            return "identifiers", "must be one identifier"
    attributes = operation.get("attributes", {})
    if action == "identify":
        if len(attributes) > 300 or any(len(name.encode("utf-8", "replace")) > 150 for name in attributes):
            return "attributes", "has too many attributes, or too long names"
        for name, value in attributes.items():
            if isinstance(value, str) and len(value.encode("utf-8", "replace")) > 1_000:
                return f"attributes.{name}", "is too long"
        if not isinstance(attributes.get("created_at", 0), int):
            return "attributes.created_at", "must be a Unix timestamp"
    if action in ("event", "page", "screen"):
        name = operation.get("name")
        if not isinstance(name, str) or not 1 <= len(name.encode("utf-8", "replace")) <= 100:
            return "name", "must have 1 to 100 bytes"
        if not _ULID.fullmatch(operation.get("id", "")):
            return "id", "must be a ULID"
        if not isinstance(operation.get("timestamp"), int):
            return "timestamp", "must be a Unix timestamp"
    return "", ""
