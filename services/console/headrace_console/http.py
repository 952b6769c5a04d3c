"""The console's HTTP port: health, and a plain index that says what runs here; there is no page for people yet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from aiohttp import web
from aiohttp.typedefs import Handler

INDEX = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Headrace</title></head>
<body>
<h1>Headrace {version}</h1>
<p>This is the console service. It serves <code>headrace.api.workspace.v1.WorkspaceService</code> over gRPC; there is no
page for people here yet. Until then the command line does everything: <code>headrace --help</code>.</p>
<ul>
<li><a href="/healthz">/healthz</a>: the process works</li>
<li><a href="/readyz">/readyz</a>: it takes calls now</li>
</ul>
</body>
</html>
"""


@asynccontextmanager
async def serving_http(host: str, port: int, is_ready: Callable[[], bool]) -> AsyncIterator[str]:
    """Serve inside the block.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        is_ready: Whether calls are taken now.

    Yields:
        The URL as bound.

    Raises:
        OSError: The port is taken.
    """
    runner = web.AppRunner(_application(is_ready), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound = runner.addresses[0][1]
        yield f"http://{host}:{bound}"
    finally:
        await runner.cleanup()


def _application(is_ready: Callable[[], bool]) -> web.Application:
    page = INDEX.format(version=version("headrace"))

    async def index(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        if is_ready():
            return web.json_response({"status": "ready"})
        body = {"code": "unavailable", "message": "The store cannot be reached at the moment: try again."}
        return web.json_response(body, status=503, headers={"Retry-After": "1"})

    application = web.Application(middlewares=[_errors_as_json])
    application.add_routes([web.get("/", index), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return application


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        code = error.reason.lower().replace(" ", "_")
        body = {"code": code, "message": f"{error.reason}: {request.method} is not served at this path."}
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return web.json_response(body, status=error.status, headers=headers)
