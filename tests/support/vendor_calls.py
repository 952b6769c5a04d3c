"""Sends a connector's requests as they are, for tests of plugins against fakes of vendors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from headrace.domain.times import now_us
from headrace.plugins.authentication import authorised
from headrace_sdk import Request, Response
from headrace_sdk.auth import Auth


async def send(request: Request, auth: Auth | None = None, settings: Mapping[str, Any] | None = None) -> Response:
    """Send a request once, with the credentials that the host would add."""
    request = authorised(request, auth, settings or {}, now_us=now_us())
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            request.method, request.url, data=request.body, headers=request.headers, allow_redirects=False
        ) as answer,
    ):
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(status=answer.status, headers=headers, body=await answer.read(), received_at_us=now_us())
