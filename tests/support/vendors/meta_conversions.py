"""A vendor that enforces the documented rules of Meta's Conversions API: one bad event refuses its whole request.

https://developers.facebook.com/documentation/ads-commerce/conversions-api/using-the-api
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.fake_meta import Failure, failed

VERSIONS = frozenset({"v22.0", "v23.0", "v24.0", "v25.0", "v26.0", "v27.0"})
MOST_EVENTS = 1_000
HASHED = frozenset({"em", "ph", "fn", "ln", "ge", "db", "ct", "st", "zp", "country", "dobd", "dobm", "doby"})
LISTS = frozenset({"em", "ph", "external_id"})
PLAIN = frozenset(
    {
        "external_id",
        "client_ip_address",
        "client_user_agent",
        "fbc",
        "fbp",
        "madid",
        "subscription_id",
        "lead_id",
        "fb_login_id",
    }
)
ACTION_SOURCES = frozenset(
    {
        "email",
        "website",
        "app",
        "phone_call",
        "chat",
        "physical_store",
        "system_generated",
        "business_messaging",
        "other",
    }
)
EVENT_KEYS = frozenset(
    {
        "event_name",
        "event_time",
        "event_id",
        "event_source_url",
        "referrer_url",
        "action_source",
        "user_data",
        "custom_data",
        "app_data",
        "opt_out",
        "data_processing_options",
        "data_processing_options_country",
        "data_processing_options_state",
    }
)
TOO_BROAD = (
    {"ct", "country", "st", "zp", "ge", "client_user_agent"},
    {"db", "client_user_agent"},
    {"fn", "ge"},
    {"ln", "ge"},
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COOKIE = re.compile(r"fb\.[0-2]\.[0-9]{13}\.\S+")
_DAY_S = 86_400
TOO_OLD, NO_VALUE, NOBODY = 2_804_003, 2_804_009, 2_804_050


@dataclass
class FakeConversions:
    """The vendor. Start it, point a destination's base_url at `url`, look at what it counted."""

    token: str = "meta-token-for-tests"
    app_secret: str = ""
    pixels: set[str] = field(default_factory=lambda: {"1234567890"})
    unavailable: set[str] = field(default_factory=set)
    strict_about_websites: bool = False
    """Refuses website events without user agent or page, as the documentation has it; Meta itself is said to warn."""
    names_places: bool = False
    """Says in an error which event is at fault."""
    failures: deque[Failure] = field(default_factory=deque)
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of requests that were authorised, also those that were refused."""
    counted: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Events by pixel, each (name, id) once."""
    violations: list[str] = field(default_factory=list)
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/{version}/{pixel}/events", self._events)
        app.router.add_get("/{version}/{pixel}", self._pixel)
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

    async def _events(self, request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
        except ValueError:
            body = None
        refusal = self._refusal(request, body)
        if refusal is not None:
            return refusal
        self.requests.append(body)
        data = body.get("data")
        if (
            set(body) - {"data", "test_event_code", "appsecret_proof", "upload_tag"}
            or not isinstance(data, list)
            or not data
        ):
            return failed(Failure(400, 100, 0, "Invalid parameter"))
        if len(data) > MOST_EVENTS:
            return failed(Failure(400, 100, 0, f"Too many events: at most {MOST_EVENTS}"))
        for place, event in enumerate(data):
            problem = problem_of(event, strict_about_websites=self.strict_about_websites)
            if problem is not None:
                return failed(self._naming(problem, place))
        counted = self.counted.setdefault(request.match_info["pixel"], [])
        known = {(one["event_name"], one["event_id"]) for one in counted if "event_id" in one}
        for event in data:
            key = (event["event_name"], event.get("event_id"))
            if key[1] is None or key not in known:
                known.add(key)
                counted.append(event)
        return web.json_response({"events_received": len(data), "messages": [], "fbtrace_id": "AbCdEf"})

    def _naming(self, problem: tuple[int, str], place: int) -> Failure:
        subcode, text = problem
        message = f"Invalid parameter: data[{place}]: {text}" if self.names_places else "Invalid parameter"
        return Failure(400, 100, subcode, message)

    async def _pixel(self, request: web.Request) -> web.Response:
        refusal = self._refusal(request, dict(request.query))
        if refusal is not None:
            return refusal
        pixel = request.match_info["pixel"]
        known = {"id": pixel, "name": "Shop", "is_unavailable": pixel in self.unavailable}
        known["is_consolidated_container"] = pixel not in self.unavailable
        return web.json_response({key: known[key] for key in request.query["fields"].split(",")})

    def _refusal(self, request: web.Request, body: Any) -> web.Response | None:
        if "access_token" in request.query or self.token in request.path_qs:
            self.violations.append("token in the address")
        if self.failures:
            return failed(self.failures.popleft())
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return failed(Failure(401, 190, 0, "Invalid OAuth access token - Cannot parse access token"))
        if request.match_info["version"] not in VERSIONS:
            return failed(Failure(400, 2635, 0, "You are calling a deprecated version of the API."))
        if not isinstance(body, dict):
            return failed(Failure(400, 100, 0, "Invalid parameter"))
        if self.app_secret:
            proof = hmac.new(self.app_secret.encode(), self.token.encode(), hashlib.sha256).hexdigest()
            if body.get("appsecret_proof") != proof:
                return failed(Failure(400, 100, 0, "Invalid appsecret_proof provided in the API argument"))
        pixel = request.match_info["pixel"]
        if pixel not in self.pixels:
            return failed(Failure(400, 100, 33, f"Unsupported post request. Object with ID '{pixel}' does not exist"))
        return None


def problem_of(event: Any, *, strict_about_websites: bool) -> tuple[int, str] | None:
    """(subcode, what) is wrong with an event; None when nothing is."""
    if not isinstance(event, dict) or set(event) - EVENT_KEYS:
        return 0, f"unknown keys {sorted(set(event) - EVENT_KEYS)}" if isinstance(event, dict) else "no object"
    name, moment, user = event.get("event_name"), event.get("event_time"), event.get("user_data")
    if not isinstance(name, str) or not name:
        return 0, "event_name is missing"
    if not isinstance(moment, int) or isinstance(moment, bool):
        return 0, "event_time is no integer"
    if event.get("action_source") not in ACTION_SOURCES:
        return 0, "action_source is none"
    days = 62 if event["action_source"] == "physical_store" else 7
    if not -days * _DAY_S <= moment - time.time() <= 120:
        return TOO_OLD, f"event_time is more than {days} days ago, or ahead"
    if not isinstance(user, dict) or (wrong := _wrong_user(user)):
        return NOBODY, wrong if isinstance(user, dict) else "user_data is missing"
    custom = event.get("custom_data", {})
    if wrong := _wrong_custom(custom):
        return 0, wrong
    if name == "Purchase" and ("value" not in custom or "currency" not in custom):
        return NO_VALUE, "a purchase needs value and currency"
    if "data_processing_options" in event and event.get("data_processing_options") != []:
        if event["data_processing_options"] != ["LDU"]:
            return 0, "data_processing_options"
        if not all(isinstance(event.get(f"data_processing_options_{part}"), int) for part in ("country", "state")):
            return 0, "data_processing_options need country and state"
    if event["action_source"] == "app" and (wrong := _wrong_app(event.get("app_data"))):
        return 0, wrong
    if event["action_source"] == "website" and strict_about_websites:
        if not str(event.get("event_source_url", "")).startswith(("http://", "https://")):
            return 0, "event_source_url is missing"
        if not user.get("client_user_agent"):
            return 0, "client_user_agent is missing"
    return None


def _wrong_user(user: Mapping[str, Any]) -> str:
    if unknown := set(user) - HASHED - PLAIN:
        return f"unknown user_data {sorted(unknown)}"
    for key, value in user.items():
        values = value if isinstance(value, list) and key in LISTS | HASHED else [value]
        if key in HASHED and not all(isinstance(one, str) and _SHA256.fullmatch(one) for one in values):
            return f"{key} is no SHA-256"
        if key in ("fbc", "fbp") and not (isinstance(value, str) and _COOKIE.fullmatch(value)):
            return f"{key} has another form"
        if key in ("lead_id", "fb_login_id"):
            if not isinstance(value, int):
                return f"{key} is no integer"
        elif not all(isinstance(one, str) and one for one in values):
            return f"{key} is no text"
        if key == "client_ip_address":
            try:
                ipaddress.ip_address(value)
            except ValueError:
                return "client_ip_address is none"
    if not user or any(set(user) <= broad for broad in TOO_BROAD):
        return "too broad a combination of customer information"
    return ""


def _wrong_custom(custom: Any) -> str:
    if not isinstance(custom, dict):
        return "custom_data is no object"
    for key in ("value", "predicted_ltv", "net_revenue"):
        if key in custom and (not isinstance(custom[key], int | float) or isinstance(custom[key], bool)):
            return f"{key} is no number"
    if "currency" in custom and not re.fullmatch(r"[A-Za-z]{3}", str(custom["currency"])):
        return "currency is none"
    if "content_ids" in custom and not all(isinstance(one, str) for one in custom["content_ids"]):
        return "content_ids are no texts"
    if "num_items" in custom and not isinstance(custom["num_items"], int):
        return "num_items is no integer"
    for content in custom.get("contents", []):
        if not isinstance(content.get("id"), str) or not isinstance(content.get("quantity"), int):
            return "contents need id and quantity"
        if "item_price" in content and not isinstance(content["item_price"], int | float):
            return "item_price is no number"
    return ""


def _wrong_app(app: Any) -> str:
    if not isinstance(app, dict):
        return "app events need app_data"
    if any(app.get(f"{who}_tracking_enabled") not in (0, 1) for who in ("advertiser", "application")):
        return "tracking_enabled"
    extinfo = app.get("extinfo")
    if not isinstance(extinfo, list) or len(extinfo) != 16 or extinfo[0] not in ("a2", "i2") or not extinfo[4]:
        return "extinfo"
    return ""
