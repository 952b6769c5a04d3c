"""A vendor that keeps the documented rules of the Measurement Protocol of Google Analytics 4.

/mp/collect answers 204 to everything, as Google does, and counts an event only if it is right; /debug/mp/collect says
what is wrong. https://developers.google.com/analytics/devguides/collection/protocol/ga4/reference
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

_NAME = re.compile(r"[A-Za-z]\w{0,39}")
_USER_PROPERTY = re.compile(r"[A-Za-z]\w{0,23}")
_PREFIXES = ("_", "firebase_", "ga_", "google_", "gtag.")
_RESERVED = frozenset({"session_start", "first_visit", "user_engagement", "error", "app_remove", "ad_click"})
_LONGER = {"page_location": 1000, "page_referrer": 420, "page_title": 300}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TOP = frozenset(
    {
        "client_id", "app_instance_id", "user_id", "timestamp_micros", "user_properties", "user_data", "consent",
        "non_personalized_ads", "user_location", "ip_override", "device", "user_agent", "validation_behavior", "events",
    }
)  # fmt: skip
_NUMBERS = frozenset({"value", "price", "quantity", "tax", "shipping", "index", "engagement_time_msec"})
_MOST_BYTES = 130_000
_OLDEST_S = 72 * 3600


@dataclass
class FakeAnalytics:
    """The vendor. Point a destination's base_url at `url`, look at what it counted."""

    api_secret: str = "mp-secret-for-tests"
    streams: set[str] = field(default_factory=lambda: {"G-TEST123456", "1:42:android:abc"})
    counted: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of requests that were right."""
    dropped: list[list[dict[str, str]]] = field(default_factory=list)
    """What was wrong with the others; a client never learns it."""
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_route("*", "/mp/collect", self._collect)
        app.router.add_route("*", "/debug/mp/collect", self._validate)
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

    async def _collect(self, request: web.Request) -> web.Response:
        if self.failures:
            return self.failures.popleft()
        body = await request.read()
        problems = list(self._problems(request, body))
        stream = request.query.get("measurement_id") or request.query.get("firebase_app_id")
        if request.query.get("api_secret") != self.api_secret or stream not in self.streams:
            problems.append(_message("", "VALUE_INVALID"))
        if problems:
            self.dropped.append(problems)
        else:
            self.counted.append(json.loads(body))
        return web.Response(status=204)

    async def _validate(self, request: web.Request) -> web.Response:
        if self.failures:
            return self.failures.popleft()
        return web.json_response({"validationMessages": list(self._problems(request, await request.read()))})

    def _problems(self, request: web.Request, raw: bytes) -> Iterator[dict[str, str]]:
        is_app = "firebase_app_id" in request.query
        if request.method != "POST" or request.content_type != "application/json":
            yield _message("", "VALUE_INVALID")
        if len(raw) >= _MOST_BYTES:
            yield _message("", "EXCEEDED_MAX_ENTITIES")
        body = json.loads(raw)
        who = "app_instance_id" if is_app else "client_id"
        if not isinstance(body.get(who), str) or not body[who]:
            yield _message(who, "VALUE_REQUIRED")
        for name in set(body) - _TOP:
            yield _message(name, "NAME_INVALID")
        moment = body.get("timestamp_micros")
        if moment is not None and not (
            isinstance(moment, int) and time.time() - _OLDEST_S <= moment / 1e6 <= time.time()
        ):
            yield _message("timestamp_micros", "VALUE_OUT_OF_BOUNDS")
        if any(value not in ("GRANTED", "DENIED") for value in body.get("consent", {}).values()):
            yield _message("consent", "VALUE_INVALID")
        yield from _user_properties(body.get("user_properties", {}))
        yield from _user_data(body.get("user_data", {}))
        events = body.get("events")
        if not isinstance(events, list) or not events:
            yield _message("events", "VALUE_REQUIRED")
            return
        if len(events) > 25:
            yield _message("events", "EXCEEDED_MAX_ENTITIES")
        for place, event in enumerate(events):
            yield from _event(f"events[{place}]", event, is_app=is_app)


def _event(path: str, event: dict[str, Any], *, is_app: bool) -> Iterator[dict[str, str]]:
    name, params = event.get("name", ""), event.get("params", {})
    if not _NAME.fullmatch(name):
        yield _message(path, "NAME_INVALID")
    if name in _RESERVED or name.startswith(_PREFIXES) or (name == "screen_view" and not is_app):
        yield _message(path, "NAME_RESERVED")
    if len(params) > 25:
        yield _message(f"{path}.params", "EXCEEDED_MAX_ENTITIES")
    for key, value in params.items():
        if key == "items":
            for item in value:
                if "item_id" not in item and "item_name" not in item:
                    yield _message(f"{path}.params.items", "VALUE_REQUIRED")
                for inner, scalar in item.items():
                    yield from _param(f"{path}.params.items", inner, scalar)
        else:
            yield from _param(f"{path}.params", key, value)


def _param(path: str, name: str, value: Any) -> Iterator[dict[str, str]]:
    if not _NAME.fullmatch(name):
        yield _message(path, "NAME_INVALID")
    if name.startswith(_PREFIXES):
        yield _message(path, "NAME_RESERVED")
    right = int | float if name in _NUMBERS else str if name == "transaction_id" else str | int | float
    if not isinstance(value, right) or (isinstance(value, str) and len(value) > _LONGER.get(name, 100)):
        yield _message(f"{path}.{name}", "VALUE_INVALID")
    if name == "currency" and not re.fullmatch("[A-Z]{3}", value):
        yield _message(f"{path}.{name}", "VALUE_INVALID")


def _user_properties(given: dict[str, Any]) -> Iterator[dict[str, str]]:
    if len(given) > 25:
        yield _message("user_properties", "EXCEEDED_MAX_ENTITIES")
    for name, value in given.items():
        if not _USER_PROPERTY.fullmatch(name) or name.startswith(_PREFIXES) or name == "user_id":
            yield _message("user_properties", "NAME_INVALID")
        if set(value) != {"value"} or len(str(value["value"])) > 36:
            yield _message("user_properties", "VALUE_INVALID")


def _user_data(given: dict[str, Any]) -> Iterator[dict[str, str]]:
    digests = [*given.get("sha256_email_address", []), *given.get("sha256_phone_number", [])]
    for address in given.get("address", []):
        digests += [value for key, value in address.items() if key.startswith("sha256_")]
        if not re.fullmatch("[A-Z]{2}", address.get("country", "DE")):
            yield _message("user_data.address.country", "VALUE_INVALID")
    if not all(_SHA256.fullmatch(digest) for digest in digests):
        yield _message("user_data", "VALUE_INVALID")
    if set(given) - {"sha256_email_address", "sha256_phone_number", "address"}:
        yield _message("user_data", "NAME_INVALID")


def _message(path: str, code: str) -> dict[str, str]:
    return {"fieldPath": path, "description": "Something with [a value] in it.", "validationCode": code}
