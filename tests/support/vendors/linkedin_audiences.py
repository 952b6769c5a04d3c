"""A vendor that keeps the documented rules of LinkedIn's DMP segments, with a status for each element."""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_FORMS = {
    "SHA256_EMAIL": re.compile(r"[0-9a-f]{64}"),
    "SHA512_EMAIL": re.compile(r"[0-9a-f]{128}"),
    "GOOGLE_AID": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
}
_MEMBERS = frozenset({"action", "userIds", "firstName", "lastName", "title", "company", "country"})


@dataclass
class FakeLinkedInAudiences:
    """The vendor. Point a destination's base_url at `url`, look at who is on its segments."""

    token: str = "linkedin-token-for-tests"
    versions: frozenset[str] = frozenset({"202605", "202606", "202607"})
    segments: dict[str, str] = field(default_factory=lambda: {"101": "USER", "102": "COMPANY"})
    """Segment to its type."""
    members: dict[str, set[str]] = field(default_factory=dict)
    """Ids or names by segment."""
    sizes: list[int] = field(default_factory=list)
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=50_000_000)
        app.router.add_post("/rest/dmpSegments/{segment}/users", self._users)
        app.router.add_get("/rest/dmpSegments/{segment}", self._segment)
        app.router.add_get("/rest/dmpSegments", self._list)
        app.router.add_post("/rest/dmpSegments", self._make)
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
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _error(401, "The token used in the request is invalid")
        if request.headers.get("LinkedIn-Version") not in self.versions:
            return _error(426, "Requested version is not active")
        if request.headers.get("X-Restli-Protocol-Version") != "2.0.0":
            return _error(400, "Unsupported protocol version")
        segment = request.match_info.get("segment")
        if segment is not None and segment not in self.segments:
            return _error(404, "Could not find entity")
        return None

    async def _users(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        elements = json.loads(await request.read())["elements"]
        if request.headers.get("X-RestLi-Method") != "BATCH_CREATE" or not 1 <= len(elements) <= 5_000:
            return _error(400, "From 1 to 5000 elements by BATCH_CREATE")
        self.sizes.append(len(elements))
        there = self.members.setdefault(request.match_info["segment"], set())
        statuses: list[dict[str, Any]] = []
        for one in elements:
            if problem := _wrong(one):
                statuses.append({"status": 400, "error": {"status": 400, "message": problem}})
                continue
            names = {known["idValue"] for known in one.get("userIds", [])} or {one["lastName"]}
            there |= names if one["action"] == "ADD" else set()
            there -= names if one["action"] == "REMOVE" else set()
            statuses.append({"status": 201})
        return web.json_response({"elements": statuses})

    async def _segment(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        return web.json_response(self._described(request.match_info["segment"]))

    async def _list(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        if request.query.get("q") != "account" or request.query.get("account") != "urn:li:sponsoredAccount:123":
            return _error(403, "Not enough permissions")
        start, count = int(request.query["start"]), int(request.query["count"])
        found = [self._described(one) for one in self.segments][start : start + count]
        return web.json_response({"elements": found, "paging": {"start": start, "count": count}})

    async def _make(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        body = json.loads(await request.read())
        if set(body) != {"accessPolicy", "account", "destinations", "name", "sourcePlatform", "type"}:
            return _error(422, "/ :: a required field is missing")
        made = str(200 + len(self.segments))
        self.segments[made] = body["type"]
        return web.Response(status=201, headers={"x-restli-id": made})

    def _described(self, segment: str) -> dict[str, Any]:
        size = len(self.members.get(segment, ()))
        destinations = [{"destination": "LINKEDIN", "status": "READY", "audienceSize": size}]
        return {"id": int(segment), "name": f"S{segment}", "type": self.segments[segment], "destinations": destinations}


def _wrong(one: dict[str, Any]) -> str:
    if set(one) - _MEMBERS or one.get("action") not in ("ADD", "REMOVE"):
        return "unrecognized field"
    if not one.get("userIds") and not {"firstName", "lastName"} <= set(one):
        return "firstName and lastName are required without userIds"
    for known in one.get("userIds", []):
        if known["idType"] not in _FORMS or not _FORMS[known["idType"]].fullmatch(known["idValue"]):
            return "userIds: is no id"
    return ""


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"status": status, "message": message}, status=status)
