"""A vendor that keeps the documented rules of Klaviyo's API: JSON:API, jobs with an end, pointers at the culprits.

https://developers.klaviyo.com/en/reference/api_overview
"""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_PROFILE = frozenset({
    "email", "phone_number", "external_id", "first_name", "last_name", "organization", "locale", "title", "image",
    "location", "properties",
})  # fmt: skip
_LOCATION = frozenset({
    "address1", "address2", "city", "country", "latitude", "longitude", "region", "zip", "timezone", "ip",
})  # fmt: skip
_EVENT = frozenset({"properties", "metric", "time", "value", "value_currency", "unique_id", "profile"})
_IDENTIFIERS = ("email", "phone_number", "external_id")
Problem = tuple[str, str]
"""Pointer and detail."""


@dataclass
class FakeKlaviyo:
    """The vendor. Point a destination's base_url at `url`, look at its profiles, events and lists."""

    key: str = "pk_for_tests"
    revisions: tuple[str, ...] = ("2026-07-15", "2026-10-15")
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Attributes by Klaviyo's id."""
    events: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    """By profile, metric and unique id."""
    lists: dict[str, set[str]] = field(default_factory=lambda: {"LiSt01": set()})
    names: dict[str, str] = field(default_factory=lambda: {"LiSt01": "Everybody"})
    subscriptions: dict[tuple[str, str], str] = field(default_factory=dict)
    """Consent by address or number, and channel."""
    forgotten: list[str] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: int = 1
    """How often a job is looked at before it has ended."""
    fails: Callable[[dict[str, Any]], bool] = lambda profile: False
    """Which profiles an import refuses after it was accepted."""
    names_places: bool = True
    requests_a_second: int = 10
    requests: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _moments: deque[float] = field(default_factory=deque)
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=50_000_000, middlewares=[self._guard])
        app.router.add_get("/api/profiles", self._see)
        app.router.add_post("/api/profile-import", self._import)
        app.router.add_post("/api/profile-bulk-import-jobs", self._bulk)
        app.router.add_get("/api/profile-bulk-import-jobs/{job}", self._job)
        app.router.add_get("/api/profile-bulk-import-jobs/{job}/import-errors", self._errors)
        app.router.add_post("/api/events", self._event)
        app.router.add_post("/api/event-bulk-create-jobs", self._events)
        app.router.add_post("/api/profile-subscription-bulk-create-jobs", self._subscribe)
        app.router.add_post("/api/profile-subscription-bulk-delete-jobs", self._subscribe)
        app.router.add_post("/api/data-privacy-deletion-jobs", self._forget)
        app.router.add_get("/api/lists", self._lists)
        app.router.add_post("/api/lists", self._make)
        app.router.add_get("/api/lists/{list}", self._list)
        app.router.add_delete("/api/lists/{list}/relationships/profiles", self._take_off)
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

    def on_list(self, identifier: str, list_id: str = "LiSt01") -> bool:
        """Whether somebody with this identifier is on a list."""
        return any(identifier in self.profiles[one].values() for one in self.lists[list_id])

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        now = time.monotonic()
        while self._moments and self._moments[0] < now - 1:
            self._moments.popleft()
        self._moments.append(now)
        if self.failures:
            return self.failures.popleft()
        if len(self._moments) > self.requests_a_second:
            return error(429, "throttled", "Request was throttled.", headers={"Retry-After": "1"})
        if request.headers.get("Authorization") != f"Klaviyo-API-Key {self.key}":
            return error(401, "not_authenticated", "Authentication credentials were not provided.")
        if request.headers.get("revision") not in self.revisions:
            return error(400, "invalid_revision", "The revision is retired.")
        if "@" in str(request.rel_url) and request.path != "/api/profiles":  # a search has no other place for it
            self.problems.append("an address in a URL")
        if request.method == "POST" and request.content_type != "application/vnd.api+json":
            return self._refused([("/", "content type")])
        self.requests.append((request.method, request.path))
        found: web.StreamResponse = await handler(request)
        return found

    def _refused(self, problems: list[Problem]) -> web.Response:
        self.problems += [f"{pointer}: {detail}" for pointer, detail in problems]
        if not self.names_places:
            problems = [("/data", detail) for _, detail in problems]
        return web.json_response(
            {
                "errors": [
                    {"id": "1", "status": 400, "code": "invalid", "title": "Invalid input.", "detail": detail,
                     "source": {"pointer": pointer}}
                    for pointer, detail in problems
                ]
            },
            status=400,
        )  # fmt: skip

    def _upsert(self, attributes: dict[str, Any]) -> str:
        for name in _IDENTIFIERS:
            for known, profile in self.profiles.items():
                if name in attributes and profile.get(name) == attributes[name]:
                    profile.update(attributes)
                    return known
        self.profiles[made := f"01PROFILE{len(self.profiles)}"] = dict(attributes)
        return made

    async def _import(self, request: web.Request) -> web.Response:
        data = (await request.json())["data"]
        if problems := list(_wrong_profile(data, "/data")):
            return self._refused(problems)
        found = self._upsert(data["attributes"])
        return web.json_response({"data": {"type": "profile", "id": found, "attributes": data["attributes"]}})

    async def _bulk(self, request: web.Request) -> web.Response:
        data = (await request.json())["data"]
        given = data["attributes"]["profiles"]["data"]
        where = "/data/attributes/profiles/data"
        problems = [one for place, profile in enumerate(given) for one in _wrong_profile(profile, f"{where}/{place}")]
        if data["type"] != "profile-bulk-import-job" or not 1 <= len(given) <= 10_000:
            problems.append(("/data", "from 1 to 10000 profiles"))
        onto = [one["id"] for one in data.get("relationships", {}).get("lists", {}).get("data", [])]
        problems += [("/data/relationships/lists", "no such list") for one in onto if one not in self.lists]
        if problems:
            return self._refused(problems)
        refused = [place for place, profile in enumerate(given) if self.fails(profile["attributes"])]
        ids = [self._upsert(one["attributes"]) for place, one in enumerate(given) if place not in refused]
        for one in onto:
            self.lists[one].update(ids)
        job = f"am9i{len(self.jobs)}"
        self.jobs[job] = {"ids": ids, "refused": refused, "looks": self.looks, "total": len(given)}
        return web.json_response(_job(job, "queued", self.jobs[job]), status=202)

    async def _job(self, request: web.Request) -> web.Response:
        name = request.match_info["job"]
        if (job := self.jobs.get(name)) is None:
            return error(404, "not_found", "A job with this id does not exist.")
        job["looks"] -= 1
        return web.json_response(_job(name, "processing" if job["looks"] > 0 else "complete", job))

    async def _errors(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["job"]]
        where = "/data/attributes/profiles/data/{}/attributes" if self.names_places else "/data"
        errors = [
            {"type": "import-error", "id": str(place), "attributes": {
                "code": "invalid", "title": "Invalid input.", "detail": "ada@example.com is refused",
                "source": {"pointer": where.format(place)}}}
            for place in job["refused"]
        ]  # fmt: skip
        return web.json_response({"data": errors[: _page_size(request)]})

    async def _event(self, request: web.Request) -> web.Response:
        data = (await request.json())["data"]
        profile = data["attributes"]["profile"]["data"]
        problems = [*_wrong_profile(profile, "/data", anonymous=True), *_wrong_event(data, "/data")]
        if problems:
            return self._refused(problems)
        self._record(profile, data)
        return web.Response(status=202)

    async def _events(self, request: web.Request) -> web.Response:
        data = (await request.json())["data"]
        given = data["attributes"]["events-bulk-create"]["data"]
        problems: list[Problem] = []
        for place, one in enumerate(given):
            where = f"/data/attributes/events-bulk-create/data/{place}"
            problems += _wrong_profile(one["attributes"]["profile"]["data"], where, anonymous=True)
            for event in one["attributes"]["events"]["data"]:
                problems += _wrong_event(event, where)
        if data["type"] != "event-bulk-create-job" or not 1 <= len(given) <= 1_000:
            problems.append(("/data", "from 1 to 1000 events"))
        if problems:
            return self._refused(problems)
        for one in given:
            for event in one["attributes"]["events"]["data"]:
                self._record(one["attributes"]["profile"]["data"], event)
        return web.Response(status=202)

    def _record(self, profile: dict[str, Any], event: dict[str, Any]) -> None:
        attributes = event["attributes"]
        metric = attributes["metric"]["data"]["attributes"]["name"]
        self.events.setdefault((self._upsert(profile["attributes"]), metric, attributes["unique_id"]), attributes)

    async def _subscribe(self, request: web.Request) -> web.Response:
        data = (await request.json())["data"]
        wanted, most = ("SUBSCRIBED", 1_000) if "create" in request.path else ("UNSUBSCRIBED", 100)
        given = data["attributes"]["profiles"]["data"]
        problems: list[Problem] = []
        onto = data.get("relationships", {}).get("list", {}).get("data", {}).get("id", "")
        if onto and onto not in self.lists:
            problems.append(("/data/relationships/list", "no such list"))
        if f"/api/{data['type']}s" != request.path or not 1 <= len(given) <= most:
            problems.append(("/data", "type or number"))
        for place, one in enumerate(given):
            attributes = one["attributes"]
            channels = attributes["subscriptions"]
            consents = {each["marketing"]["consent"] for each in channels.values()}
            known = {"email": "email", "sms": "phone_number"}
            if not channels or consents != {wanted} or any(known[each] not in attributes for each in channels):
                problems.append((f"/data/attributes/profiles/data/{place}", "subscriptions"))
        if problems:
            return self._refused(problems)
        for one in given:
            attributes = one["attributes"]
            identifiers = {name: attributes[name] for name in _IDENTIFIERS if name in attributes}
            found = self._upsert(identifiers)
            if onto:
                self.lists[onto].add(found)
            for channel in attributes["subscriptions"]:
                name = "email" if channel == "email" else "phone_number"
                self.subscriptions[attributes[name], channel] = wanted
        return web.Response(status=202)

    async def _forget(self, request: web.Request) -> web.Response:
        profile = (await request.json())["data"]["attributes"]["profile"]["data"]
        named = [*profile.get("attributes", {}).items(), *([("id", profile["id"])] if "id" in profile else [])]
        if len(named) != 1 or named[0][0] not in ("email", "phone_number", "id"):
            return self._refused([("/data/attributes/profile", "exactly one identifier")])
        self.forgotten.append(named[0][1])
        return web.Response(status=202)

    async def _see(self, request: web.Request) -> web.Response:
        wanted = re.fullmatch(r"any\((email|phone_number|external_id),(\[.+\])\)", request.query.get("filter", ""))
        if "filter" in request.query and not wanted:
            return self._refused([("/", "filter")])
        name, values = (wanted[1], json.loads(wanted[2])) if wanted else ("", [])
        found = [known for known, profile in self.profiles.items() if name and profile.get(name) in values]
        return web.json_response({"data": [{"type": "profile", "id": one} for one in found[: _page_size(request)]]})

    async def _lists(self, request: web.Request) -> web.Response:
        start = int(request.query.get("page[cursor]", "0"))
        found = list(self.names)[start : start + 10]
        more = start + 10 < len(self.names)
        following = f"{self.url}/api/lists?page%5Bcursor%5D={start + 10}" if more else None
        return web.json_response({"data": [self._shown(one) for one in found], "links": {"next": following}})

    async def _list(self, request: web.Request) -> web.Response:
        if request.match_info["list"] not in self.names:
            return error(404, "not_found", "A list with this id does not exist.")
        return web.json_response({"data": self._shown(request.match_info["list"])})

    async def _make(self, request: web.Request) -> web.Response:
        data = (await request.json())["data"]
        made = f"NeW{len(self.names)}"
        self.names[made], self.lists[made] = data["attributes"]["name"], set()
        return web.json_response({"data": self._shown(made)}, status=201)

    def _shown(self, list_id: str) -> dict[str, Any]:
        return {"type": "list", "id": list_id, "attributes": {"name": self.names[list_id]}}

    async def _take_off(self, request: web.Request) -> web.Response:
        if request.match_info["list"] not in self.lists:
            return error(404, "not_found", "A list with this id does not exist.")
        ids = [one["id"] for one in json.loads(await request.read())["data"]]
        if not 1 <= len(ids) <= 1_000:
            return self._refused([("/data", "from 1 to 1000 profiles")])
        self.lists[request.match_info["list"]].difference_update(ids)
        return web.Response(status=204)


