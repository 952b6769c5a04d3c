"""A vendor that keeps the documented rules of Brevo's contacts, lists, imports, processes and events."""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_PHONE = re.compile(r"(\+|00)?[0-9]{6,15}")
_KINDS = {"email_id": "email", "ext_id": "ext_id", "phone_id": "SMS"}


@dataclass
class FakeBrevo:
    """The vendor. Point a destination's base_url at `url`, look at what it holds."""

    key: str = "xkeysib-key-for-tests"
    contacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Attributes, EXT_ID among them, by e-mail address."""
    lists: dict[int, str] = field(default_factory=lambda: {7: "Mine"})
    members: dict[int, set[str]] = field(default_factory=lambda: {7: set()})
    events: list[dict[str, Any]] = field(default_factory=list)
    processes: dict[int, dict[str, Any]] = field(default_factory=dict)
    polls: int = 0
    deleted: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=50_000_000, middlewares=[self._guarded])
        app.router.add_get("/v3/account", self._account)
        app.router.add_post("/v3/contacts", self._contact)
        app.router.add_post("/v3/contacts/import", self._import)
        app.router.add_get("/v3/processes/{process}", self._process)
        app.router.add_get("/v3/contacts/lists", self._all_lists)
        app.router.add_post("/v3/contacts/lists", self._make_list)
        app.router.add_get("/v3/contacts/lists/{list}", self._one_list)
        app.router.add_post("/v3/contacts/lists/{list}/contacts/{action}", self._change)
        app.router.add_delete("/v3/contacts/{identifier}", self._delete)
        app.router.add_post("/v3/events/batch", self._events)
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
        return f"http://127.0.0.1:{self.port}/v3"

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.failures:
            return self.failures.popleft()
        if request.headers.get("api-key") != self.key:
            return _error(401, "unauthorized", "Key not found")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _account(self, request: web.Request) -> web.Response:
        return web.json_response({"email": "owner@example.com", "companyName": "Acme"})

    async def _contact(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        email, attributes = body.get("email"), body.get("attributes", {})
        if not email and not body.get("ext_id") and "SMS" not in attributes:
            return _error(400, "missing_parameter", "email, ext_id or SMS is missing")
        if email is not None and not _EMAIL.fullmatch(email):
            return _error(400, "invalid_parameter", "email is not valid")
        if any(name != name.upper() for name in attributes) or not _PHONE.fullmatch(
            attributes.get("SMS", "+491234567")
        ):
            return _error(400, "invalid_parameter", "attributes are not valid")
        if any(one not in self.lists for one in body.get("listIds", [])):
            return _error(400, "invalid_parameter", "List does not exist")
        who = self._found("ext_id", body.get("ext_id")) or email or body.get("ext_id") or attributes["SMS"]
        if who in self.contacts and email and who != email and email in self.contacts:
            return _error(400, "duplicate_parameter", "ext_id is already associated with another Contact")
        if who in self.contacts and not body.get("updateEnabled"):
            return _error(400, "duplicate_parameter", "Contact already exist")
        is_new = who not in self.contacts
        ext_id = {"ext_id": body["ext_id"]} if body.get("ext_id") else {}
        self.contacts.setdefault(who, {}).update({**attributes, **ext_id})
        for one in body.get("listIds", []):
            self.members[one].add(who)
        return web.json_response({"id": len(self.contacts)}, status=201) if is_new else web.Response(status=204)

    async def _import(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = json.loads(raw)
        if len(raw) > 10_000_000 or not body.get("jsonBody") or not body.get("listIds"):
            return _error(400, "invalid_parameter", "jsonBody and listIds are needed")
        if any(one not in self.lists for one in body["listIds"]):
            return _error(400, "invalid_parameter", "List ids are not valid")
        invalid = 0
        self.sizes.append(len(body["jsonBody"]))
        for one in body["jsonBody"]:
            if not _EMAIL.fullmatch(one["email"]):
                invalid += 1
                continue
            self.contacts.setdefault(one["email"], {}).update(one["attributes"])
            for list_id in body["listIds"]:
                self.members[list_id].add(one["email"])
        id = 70 + len(self.processes)
        reports = {"invalid_emails": "https://reports.example/1.csv" if invalid else None, "duplicate_ext_id": None}
        self.processes[id] = {"id": id, "name": "IMPORTUSER", "status": "completed", "info": {"import": reports}}
        return web.json_response({"processId": id}, status=202)

    async def _process(self, request: web.Request) -> web.Response:
        self.polls += 1
        found = self.processes.get(int(request.match_info["process"]))
        if found is None:
            return _error(404, "document_not_found", "Process not found")
        return web.json_response(found)

    async def _all_lists(self, request: web.Request) -> web.Response:
        limit, offset = int(request.query["limit"]), int(request.query["offset"])
        if limit > 50:
            return _error(400, "out_of_range", "Limit exceeds max value")
        page = list(self.lists.items())[offset : offset + limit]
        lists = [{"id": id, "name": name, "uniqueSubscribers": len(self.members[id])} for id, name in page]
        return web.json_response({"count": len(self.lists), "lists": lists})

    async def _make_list(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        if body.get("folderId") != 1:
            return _error(404, "document_not_found", "Folder ID does not exist")
        id = max(self.lists) + 1
        self.lists[id], self.members[id] = body["name"], set()
        return web.json_response({"id": id}, status=201)

    async def _one_list(self, request: web.Request) -> web.Response:
        id = int(request.match_info["list"])
        if id not in self.lists:
            return _error(404, "document_not_found", "List ID does not exist")
        return web.json_response({"id": id, "name": self.lists[id]})

    async def _change(self, request: web.Request) -> web.Response:
        id, adds = int(request.match_info["list"]), request.match_info["action"] == "add"
        emails = json.loads(await request.read()).get("emails", [])
        if id not in self.lists:
            return _error(404, "document_not_found", "List ID does not exist")
        if not 1 <= len(emails) <= 150 or not all(_EMAIL.fullmatch(one) for one in emails):
            return _error(400, "invalid_parameter", "Contact email addresses are invalid/ not in valid format")
        members = self.members[id]
        done = [one for one in emails if (one in self.contacts and one not in members if adds else one in members)]
        if not done:
            return _error(400, "invalid_parameter", "Contact already in list and/or does not exist")
        self.sizes.append(len(emails))
        self.members[id] = members | set(done) if adds else members - set(done)
        failed = [one for one in emails if one not in done]
        return web.json_response({"contacts": {"success": done, "failure": failed}}, status=201)

    async def _delete(self, request: web.Request) -> web.Response:
        kind, value = request.query.get("identifierType", ""), unquote(request.match_info["identifier"])
        if kind not in _KINDS:
            return _error(400, "invalid_parameter", "identifierType is not valid")
        found = value if kind == "email_id" and value in self.contacts else self._found(_KINDS[kind], value)
        if not found:
            return _error(404, "document_not_found", "Contact does not exist")
        del self.contacts[found]
        self.deleted.append(found)
        for members in self.members.values():
            members.discard(found)
        return web.Response(status=204)

    async def _events(self, request: web.Request) -> web.Response:
        raw = await request.read()
        events = json.loads(raw)["events"]
        if len(raw) > 512_000 or not 1 <= len(events) <= 200:
            return _error(400, "invalid_parameter", "at most 200 events and 512 KB")
        self.sizes.append(len(events))
        errors = []
        for index, event in enumerate(events):
            if problem := wrong_event(event):
                errors.append({"eventIndex": [index], "message": problem})
            else:
                self.events.append(event)
        if not errors:
            return web.json_response({"message": "Batch accepted.", "count": len(events)}, status=202)
        failed = len(errors)
        answer = {
            "status": "partial" if failed < len(events) else "failed", "total_events": len(events),
            "successful_events": len(events) - failed, "failed_events": failed, "errors": errors,
        }  # fmt: skip
        return web.json_response(answer, status=207 if failed < len(events) else 400)

    def _found(self, name: str, value: Any) -> str:
        return next((who for who, known in self.contacts.items() if value and known.get(name) == value), "")


def wrong_event(event: dict[str, Any]) -> str:
    """What is wrong with an event, by Brevo's rules; empty when nothing is."""
    if not _NAME.fullmatch(event.get("event_name", "")):
        return "event_name has characters that are not allowed"
    known = event.get("identifiers", {})
    if not known or set(known) - {"email_id", "ext_id", "phone_id"} or not all(known.values()):
        return "identifiers are not valid"
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z", event.get("event_date", "")):
        return "event_date is not valid"
    if not _keys_are_valid(event.get("event_properties", {})):
        return "event_properties have names that are not allowed"
    if len(json.dumps(event.get("event_properties", {}), ensure_ascii=False).encode("utf-8", "replace")) > 50 * 1024:
        return "event_properties are too large"
    return ""


def _keys_are_valid(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_NAME.fullmatch(name) and _keys_are_valid(inner) for name, inner in value.items())
    return all(map(_keys_are_valid, value)) if isinstance(value, list) else value is not None


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status)
