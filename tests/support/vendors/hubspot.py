"""A vendor that keeps the documented rules of HubSpot's API: batches of a hundred, 207 for what failed in part.

https://developers.hubspot.com/docs/api-reference/latest/overview
"""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import web

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_KNOWN = frozenset({
    "email", "firstname", "lastname", "phone", "company", "jobtitle", "website", "address", "city", "state", "zip",
    "country", "plan",
})  # fmt: skip
_EVENT = frozenset({"eventName", "email", "utk", "objectId", "occurredAt", "uuid", "properties"})


@dataclass
class FakeHubSpot:
    """The vendor. Point a destination's base_url at `url`, look at its contacts, lists and events."""

    token: str = "pat-for-tests"
    contacts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Properties by id."""
    lists: dict[str, set[str]] = field(default_factory=lambda: {"17": set()})
    names: dict[str, str] = field(default_factory=lambda: {"17": "Everybody"})
    events: list[dict[str, Any]] = field(default_factory=list)
    definitions: frozenset[str] = frozenset({"pe42_order_completed", "pe42_thing_done"})
    forgotten: list[str] = field(default_factory=list)
    fails: Callable[[str], bool] = lambda email: False
    """Which addresses an upsert refuses while it takes the others."""
    names_places: bool = True
    requests_in_ten_seconds: int = 100
    requests: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _moments: deque[float] = field(default_factory=deque)
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=50_000_000, middlewares=[self._guard])
        app.router.add_get("/crm/objects/2026-03/contacts", self._see)
        app.router.add_post("/crm/objects/2026-03/contacts/batch/upsert", self._upsert)
        app.router.add_post("/crm/objects/2026-03/contacts/batch/read", self._read)
        app.router.add_post("/crm/objects/2026-03/contacts/gdpr-delete", self._forget)
        app.router.add_post("/crm/lists/2026-03/search", self._search)
        app.router.add_post("/crm/lists/2026-03/", self._make)
        app.router.add_get("/crm/lists/2026-03/{list}", self._list)
        app.router.add_put("/crm/lists/2026-03/{list}/memberships/{step:add|remove}", self._change)
        app.router.add_post("/events/2026-03/send", self._event)
        app.router.add_post("/events/2026-03/send/batch", self._batch)
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

    def on_list(self) -> set[str]:
        """Addresses of the contacts on the list."""
        return {self.contacts[one]["email"] for one in self.lists["17"]}

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        now = time.monotonic()
        while self._moments and self._moments[0] < now - 10:
            self._moments.popleft()
        self._moments.append(now)
        if self.failures:
            return self.failures.popleft()
        if len(self._moments) > self.requests_in_ten_seconds:
            return error(429, "You have reached your ten_secondly_rolling limit.", policyName="TEN_SECONDLY_ROLLING")
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return error(401, "Authentication credentials not found.", category="INVALID_AUTHENTICATION")
        if "@" in str(request.rel_url):
            self.problems.append("an address in a URL")
        if request.method != "GET" and request.content_type != "application/json":
            return error(415, "Unsupported media type")
        self.requests.append((request.method, request.path))
        found: web.StreamResponse = await handler(request)
        return found

    def _refused(self, problems: list[tuple[int, str]]) -> web.Response:
        place, detail = problems[0]
        self.problems += [detail for _, detail in problems]
        context = {"objectWriteTraceId": [str(place)]} if self.names_places and place >= 0 else {}
        inner = [{"message": detail, "context": context}]
        return error(400, f"Property values were not valid: {detail}", category="VALIDATION_ERROR", errors=inner)

    def _id_of(self, email: str) -> str | None:
        return next((one for one, known in self.contacts.items() if known["email"] == email.lower()), None)

    async def _upsert(self, request: web.Request) -> web.Response:
        inputs = (await request.json())["inputs"]
        if problems := list(_wrong_inputs(inputs)):
            return self._refused(problems)
        results, errors = [], []
        for one in inputs:
            if self.fails(one["id"]):
                context = {"objectWriteTraceId": [one["objectWriteTraceId"]]} if self.names_places else {}
                errors.append({"status": "error", "message": f"{one['id']} is quarantined", "context": context})
                continue
            known = self._id_of(one["id"]) or str(1000 + len(self.contacts))
            self.contacts.setdefault(known, {}).update(one["properties"])
            results.append(
                {"id": known, "properties": {"email": one["id"]}, "objectWriteTraceId": one["objectWriteTraceId"]}
            )
        answer: dict[str, Any] = {"status": "COMPLETE", "results": list(reversed(results))}
        if errors:
            answer |= {"numErrors": len(errors), "errors": errors}
        return web.json_response(answer, status=207 if errors else 200)

    async def _read(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["idProperty"] != "email" or not 1 <= len(body["inputs"]) <= 100:
            return self._refused([(-1, "idProperty or inputs")])
        found = [(one["id"], self._id_of(one["id"])) for one in body["inputs"]]
        results = [{"id": known, "properties": {"email": email}} for email, known in found if known]
        missing = len(found) - len(results)
        return web.json_response({"status": "COMPLETE", "results": results}, status=207 if missing else 200)

    async def _forget(self, request: web.Request) -> web.Response:
        body = await request.json()
        if set(body) != {"objectId", "idProperty"} or body["idProperty"] != "email":
            return self._refused([(-1, "idProperty")])
        known = self._id_of(body["objectId"])
        if known is None:
            return error(404, "Contact not found", category="OBJECT_NOT_FOUND")
        self.forgotten.append(body["objectId"])
        del self.contacts[known]
        for there in self.lists.values():
            there.discard(known)
        return web.Response(status=204)

    async def _change(self, request: web.Request) -> web.Response:
        there = self.lists.get(request.match_info["list"])
        if there is None:
            return error(404, "List does not exist", category="OBJECT_NOT_FOUND")
        ids = json.loads(await request.read())
        assert isinstance(ids, list) and all(isinstance(one, str) and one.isdigit() for one in ids)
        known = [one for one in ids if one in self.contacts]
        (there.update if request.match_info["step"] == "add" else there.difference_update)(known)
        return web.json_response({"recordIdsMissing": [one for one in ids if one not in known]})

    async def _event(self, request: web.Request) -> web.Response:
        body = await request.json()
        return self._record([body])

    async def _batch(self, request: web.Request) -> web.Response:
        inputs = (await request.json())["inputs"]
        if not 1 <= len(inputs) <= 500:
            return self._refused([(-1, "from 1 to 500 events")])
        return self._record(inputs)

    def _record(self, given: list[dict[str, Any]]) -> web.Response:
        for place, event in enumerate(given):
            problem = next(_wrong_event(event, self.definitions), "")
            if problem:
                where = f"inputs[{place}]: " if self.names_places else ""
                self.problems.append(problem)
                return error(400, f"{where}{problem}", category="VALIDATION_ERROR")
        for event in given:  # of events of one kind with one uuid the first is taken; the answer is the same
            key = (event["eventName"], event.get("uuid", ""))
            if not key[1] or all(key != (one["eventName"], one.get("uuid")) for one in self.events):
                self.events.append(event)
        return web.Response(status=204)

    async def _see(self, request: web.Request) -> web.Response:
        return web.json_response({"results": []})

    async def _search(self, request: web.Request) -> web.Response:
        body = await request.json()
        start, count = body["offset"], body["count"]
        found = [self._shown(one) for one in list(self.names)[start : start + count]]
        more = start + count < len(self.names)
        return web.json_response({"lists": found, "hasMore": more, "offset": start + len(found)})

    async def _list(self, request: web.Request) -> web.Response:
        if request.match_info["list"] not in self.names:
            return error(404, "List does not exist")
        return web.json_response({"list": self._shown(request.match_info["list"])})

    async def _make(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("processingType") != "MANUAL" or body.get("objectTypeId") != "0-1":
            return self._refused([(-1, "processingType")])
        made = str(17 + len(self.names))
        self.names[made], self.lists[made] = body["name"], set()
        return web.json_response({"list": self._shown(made)})

    def _shown(self, list_id: str) -> dict[str, Any]:
        size = {"hs_list_size": str(len(self.lists.get(list_id, ())))}
        known = {"listId": list_id, "name": self.names[list_id], "objectTypeId": "0-1", "processingType": "MANUAL"}
        return {**known, "additionalProperties": size}


def error(status: int, message: str, **more: Any) -> web.Response:
    """An error as HubSpot has it."""
    return web.json_response({"status": "error", "message": message, "correlationId": "c", **more}, status=status)


def _wrong_inputs(inputs: list[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    if not 1 <= len(inputs) <= 100:
        yield -1, "from 1 to 100 inputs"
    if len({one["id"].lower() for one in inputs}) < len(inputs):
        yield -1, "Duplicate IDs found in batch input"
    for place, one in enumerate(inputs):
        if set(one) != {"id", "idProperty", "properties", "objectWriteTraceId"} or one["idProperty"] != "email":
            yield place, "unknown member"
        if not _EMAIL.fullmatch(one["id"]) or one["properties"].get("email") != one["id"]:
            yield place, f"Email address {one['id']} is invalid"
        if unknown := set(one["properties"]) - _KNOWN:
            yield place, f"Property {sorted(unknown)} does not exist"
        if not all(isinstance(value, str) for value in one["properties"].values()):
            yield place, "values are text"


def _wrong_event(event: dict[str, Any], definitions: frozenset[str]) -> Iterator[str]:
    if set(event) - _EVENT:
        yield "unknown member"
    if event.get("eventName") not in definitions:
        yield "eventName is not defined"
    if not {"email", "utk", "objectId"} & set(event):
        yield "one of email, utk and objectId"
    if datetime.fromisoformat(event["occurredAt"]).tzinfo is None:
        yield "occurredAt"
    properties = event.get("properties", {})
    if len(properties) > 50 or not all(isinstance(value, str) for value in properties.values()):
        yield "properties: up to 50, text"