def error(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error as JSON:API has it."""
    one = {"id": "1", "status": status, "code": code, "title": code, "detail": detail, "source": {"pointer": "/data"}}
    return web.json_response({"errors": [one]}, status=status, headers=headers)


def _job(name: str, status: str, job: dict[str, Any]) -> dict[str, Any]:
    counts = {"total_count": job["total"], "completed_count": len(job["ids"]), "failed_count": len(job["refused"])}
    return {"data": {"type": "profile-bulk-import-job", "id": name, "attributes": {"status": status, **counts}}}


def _page_size(request: web.Request) -> int:
    size = int(request.query.get("page[size]", "20"))
    assert 1 <= size <= 100
    return size


def _wrong_profile(profile: dict[str, Any], where: str, *, anonymous: bool = False) -> Iterator[Problem]:
    attributes = profile.get("attributes", {})
    allowed = _PROFILE | {"anonymous_id"} if anonymous else _PROFILE
    named = {*_IDENTIFIERS, "anonymous_id"} if anonymous else set(_IDENTIFIERS)
    if profile.get("type") != "profile" or set(attributes) - allowed:
        yield f"{where}/attributes", f"unknown member {set(attributes) - allowed}"
    if not named & set(attributes):
        yield f"{where}/attributes", "one of the identifiers is required"
    if not _E164.fullmatch(attributes.get("phone_number", "+4917112345")):
        yield f"{where}/attributes/phone_number", "Invalid phone number format"
    if not _EMAIL.fullmatch(attributes.get("email", "a@x.de")):
        yield f"{where}/attributes/email", "Invalid email address"
    if len(attributes.get("external_id", "")) > 255 or set(attributes.get("location", {})) - _LOCATION:
        yield f"{where}/attributes", "external_id or location"


def _wrong_event(event: dict[str, Any], where: str) -> Iterator[Problem]:
    attributes = event["attributes"]
    if event["type"] != "event" or set(attributes) - _EVENT:
        yield f"{where}/attributes", "unknown member"
    metric = attributes["metric"]["data"]
    if metric["type"] != "metric" or not 1 <= len(metric["attributes"]["name"]) < 128:
        yield f"{where}/attributes/metric", "name"
    moment = datetime.fromisoformat(attributes["time"].replace("Z", "+00:00"))
    if moment.year <= 1990 or moment > datetime.now(UTC) + timedelta(days=366):
        yield f"{where}/attributes/time", "after 1990, up to a year in the future"
    value = attributes.get("value", 0)
    if not isinstance(value, int | float) or not re.fullmatch("[A-Z]{3}", attributes.get("value_currency", "EUR")):
        yield f"{where}/attributes/value", "number and ISO 4217"
    if not isinstance(attributes["properties"], dict) or len(attributes["properties"]) > 400:
        yield f"{where}/attributes/properties", "up to 400"
