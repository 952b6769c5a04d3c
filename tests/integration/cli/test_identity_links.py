"""Commands that undo merges and link by hand, against the service."""

from __future__ import annotations

import asyncio
import json

import pytest
from headrace_identity.bootstrap import open_service
from headrace_identity.settings import Settings
from headrace_identity.worker import Incoming, Worker

from headrace.cli.main import main
from headrace.storage.mongo.client import Database
from tests.support.identity import WORKSPACE, event
from tests.support.settings import MakeSettings


async def test_undo_link_links_unlink(
    db: Database, make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    user, device = ("user_id", "user-1"), ("anonymous_id", "dev-1")
    events = [event("m1", device), event("m2", user), event("m3", user, device)]
    await Worker(db).process(WORKSPACE, [Incoming(e, "s", i) for i, e in enumerate(events)])
    settings = make_settings(Settings)
    async with open_service(settings) as running:
        connection = ["--address", running.grpc_address, "--workspace", WORKSPACE]
        connection += ["--token", settings.service_token.get_secret_value()]

        async def identity(*arguments: str, status: int = 0) -> str:
            assert await asyncio.to_thread(main, ["identity", *arguments, *connection]) == status
            captured = capsys.readouterr()
            return captured.out if status == 0 else captured.err

        (merge,) = json.loads(await identity("merges", "--json"))
        text = await identity("undo", merge["name"], "--reason", "shared tablet")
        assert "user_id:user-1" in text and "shared tablet" in text
        assert json.loads(await identity("merges", "--json")) == []
        assert "is undone already, by" in await identity("undo", merge["name"], "--reason", "again", status=1)
        (link,) = json.loads(await identity("links", "--json"))
        assert (link["undone_merge"], link["reason"]) == (merge["name"], "shared tablet")
        assert "say the opposite" in await identity("link", *user, *device, "--reason", "no", status=1)
        assert "moved" in (await identity("unlink", link["name"])).lower()
        assert await identity("merges") != ""
        made = json.loads(await identity("link", *user, "email", "ann@shop.example", "--reason", "told", "--json"))
        assert made["link"]["kind"] == "together"
        apart = json.loads(await identity("link", *user, "user_id", "user-2", "--apart", "--reason", "no", "--json"))
        text = await identity("links")
        assert "email:ann@shop.example" in text and "apart" in text
        assert json.loads(await identity("unlink", apart["link"]["name"].rpartition("/")[2], "--json"))["profiles"]
        assert "does not exist" in await identity("unlink", "nothing", status=1)
