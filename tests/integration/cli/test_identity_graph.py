"""Commands that show and explain who is who, against the service."""

from __future__ import annotations

import asyncio
import json

import pytest
from headrace_identity.bootstrap import open_service
from headrace_identity.settings import Settings
from headrace_identity.worker import Incoming, Worker

from headrace.cli.main import main
from headrace.domain.ids import profile_id
from headrace.storage.mongo.client import Database
from tests.support.identity import WORKSPACE, event
from tests.support.settings import MakeSettings


async def test_graph_explain_merges(
    db: Database, make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    user, device, email = ("user_id", "user-1"), ("anonymous_id", "dev-1"), ("email", "ann@shop.example")
    events = [event("m1", device), event("m2", user, email), event("m3", user, device), event("m4", device)]
    events += [event("m5", ("user_id", "user-2"), email)]
    await Worker(db).process(WORKSPACE, [Incoming(e, "s", i) for i, e in enumerate(events)])
    settings = make_settings(Settings)
    async with open_service(settings) as running:
        connection = ["--address", running.grpc_address, "--workspace", WORKSPACE]
        connection += ["--token", settings.service_token.get_secret_value()]

        async def identity(*arguments: str, status: int = 0) -> str:
            assert await asyncio.to_thread(main, ["identity", *arguments, *connection]) == status
            captured = capsys.readouterr()
            return captured.out if status == 0 else captured.err

        first, second = (profile_id(WORKSPACE, m) for m in ("m1", "m2"))
        text = await identity("graph", second)
        assert text.startswith(f"workspaces/{WORKSPACE}/profiles/{first}\n")
        assert "anonymous_id:dev-1" in text and "merge" in text and "m4" not in text
        graph = json.loads(await identity("graph", first, "--json", "--all"))
        assert [link["message_id"] for link in graph["links"]] == ["m1", "m2", "m3"]
        assert [node["message_id"] for node in graph["nodes"]] == ["m1", "m2", "m2"]
        assert [m["message_id"] for m in graph["merges"]] == ["m3"]

        text = await identity("explain", *device, *email)
        assert text.startswith("The anonymous_id and the email belong to one person: a chain of 2 events")
        rows = [line.split() for line in text.splitlines()[3:]]
        assert [(row[0], row[1], row[2]) for row in rows] == [
            ("anonymous_id:dev-1", "user_id:user-1", "m3"),
            ("user_id:user-1", "email:ann@shop.example", "m2"),
        ]
        answer = json.loads(await identity("explain", *user, "user_id", "user-2", "--json"))
        assert [link["message_id"] for link in answer["kept_apart_by"]] == ["m5"]
        assert "limit:user_id" in await identity("explain", *user, "user_id", "user-2")
        assert "one and the same" in await identity("explain", *user, *user, status=1)

        merges = json.loads(await identity("merges", "--json"))
        assert [m["merge"]["loser"] for m in merges] == [second]
        assert "user_id:user-1" in await identity("merges", first)
        assert "does not exist" in await identity("graph", "nobody", status=1)
