"""Commands that find people and groups and show what they did, against the service."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from headrace_identity.bootstrap import open_service
from headrace_identity.settings import Settings
from headrace_identity.worker import Incoming, Worker

from headrace.api.common.v1.event_pb2 import EventKind
from headrace.cli.main import main
from headrace.domain.ids import profile_id
from headrace.domain.times import DAY_US, format_time_us
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from tests.support.identity import START_US, WORKSPACE, event, put_in_log, segments
from tests.support.settings import MakeSettings

NOBODY = "127.0.0.1:1"


async def test_people_and_groups_from_the_command_line(
    db: Database, redis: Redis, make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    user = ("user_id", "u1")
    group = event("m3", user, day=3)
    group.kind, group.group_id = EventKind.EVENT_KIND_GROUP, "acme"
    group.traits = msgspec.json.encode({"plan": "gold"})
    spoken = event("m4", user, day=4)
    spoken.context = msgspec.json.encode({"consent": {"ads": "denied"}})
    events = [
        event("m1", user, ("email", "ann@shop.example"), traits={"plan": "free"}, day=1),
        event("m2", user, traits={"plan": "Pro"}, day=2, name="Purchased", source_id="shop"),
        group,
        spoken,
    ]
    await Worker(db).process(WORKSPACE, [Incoming(e, "s", i) for i, e in enumerate(events)])
    settings = make_settings(
        Settings, event_partitions=1, identity_lanes=1, audience_address=NOBODY, sync_address=NOBODY
    )
    async with open_service(settings) as running:
        connection = ["--address", running.grpc_address, "--workspace", WORKSPACE]
        connection += ["--token", settings.service_token.get_secret_value()]

        async def run(*arguments: str, status: int = 0) -> str:
            assert await asyncio.to_thread(main, [*arguments, *connection]) == status
            captured = capsys.readouterr()
            return captured.out if status == 0 else captured.err

        async def asked(*arguments: str) -> Any:
            return json.loads(await run(*arguments, "--json"))

        ann = profile_id(WORKSPACE, "m1")
        name = f"workspaces/{WORKSPACE}/profiles/{ann}"
        for search in (["ANN@"], ["u1", "--namespace", "user_id"], ["pro", "--trait", "plan"]):
            assert name in await run("profiles", "search", *search)
        assert [p["name"] for p in await asked("profiles", "search", "P", "--trait", "plan", "--prefix")] == [name]
        assert await asked("profiles", "search", "zoe") == []
        assert "--trait" in await run("profiles", "search", "x", "--namespace", "a", "--trait", "b", status=2)

        text = await run("profiles", "view", ann)
        assert "email:ann@shop.example" in text and "plan: Pro" in text and "acme" in text and "ads: denied" in text
        view = await asked("profiles", "view", ann, "--events", "1")
        assert [e["event"]["message_id"] for e in view["events"]] == ["m4"]
        assert view["unavailable"] == ["audiences", "deliveries"]

        past = await asked("profiles", "at", ann, format_time_us(START_US + DAY_US))
        assert [(t["name"], t["value"]) for t in past["profile"]["traits"]] == [("plan", "free")]
        assert past["event_count"] == 1
        assert "plan: free" in await run("profiles", "at", ann, format_time_us(START_US + DAY_US))
        assert "is no time" in await run("profiles", "at", ann, "yesterday", status=2)

        assert [v["value"] for v in await asked("profiles", "history", ann, "plan")] == ["Pro", "free"]
        assert "Pro" in await run("profiles", "history", ann, "plan")
        assert "denied" in await run("profiles", "history", ann, "--consent")
        assert {v["name"] for v in await asked("profiles", "history", ann)} >= {"plan"}
        assert "TRAIT" in await run("profiles", "history", ann)

        since, until = format_time_us(START_US + 2 * DAY_US), format_time_us(START_US + 4 * DAY_US)
        timeline = await asked("profiles", "events", ann, "--since", since, "--until", until)
        assert [e["event"]["message_id"] for e in timeline] == ["m3", "m2"]
        assert len(await asked("profiles", "events", ann, "--source", "shop")) == 1
        assert "m2" in await run("profiles", "events", ann, "--event", "purchased")

        assert [g["group_id"] for g in await asked("groups", "list")] == ["acme"]
        assert "gold" in await run("groups", "get", "acme")
        assert (await asked("groups", "get", "acme"))["member_count"] == 1
        assert name in await run("groups", "members", "acme")
        assert "m3" in await run("groups", "events", "acme")
        assert await asked("groups", "list", "--prefix", "b") == []
        assert "a group with this id" in await run("groups", "get", "nobody", status=1)

        watching = asyncio.create_task(run("profiles", "watch", ann, "--limit", "1"))
        while not watching.done():  # the watch may begin at any moment
            await put_in_log(db, redis, segments([event("again", user, day=5)], 1), 1)
            await asyncio.sleep(0.2)
        assert (await watching).split() == [name]
