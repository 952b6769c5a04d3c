"""A vendor that keeps the documented rules of LinkedIn's Conversions API.

Nothing of a request is stored if one conversion in it is malformed; the answer names its place in a sentence.
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
_IDS = frozenset(
    {"SHA256_EMAIL", "LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID", "ACXIOM_ID", "ORACLE_MOAT_ID", "GOOGLE_AID"}
)
_MEMBERS = frozenset({"conversion", "conversionHappenedAt", "conversionValue", "user", "eventId"})
_INFO = frozenset({"firstName", "lastName", "title", "companyName", "countryCode"})
_RULE = re.compile(r"urn:lla:llaPartnerConversion:([0-9]+)")
_OLDEST_MS = 90 * 86_400_000


@dataclass
class FakeLinkedInConversions:
    """The vendor. Point a destination's base_url at `url`, look at what it counted."""

    token: str = "linkedin-token-for-tests"
    versions: frozenset[str] = frozenset({"202605", "202606", "202607"})
    rules: dict[str, str] = field(default_factory=lambda: {"104012": "CONVERSIONS_API", "5": "INSIGHT_TAG"})
    """Conversion rule to its method."""
    requests_a_minute: int = 600
    counted: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """Conversions by rule and event id."""
    sizes: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    later: set[str] = field(default_factory=set)
    """Event ids that are answered by 503, each in its element."""
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _asked: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=50_000_000)
        app.router.add_post("/rest/conversionEvents", self._events)
        app.router.add_get("/rest/conversions", self._rules)
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
        self._asked += 1
        if self._asked > self.requests_a_minute:
            return _error(429, "Resource level throttle limit for calls to this resource is reached.", 101)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _error(401, "The token used in the request is invalid", 65600)
        if request.headers.get("LinkedIn-Version") not in self.versions:
            return _error(426, f"Requested version {request.headers.get('LinkedIn-Version')} is not active", 0)
        if request.headers.get("X-Restli-Protocol-Version") != "2.0.0":
            return _error(400, "Unsupported protocol version", 0)
        return None

    async def _rules(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        if request.query != {"q": "account", "account": "urn:li:sponsoredAccount:123"}:
            return _error(403, "Not enough permissions", 100)
        elements = [{"id": int(rule), "conversionMethod": method} for rule, method in self.rules.items()]
        return web.json_response({"elements": elements, "paging": {"start": 0, "count": 10}})

    async def _events(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        if request.headers.get("X-RestLi-Method") != "BATCH_CREATE" or request.content_type != "application/json":
            return _error(400, "Unsupported method", 0)
        elements = json.loads(await request.read()).get("elements")
        if not isinstance(elements, list) or not 1 <= len(elements) <= 5_000:
            return _error(400, "From 1 to 5000 elements", 0)
        self.sizes.append(len(elements))
        wrong = [(place, problem) for place, one in enumerate(elements) for problem in _wrong(one)]
        if wrong:
            self.problems += [problem for _, problem in wrong]
            return _error(422, "; ".join(f"Index: {place}, ERROR :: {problem}" for place, problem in wrong), 0)
        matched = [_RULE.fullmatch(one["conversion"]) for one in elements]
        odd = [place for place, rule in enumerate(matched) if rule and self.rules.get(rule[1]) != "CONVERSIONS_API"]
        if odd:
            text = "Incorrect conversions information provided. Conversion's method should be CONVERSIONS_API, indices"
            return _error(400, f"{text} {odd} (0-indexed)", 0)
        statuses = []
        for one in elements:
            if one["eventId"] in self.later:
                statuses.append({"status": 503, "error": {"message": "try again", "status": 503}})
                continue
            self.counted.setdefault((one["conversion"], one["eventId"]), one)
            statuses.append({"status": 201})
        return web.json_response({"elements": statuses})


def _wrong(one: dict[str, Any]) -> Iterator[str]:
    now_ms = time.time() * 1000
    if set(one) - _MEMBERS:
        yield "/ :: unrecognized field"
    if not _RULE.fullmatch(str(one.get("conversion"))):
        yield "/conversion :: is no URN"
    moment = one.get("conversionHappenedAt")
    if not isinstance(moment, int) or not now_ms - _OLDEST_MS <= moment <= now_ms + 1000:
        yield "/conversionHappenedAt :: milliseconds of the last 90 days"
    value = one.get("conversionValue")
    if value is not None and (set(value) != {"currencyCode", "amount"} or not isinstance(value["amount"], str)):
        yield "/conversionValue :: currencyCode and amount as text"
    user = one.get("user", {})
    if not isinstance(user.get("userIds"), list):
        yield "/user/userIds :: field is required but not found and has no default value"
        return
    for known in user["userIds"]:
        if known["idType"] not in _IDS or (
            known["idType"] == "SHA256_EMAIL" and not _SHA256.fullmatch(known["idValue"])
        ):
            yield "/user/userIds :: is no id"
    info = user.get("userInfo")
    if info is not None and (set(info) - _INFO or not {"firstName", "lastName"} <= set(info)):
        yield "/user/userInfo :: firstName and lastName are required"
    if len(user.get("externalIds", [])) > 1:
        yield "/user/externalIds :: at most one"
    if not user["userIds"] and info is None and "externalIds" not in user:
        yield "/user :: nothing to match by"


def _error(status: int, message: str, code: int) -> web.Response:
    return web.json_response({"status": status, "serviceErrorCode": code, "message": message}, status=status)
