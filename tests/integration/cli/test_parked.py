"""Operators list parked events and have them processed again."""

from __future__ import annotations

import asyncio
import json

import pytest
from headrace_identity.worker import Incoming, Worker

from headrace.cli.main import main
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from tests.support.identity import event


async def test_parked_events_are_listed_and_replayed(
    db: Database, settings_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HEADRACE_MONGO_URL", "HEADRACE_MONGO_DATABASE"):
        monkeypatch.setenv(name, settings_env[name])
    wrong = [event(message_id, ("user_id", "u1"), workspace_id="shop") for message_id in ("bad-1", "bad-2")]
    for one in wrong:
        one.traits = b'["ann@shop.example"]'
    await Worker(db).process("shop", [Incoming(one, "s", i) for i, one in enumerate(wrong)])

    async def admin(*arguments: str) -> str:
        assert await asyncio.to_thread(main, ["admin", "parked", *arguments]) == 0
        return capsys.readouterr().out

    listed = await admin("list", "shop")
    assert "ann@shop.example" not in listed
    assert [(e["message_id"], e["reason"][0]) for e in json.loads(listed)] == [
        ("bad-1", "msgspec.ValidationError"),
        ("bad-2", "msgspec.ValidationError"),
    ]
    assert json.loads(await admin("list", "another")) == []
    assert await admin("replay", "another") == "events that are in the log again: 0\n"
    assert await admin("replay", "shop", "bad-2") == "events that are in the log again: 1\n"
    assert [e["message_id"] for e in json.loads(await admin("list", "shop"))] == ["bad-1"]
    assert await admin("replay", "shop") == "events that are in the log again: 1\n"
    waiting = [d["_id"] async for d in db[log.SEGMENTS].find({"q": 0})]
    sent = [e.message_id for _, batch in await log.read_segments(db, waiting) for e in batch.events]
    assert sent == ["bad-2", "bad-1"]
