"""A receiver of webhooks that checks signatures by Standard Webhooks and drops what it has seen."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class HookReceiver:
    """The receiver. Start it, point a destination at `url`, look at what came."""

    signing_secret: str = ""
    answers: deque[tuple[int, Mapping[str, str]]] = field(default_factory=deque)
    """Status and headers of the next answers; 200 when there are none left."""
    requests: list[Received] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)
    """How often each idempotency key was accepted; a receiver that drops what it has seen acts on it once."""
    violations: list[str] = field(default_factory=list)
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._take)
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
        """Address for the setting url."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append(Received(request.method, request.path, dict(request.headers), body))
        key = request.headers.get("Idempotency-Key", "")
        if not key or key != request.headers.get("webhook-id"):
            self.violations.append("no Idempotency-Key, or another webhook-id")
            return web.json_response({"error": "no key"}, status=400)
        if self.signing_secret and not self._is_signed(request, body):
            self.violations.append("wrong signature")
            return web.json_response({"error": "signature"}, status=401)
        status, headers = self.answers.popleft() if self.answers else (200, {})
        if 200 <= status < 300:
            self.accepted[key] += 1
        return web.Response(status=status, headers=headers, text="{}")

    def _is_signed(self, request: web.Request, body: bytes) -> bool:
        secret = self.signing_secret
        key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
        signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in request.headers.get("webhook-signature", "").split(" ")
