"""Sends a connector's requests as they are, for tests of plugins against fakes of vendors."""

from __future__ import annotations

import aiohttp

from headrace.domain.times import now_us
from headrace_sdk import Request, Response


async def send(request: Request) -> Response:
    """Send a request once."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            request.method, request.url, data=request.body, headers=request.headers, allow_redirects=False
        ) as answer,
    ):
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(status=answer.status, headers=headers, body=await answer.read(), received_at_us=now_us())
