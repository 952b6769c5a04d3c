"""A vendor that keeps Slack's documented rules: incoming webhooks, chat.postMessage and auth.test.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
https://docs.slack.dev/reference/methods/chat.postMessage
https://docs.slack.dev/apis/web-api/rate-limits
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_LONGEST = 40_000
_WEBHOOK = frozenset({"text", "blocks", "attachments", "unfurl_links", "unfurl_media"})
_ARGUMENTS = _WEBHOOK | {"channel", "mrkdwn", "thread_ts", "username", "icon_emoji", "icon_url", "parse", "link_names"}


@dataclass
class FakeSlack:
    """The vendor: a webhook at `webhook_url`, the Web API at `url`."""

    token: str = "xoxb-secret-for-tests"
    secret_path: str = "/services/T0/B0/secret-for-tests"
    channels: dict[str, str] = field(
        default_factory=lambda: {"C1": "", "COLD": "is_archived", "COUT": "not_in_channel"}
    )
    """What stands against posting to a channel, by its id."""
    posted: list[dict[str, Any]] = field(default_factory=list)
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _last: dict[str, float] = field(default_factory=dict)
    _burst: dict[str, int] = field(default_factory=dict)
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_post("/services/{rest:.*}", self._webhook)
        app.router.add_post("/api/chat.postMessage", self._post_message)
        app.router.add_post("/api/auth.test", self._auth_test)
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
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def webhook_url(self) -> str:
        """Address for the setting of that name."""
        return f"http://127.0.0.1:{self.port}{self.secret_path}"

    async def _webhook(self, request: web.Request) -> web.Response:
        if self.failures:
            return self.failures.popleft()
        if request.path != self.secret_path:
            return web.Response(status=404, text="no_service")
        if self._too_fast("webhook"):
            return web.Response(status=429, headers={"Retry-After": "1"}, text="rate_limited")
        body = await _json(request)
        if body is None or set(body) - _WEBHOOK:
            return web.Response(status=400, text="invalid_payload")
        if not isinstance(body.get("text"), str) or not body["text"]:
            return web.Response(status=400, text="no_text")
        self.posted.append(body)
        return web.Response(text="ok")

    async def _post_message(self, request: web.Request) -> web.Response:
        if self.failures:
            return self.failures.popleft()
        if error := self._unauthorized(request):
            return _failed(error)
        body = await _json(request)
        if body is None or set(body) - _ARGUMENTS:
            return _failed("invalid_arguments")
        channel = body.get("channel", "")
        if error := self.channels.get(channel, "channel_not_found"):
            return _failed(error)
        if self._too_fast(channel):
            return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": "1"})
        if not isinstance(body.get("text"), str) or not body["text"]:
            return _failed("no_text")
        if len(body["text"]) > _LONGEST:
            return _failed("msg_too_long")
        self.posted.append(body)
        return web.json_response({"ok": True, "channel": channel, "ts": "1503435956.000247", "message": {}})

    async def _auth_test(self, request: web.Request) -> web.Response:
        error = self._unauthorized(request)
        return _failed(error) if error else web.json_response({"ok": True, "team": "T", "user": "bot"})

    def _unauthorized(self, request: web.Request) -> str:
        given = request.headers.get("Authorization", "")
        if not given:
            return "not_authed"
        return "" if given == f"Bearer {self.token}" else "invalid_auth"

    def _too_fast(self, place: str) -> bool:
        """One message a second; the documented short burst is two here."""
        now = time.monotonic()
        burst = self._burst.get(place, 0) + 1 if now - self._last.get(place, 0.0) < 0.9 else 0
        self._last[place], self._burst[place] = now, burst
        return burst > 1


async def _json(request: web.Request) -> dict[str, Any] | None:
    if request.content_type != "application/json" or request.charset != "utf-8":
        return None
    body = json.loads(await request.read())
    return body if isinstance(body, dict) else None


def _failed(error: str) -> web.Response:
    return web.json_response({"ok": False, "error": error})
