"""Whose address a request's is: the HTTP port as an application, with connections from where no test can come from."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from headrace_ingest.committer import Committer, Work
from headrace_ingest.http import HttpApp
from headrace_ingest.http_requests import Bodies
from headrace_ingest.intake import Intake
from headrace_ingest.limits import DEFAULT_LIMITS
from headrace_ingest.sources import Source, SourceCache, now_source

_DE, _FR = "203.0.113.7", "2001:db8:1::7"
_COUNTRIES = {_DE: "DE", _FR: "FR"}


class _Committer:
    """Keeps what would have been written."""

    def __init__(self) -> None:
        self.contexts: list[Any] = []

    async def commit(self, work: Work) -> None:
        self.contexts += [json.loads(event.context) if event.context else None for event in work.events]


class _Sources:
    """One source of a kind."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    async def by_secret(self, _: str) -> Source:
        fields: dict[str, Any] = {"allowed_origins": (), "mapping": "", "disabled": False, "sealed": ""}
        return now_source("shop", "web", display_name="web", kind=self._kind, **fields)


async def _context(client: tuple[str, int] | None, forwarded: str = "", *, kind: str = "website", trusts: bool) -> Any:
    """The context of a message that comes over a connection."""
    committer = _Committer()
    intake = Intake(
        cast(Committer, committer),
        limits=DEFAULT_LIMITS,
        raw_message_days=1,
        rejected_body_bytes=1_000,
        country_of=lambda said: _COUNTRIES.get(said, ""),
    )
    app = HttpApp(
        intake,
        cast(SourceCache, _Sources(kind)),
        Bodies(limit=10_000, seconds=1, in_work_max=10_000),
        is_ready=lambda: True,
        trusts_proxies=trusts,
    )
    headers = [(b"x-write-key", b"wk_x"), *([(b"x-forwarded-for", forwarded.encode())] if forwarded else [])]
    scope = {"type": "http", "method": "POST", "path": "/v1/track", "query_string": b"", "headers": headers}
    body = json.dumps({"userId": "u", "event": "A"}).encode()
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app({**scope, "client": client}, receive, send)
    assert statuses == [200]
    (context,) = committer.contexts
    return context


@pytest.mark.parametrize("address", [_DE, _FR])
async def test_a_direct_connection_is_the_clients(address: str) -> None:
    expected = {"location": {"country": _COUNTRIES[address]}}
    assert await _context((address, 4711), trusts=False) == expected
    assert await _context((address, 4711), trusts=True) == expected


async def test_a_proxy_that_is_not_trusted_is_not_taken_for_the_client() -> None:
    """Its own country would be that of thousands of people; what it forwards may be anybody's word."""
    assert await _context((_DE, 4711), _FR, trusts=False) is None


async def test_servers_and_connections_without_an_address_have_none() -> None:
    assert await _context((_DE, 4711), kind="http", trusts=False) is None
    assert await _context(None, trusts=False) is None
