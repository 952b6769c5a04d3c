"""Access tokens: fetched once, shared, renewed when refused, kept sealed; refused credentials stop the destination."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from headrace_sync.leases import Leases
from headrace_sync.outlets.batch import SEND_EVENTS
from headrace_sync.outlets.http import VendorClient
from headrace_sync.outlets.signing import Signer
from headrace_sync.outlets.tokens import TokenStore
from headrace_sync.outlets.verdicts import Kind
from headrace_sync.store import TOKENS

from headrace.plugins.authentication import CredentialsRefused, TokenUnavailable
from headrace.storage.mongo.client import Database
from headrace.storage.sealing import Sealer
from headrace.storage.streams.client import Redis
from headrace_sdk import EventItem
from headrace_sdk.auth import OAuth2
from tests.support import plugin_zoo
from tests.support.outlets import MASTER_KEY, Bench, benched

AUTH = OAuth2(token_url="setting:token_url", client_id="id", client_secret="secret", refresh_token="refresh")


class TokenVendor:
    """A token endpoint that spends each refresh token: the next one comes with the answer."""

    def __init__(self) -> None:
        self.url = ""
        self.given = 0
        self.life_s = 3600
        self.status = 200

    async def answer(self, request: web.Request) -> web.Response:
        """One answer."""
        form = parse_qs(await request.text())
        if self.status != 200:
            return web.json_response({"error": "temporarily_unavailable"}, status=self.status)
        if form["refresh_token"] != [f"r{self.given}"] or form["client_secret"] != ["hush"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.given += 1
        await asyncio.sleep(0.05)  # time for others to ask meanwhile
        token = {"access_token": f"a{self.given}", "refresh_token": f"r{self.given}", "expires_in": self.life_s}
        return web.json_response(token)

    def settings(self) -> dict[str, Any]:
        """Settings of a destination at this vendor."""
        return {"token_url": self.url, "id": "me", "secret": "hush", "refresh": "r0"}


@asynccontextmanager
async def serving(vendor: TokenVendor) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_post("/token", vendor.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    vendor.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.fixture
async def vendor() -> AsyncIterator[TokenVendor]:
    made = TokenVendor()
    async with serving(made):
        yield made


@pytest.fixture
async def bench(tmp_path: Path, redis: Redis, db: Database) -> AsyncIterator[Bench]:
    plugin_zoo.install_callers(tmp_path, "unsigned")
    async with benched(tmp_path, redis, db) as made:
        yield made


@pytest.fixture
async def client() -> AsyncIterator[VendorClient]:
    made = VendorClient(allow_private=True)
    yield made
    await made.close()


def store(db: Database, client: VendorClient, owner: str) -> TokenStore:
    return TokenStore(db, Sealer(MASTER_KEY), Leases(db, owner=owner), client)


async def test_replicas_fetch_one_token_together(db: Database, client: VendorClient, vendor: TokenVendor) -> None:
    stores = [store(db, client, f"replica{at}") for at in range(4)]
    tokens = await asyncio.gather(*(one.get("w/d", AUTH, vendor.settings()) for one in stores * 5))
    assert {token.access for token in tokens} == {"a1"}
    assert vendor.given == 1


async def test_refresh_tokens_follow_each_other(db: Database, client: VendorClient, vendor: TokenVendor) -> None:
    vendor.life_s = 30  # less than a token must have left
    for expected in ("a1", "a2", "a3"):
        replica = store(db, client, expected)
        assert (await replica.get("w/d", AUTH, vendor.settings())).access == expected
    other_list = {**vendor.settings(), "audience_id": "another"}
    assert (await replica.get("w/d", AUTH, other_list)).access == "a4", "other settings leave the account connected"


async def test_new_credentials_begin_anew(db: Database, client: VendorClient, vendor: TokenVendor) -> None:
    replica = store(db, client, "one")
    assert (await replica.get("w/d", AUTH, vendor.settings())).access == "a1"
    with pytest.raises(CredentialsRefused, match="invalid_grant"):
        await replica.get("w/d", AUTH, {**vendor.settings(), "secret": "wrong"})


async def test_tokens_lie_sealed(db: Database, client: VendorClient, vendor: TokenVendor) -> None:
    await store(db, client, "one").get("w/d", AUTH, vendor.settings())
    document = await db[TOKENS].find_one({"_id": "w/d"})
    assert document is not None
    assert set(document) == {"_id", "made_of", "sealed"}
    assert document["sealed"].startswith("v1:")
    assert "hush" not in str(document)


async def test_an_endpoint_that_fails_is_asked_later(db: Database, client: VendorClient, vendor: TokenVendor) -> None:
    vendor.status = 503
    with pytest.raises(TokenUnavailable, match="HTTP 503"):
        await store(db, client, "one").get("w/d", AUTH, vendor.settings())


def signer(bench: Bench, vendor: TokenVendor) -> Signer:
    return Signer("w/d", AUTH, vendor.settings, bench.tokens)


EVENTS = [EventItem(message_id="a", kind="track", name="Purchased")]


async def test_a_refused_token_is_renewed_at_once(bench: Bench, vendor: TokenVendor) -> None:
    bench.signer = signer(bench, vendor)
    outlet = bench.outlet("unsigned")
    bench.accepted = {"Bearer a1"}
    (verdict,) = await outlet.send(SEND_EVENTS, EVENTS)
    assert verdict.kind is Kind.DELIVERED
    bench.accepted = {"Bearer a2"}
    (verdict,) = await outlet.send(SEND_EVENTS, EVENTS)
    assert verdict.kind is Kind.DELIVERED
    assert bench.tokens_seen == ["Bearer a1", "Bearer a1", "Bearer a2"]
    assert not bench.halted


async def test_credentials_that_stay_refused_stop_the_destination(bench: Bench, vendor: TokenVendor) -> None:
    bench.signer = signer(bench, vendor)
    bench.accepted = set()
    outlet = bench.outlet("unsigned")
    (verdict,) = await outlet.send(SEND_EVENTS, EVENTS)
    assert verdict.kind is Kind.UNTRIED
    assert bench.requests == 2, "once more with a new token, and no more"
    assert len(bench.halted) == 1


async def test_a_spent_refresh_token_stops_the_destination(bench: Bench, vendor: TokenVendor) -> None:
    vendor.given = 7  # somebody else has used it
    bench.signer = signer(bench, vendor)
    (verdict,) = await bench.outlet("unsigned").send(SEND_EVENTS, EVENTS)
    assert verdict.kind is Kind.UNTRIED
    assert bench.requests == 0
    assert bench.halted == ["no access token is given (invalid_grant): connect the account again"]


async def test_without_a_token_items_wait(bench: Bench, vendor: TokenVendor) -> None:
    vendor.status = 500
    bench.signer = signer(bench, vendor)
    (verdict,) = await bench.outlet("unsigned").send(SEND_EVENTS, EVENTS)
    assert verdict.kind is Kind.UNTRIED
    assert verdict.after_s and not bench.halted and bench.requests == 0
