"""A vendor that keeps the documented rules of TikTok's Events API 2.0, and answers 200 with a code of its own.

Nothing of a request is stored if one event in it is wrong. An event of a name and id counts once.
"""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TOP = frozenset({"event_source", "event_source_id", "test_event_code", "partner_name", "data"})
_EVENT = frozenset(
    {"event", "event_time", "event_id", "user", "properties", "page", "app", "ad", "lead", "limited_data_use"}
)
_HASHED = ("email", "phone", "external_id", "first_name", "last_name", "zip_code")
_MATCHING = frozenset({"email", "phone", "external_id", "ttclid", "ttp", "ip", "user_agent", "idfa", "idfv", "gaid"})
_ONLY_FOR = {"page": "web", "app": "app", "ad": "app", "lead": "crm"}


@dataclass
class FakeTikTokEvents:
    """The vendor. Point a destination's base_url at `url`, look at what it counted."""

    token: str = "tiktok-token-for-tests"
    sources: dict[str, str] = field(
        default_factory=lambda: {"PIXEL123": "web", "7123": "app", "8123": "offline", "9123": "crm"}
    )
    """Event source id to its kind."""
    names_places: bool = True
    """Whether a refusal names the place of the event at fault."""
    requests_a_second: int = 10
    counted: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """Events by name and id."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What was wrong in requests."""
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _moments: deque[float] = field(default_factory=deque)
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=50_000_000)
        app.router.add_post("/open_api/v1.3/event/track/", self._track)
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

    async def _track(self, request: web.Request) -> web.Response:
        if self.failures:
            return self.failures.popleft()
        if self._too_many():
            return answer(40100, "Too many requests. Please retry in some time.")
        if request.headers.get("Access-Token") != self.token:
            return answer(40105, "Access token is incorrect or has been revoked.")
        body = json.loads(await request.read())
        kind = self.sources.get(str(body.get("event_source_id")))
        if kind is None:
            return answer(40002, "Invalid value for event_source_id.")
        if problem := next(self._wrong(request, body, kind), ""):
            self.problems.append(problem)
            return answer(40002, problem)
        self.bodies.append(body)
        for event in body["data"]:
            self.counted.setdefault((event["event"], event.get("event_id", "")), event)
        return answer(0, "OK")

    def _too_many(self) -> bool:
        now = time.monotonic()
        while self._moments and self._moments[0] < now - 1:
            self._moments.popleft()
        self._moments.append(now)
        return len(self._moments) > self.requests_a_second

    def _wrong(self, request: web.Request, body: dict[str, Any], kind: str) -> Iterator[str]:
        if request.content_type != "application/json" or set(body) - _TOP:
            yield "unknown member of the request"
        if body.get("event_source") != kind:
            yield "event_source: does not match"
        events = body.get("data")
        if not isinstance(events, list) or not 1 <= len(events) <= 1_000:
            yield "data: from 1 to 1000 events"
            return
        for place, event in enumerate(events):
            where = f"data[{place}]" if self.names_places else "an event"
            yield from (f"{where}.{problem}" for problem in _wrong_event(event, kind))


def _wrong_event(event: dict[str, Any], kind: str) -> Iterator[str]:
    if set(event) - _EVENT:
        yield "unknown member"
    if not isinstance(event.get("event"), str) or not event["event"]:
        yield "event: Missing data for required field"
    moment = event.get("event_time")
    if not isinstance(moment, int) or not 0 < moment <= time.time() + 1:
        yield "event_time: seconds since 1970, not in the future"
    if not isinstance(event.get("event_id"), str):
        yield "event_id: Not a valid string"
    for member, only in _ONLY_FOR.items():
        if member in event and kind != only:
            yield f"{member}: only for {only}"
    user = event.get("user", {})
    if not _MATCHING & set(user) and "lead_id" not in event.get("lead", {}):
        yield "user: nothing to match by"
    for name in _HASHED:
        found = user.get(name, [])
        if not all(_SHA256.fullmatch(one) for one in (found if isinstance(found, list) else [found])):
            yield f"user.{name}: Not a SHA-256"
    if not re.fullmatch("[a-z]{2}", user.get("country", "de")):
        yield "user.country: two lower-case letters"
    yield from _wrong_properties(event.get("properties", {}))


def _wrong_properties(properties: dict[str, Any]) -> Iterator[str]:
    if not isinstance(properties.get("value", 0), int | float) or isinstance(properties.get("value"), bool):
        yield "properties.value: Not a valid number"
    if not re.fullmatch("[A-Z]{3}", properties.get("currency", "EUR")):
        yield "properties.currency: Not one of the currencies"
    if properties.get("content_type", "product") not in ("product", "product_group"):
        yield "properties.content_type: product or product_group"
    for content in properties.get("contents", []):
        if not isinstance(content.get("content_id", ""), str):
            yield "properties.contents.content_id: Not a valid string"
        if not isinstance(content.get("price", 0), int | float) or not isinstance(content.get("quantity", 1), int):
            yield "properties.contents: Not a valid number"


def answer(code: int, message: str) -> web.Response:
    """An answer of TikTok: 200 whatever happened."""
    return web.json_response({"code": code, "message": message, "request_id": "20261126", "data": {}})
