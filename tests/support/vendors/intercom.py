"""A vendor that keeps the documented rules of Intercom's API: a contact a request, found by its own ids.

https://developers.intercom.com/docs/references/rest-api/api.intercom.io
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_CONTACT = frozenset({
    "role", "external_id", "email", "phone", "name", "avatar", "signed_up_at", "last_seen_at",
    "unsubscribed_from_emails", "custom_attributes",
})  # fmt: skip
_EVENT = frozenset({"event_name", "created_at", "user_id", "email", "id", "metadata"})


@dataclass
class FakeIntercom:
    """The vendor. Point a destination's base_url at `url`, look at its contacts and events."""

    token: str = "token-for-tests"
    contacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By id."""
    archived: set[str] = field(default_factory=set)
    tags: dict[str, set[str]] = field(default_factory=lambda: {"21": set()})
    names: dict[str, str] = field(default_factory=lambda: {"21": "Everybody"})
    attributes: frozenset[str] = frozenset({"plan", "seats"})
    events: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    """By contact, name and second."""
    forgotten: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_post("/contacts", self._make)
        app.router.add_post("/contacts/search", self._search)
        app.router.add_put("/contacts/{contact}", self._update)
        app.router.add_post("/contacts/{contact}/tags", self._tag)
        app.router.add_delete("/contacts/{contact}/tags/{tag}", self._untag)
        app.router.add_post("/user_delete_requests", self._forget)
        app.router.add_post("/events", self._event)
        app.router.add_get("/me", self._me)
        app.router.add_get("/tags", self._tags)
        app.router.add_post("/tags", self._new_tag)
        app.router.add_get("/tags/{tag}", self._see_tag)
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

    def tagged(self) -> set[str]:
        """External ids of the contacts that have the tag."""
        return {self.contacts[one].get("external_id", "") for one in self.tags["21"]}

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        if self.failures:
            return self.failures.popleft()
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return error(401, "unauthorized", "Access Token Invalid")
        if not re.fullmatch(r"2\.(7|8|9|10|11|12|13|14|15)", request.headers.get("Intercom-Version", "")):
            return error(400, "intercom_version_invalid", "The requested version could not be found")
        if "@" in str(request.rel_url):
            self.problems.append("an address in a URL")
        if request.method in ("POST", "PUT") and request.content_type != "application/json":
            return error(415, "media_type_not_acceptable", "content type")
        self.requests.append((request.method, request.path))
        found: web.StreamResponse = await handler(request)
        return found

    def _refused(self, problem: str) -> web.Response:
        self.problems.append(problem)
        return error(400, "parameter_invalid", problem)

    def find(self, body: dict[str, Any]) -> str | None:
        """The contact with one of these identifiers."""
        for name in ("external_id", "email"):
            for known, contact in self.contacts.items():
                if name in body and contact.get(name) == body[name]:
                    return known
        return None

    async def _make(self, request: web.Request) -> web.Response:
        body = await request.json()
        if problem := next(_wrong_contact(body, self.attributes), ""):
            return self._refused(problem)
        if known := self.find(body):
            what = "An archived contact" if known in self.archived else "A contact"
            return error(409, "conflict", f"{what} matching those details already exists with id={known}")
        made = f"5ba682d23d7cf92bef87bf{len(self.contacts):02x}"
        self.contacts[made] = dict(body)
        return web.json_response({"type": "contact", "id": made})

    async def _update(self, request: web.Request) -> web.Response:
        known, body = request.match_info["contact"], await request.json()
        if known not in self.contacts:
            return error(404, "not_found", "User Not Found")
        if problem := next(_wrong_contact(body, self.attributes), ""):
            return self._refused(problem)
        self.contacts[known].update(body)
        return web.json_response({"type": "contact", "id": known})

    async def _search(self, request: web.Request) -> web.Response:
        query = (await request.json())["query"]
        wanted = query["value"] if query["operator"] == "OR" else [query]
        if len(wanted) > 15 or any(set(one) != {"field", "operator", "value"} for one in wanted):
            return self._refused("query")
        found = [
            {"type": "contact", "id": known}
            for known, contact in self.contacts.items()
            if any(contact.get(one["field"]) == one["value"] for one in wanted)
        ]
        return web.json_response({"type": "list", "data": found, "total_count": len(found)})

    async def _tag(self, request: web.Request) -> web.Response:
        known, body = request.match_info["contact"], await request.json()
        if known not in self.contacts:
            return error(404, "not_found", "Resource Not Found")
        if set(body) != {"id"} or body["id"] not in self.tags:
            return error(404, "not_found", "Tag not found")
        self.tags[body["id"]].add(known)
        return web.json_response({"type": "tag", "id": body["id"]})

    async def _untag(self, request: web.Request) -> web.Response:
        known, tag = request.match_info["contact"], request.match_info["tag"]
        if tag not in self.tags:
            return error(404, "not_found", "Tag not found")
        self.tags[tag].discard(known)
        return web.json_response({"type": "tag", "id": tag})

    async def _forget(self, request: web.Request) -> web.Response:
        known = (await request.json())["intercom_user_id"]
        if self.contacts.pop(known, None) is None:
            return error(404, "not_found", "User Not Found")
        self.forgotten.append(known)
        return web.json_response({"id": "1"})

    async def _event(self, request: web.Request) -> web.Response:
        body = await request.json()
        if problem := next(_wrong_event(body), ""):
            return self._refused(problem)
        known = self.find({"external_id" if name == "user_id" else name: body[name] for name in _EVENT & set(body)})
        if known is None:
            return error(404, "not_found", "User Not Found")
        self.events.setdefault((known, body["event_name"], body["created_at"]), body)
        return web.Response(status=202)

    async def _me(self, request: web.Request) -> web.Response:
        return web.json_response({"type": "admin", "id": "1"})

    async def _tags(self, request: web.Request) -> web.Response:
        return web.json_response({"type": "list", "data": [self._shown(one) for one in self.names]})

    async def _new_tag(self, request: web.Request) -> web.Response:
        body = await request.json()
        if set(body) != {"name"}:
            return self._refused("name")
        made = str(21 + len(self.names))
        self.names[made], self.tags[made] = body["name"], set()
        return web.json_response(self._shown(made))

    async def _see_tag(self, request: web.Request) -> web.Response:
        if request.match_info["tag"] not in self.names:
            return error(404, "tag_not_found", "Resource Not Found")
        return web.json_response(self._shown(request.match_info["tag"]))

    def _shown(self, tag: str) -> dict[str, Any]:
        return {"type": "tag", "id": tag, "name": self.names[tag]}


def error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error as Intercom has it."""
    body = {"type": "error.list", "request_id": "r", "errors": [{"code": code, "message": message}]}
    return web.json_response(body, status=status, headers=headers)


