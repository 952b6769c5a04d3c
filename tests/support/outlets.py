"""Outlets over real plugin processes, and a vendor on a real port that answers with what a test says."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web
from headrace_sync.leases import Leases
from headrace_sync.outlets.http import VendorClient
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.rates import RateLimiter, limits_of
from headrace_sync.outlets.signing import Signer
from headrace_sync.outlets.tokens import TokenStore

from headrace.plugins import Limits, PluginHost
from headrace.storage.mongo.client import Database
from headrace.storage.sealing import Sealer
from headrace.storage.streams.client import Redis
from tests.support import plugin_zoo

MASTER_KEY = base64.b64encode(bytes(32)).decode()


class Bench:
    """Outlets over the zoo's connectors, and a vendor that answers with what a test says."""

    def __init__(
        self, host: PluginHost, client: VendorClient, limiter: RateLimiter, tokens: TokenStore, url: str
    ) -> None:
        self.host = host
        self.client = client
        self.limiter = limiter
        self.tokens = tokens
        self.signer: Signer | None = None
        self.url = url
        self.tokens_seen: list[str] = []
        """The Authorization header of each request."""
        self.statuses: list[int] = []
        """What the vendor answers, one after the other; then `status`."""
        self.answer: dict[str, Any] = {}
        """The vendor's answer."""
        self.paths: list[str] = []
        """Path and query of each request."""
        self.accepted: set[str] | None = None
        """Headers that the vendor accepts; None for all."""
        self.status = 200
        self.requests = 0
        self.halted: list[str] = []

    def outlet(self, connector: str, **more: Any) -> Outlet:
        info = replace(self.host.connectors()[connector], **more)

        async def halt(reason: str) -> None:
            self.halted.append(reason)

        settings = {"token": plugin_zoo.SECRET, "url": self.url}
        return Outlet(
            info=info,
            open_connector=lambda: self.host.open(connector, settings),
            client=self.client,
            limiter=self.limiter,
            limits=limits_of(info, connector, settings),
            signer=self.signer or Signer(connector, None, dict, self.tokens),
            halt=halt,
        )


@asynccontextmanager
async def benched(folder: Path, redis: Redis, db: Database) -> AsyncIterator[Bench]:
    """A bench over the plugins in a folder."""
    host = PluginHost(["zoo"], path=[str(folder)], limits=Limits(call_s=1.0))
    await host.start()
    client = VendorClient(allow_private=True)
    tokens = TokenStore(db, Sealer(MASTER_KEY), Leases(db, owner="bench"), client)
    made = Bench(host, client, RateLimiter(redis), tokens, "")

    async def answer(request: web.Request) -> web.Response:
        made.requests += 1
        made.tokens_seen.append(request.headers.get("Authorization", ""))
        if made.accepted is not None and made.tokens_seen[-1] not in made.accepted:
            return web.json_response({}, status=401)
        made.paths.append(request.path_qs)
        return web.json_response(made.answer, status=made.statuses.pop(0) if made.statuses else made.status)

    app = web.Application()
    app.router.add_route("*", "/in", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/in"
    yield made
    await client.close()
    await host.close()
    await runner.cleanup()