def in_seconds(seconds: float) -> dict[str, str]:
    """The header that names the moment at which the rate limit's window ends."""
    return {"X-RateLimit-Reset": str(int(time.time() + seconds))}


def _wrong_contact(body: dict[str, Any], attributes: frozenset[str]) -> Iterator[str]:
    if set(body) - _CONTACT or body.get("role") != "user":
        yield "unknown member, or no role"
    if not {"external_id", "email"} & set(body):
        yield "external_id or email is required"
    if not _EMAIL.fullmatch(body.get("email", "a@x.de")) or not isinstance(body.get("signed_up_at", 1), int):
        yield "email or signed_up_at"
    for name, value in body.get("custom_attributes", {}).items():
        if name not in attributes:
            yield f"Custom attribute '{name}' does not exist"
        if not isinstance(value, str | int | float | bool):
            yield f"Custom attribute '{name}' is none"


def _wrong_event(body: dict[str, Any]) -> Iterator[str]:
    if set(body) - _EVENT or not body.get("event_name"):
        yield "unknown member, or no name"
    if len({"user_id", "email", "id"} & set(body)) != 1:
        yield "one of user_id, email and id"
    if not isinstance(body.get("created_at"), int) or not 0 < body["created_at"] <= time.time() + 1:
        yield "created_at: seconds"
    for value in body.get("metadata", {}).values():
        forms = ({"amount", "currency"}, {"url", "value"})
        if isinstance(value, list) or (isinstance(value, dict) and set(value) not in forms):
            yield "metadata"
