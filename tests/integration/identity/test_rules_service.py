"""Rules, previews, rebuilds and alarms over gRPC, served by the whole service."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from headrace_identity.alarms import Alarms
from headrace_identity.bootstrap import open_service
from headrace_identity.calls.identity_servicer import IdentityServicer
from headrace_identity.calls.rules_servicer import RulesCalls
from headrace_identity.rebuilds.store import RebuildStore, id_of
from headrace_identity.rules_store import RulesStore
from headrace_identity.settings import Settings
from headrace_identity.worker import Incoming, Worker

from headrace.api.identity.v1 import identity_service_pb2 as pb
from headrace.api.identity.v1.identity_service_pb2_grpc import (
    IdentityServiceStub,
    add_IdentityServiceServicer_to_server,
)
from headrace.rpc.auth import ServiceTokenAuthenticator
from headrace.rpc.channel import connect
from headrace.rpc.errors import field_violations, reason_of
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager
from headrace.rpc.server import Hosted, serving
from headrace.settings import ServiceSettings
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from tests.support.identity import WORKSPACE, event
from tests.support.settings import MakeSettings

PARENT = f"workspaces/{WORKSPACE}"
RULES = f"{PARENT}/identityRules"


@pytest.fixture
async def stub(db: Database, redis: Redis, make_settings: MakeSettings) -> AsyncIterator[Any]:
    """IdentityService, called as another service."""
    async with _serving(make_settings(Settings, event_partitions=1)) as found:
        yield found


@asynccontextmanager
async def _serving(settings: Settings) -> AsyncIterator[Any]:
    async with open_service(settings) as running, connect(running.grpc_address, settings) as channel:
        yield IdentityServiceStub(channel)


def update(rules: object, etag: str = "") -> pb.UpdateIdentityRulesRequest:
    text = rules if isinstance(rules, bytes) else json.dumps(rules).encode()
    return pb.UpdateIdentityRulesRequest(identity_rules=pb.IdentityRules(name=RULES, rules=text, etag=etag))


async def ended(stub: Any, name: str) -> pb.Rebuild:
    for _ in range(400):
        found = (await stub.GetRebuild(pb.GetRebuildRequest(name=name))).rebuild
        if found.state not in (pb.REBUILD_STATE_RUNNING, pb.REBUILD_STATE_SWITCHING):
            return found  # type: ignore[no-any-return]  # the stub is untyped
        await asyncio.sleep(0.05)
    raise AssertionError("it does not end")


async def test_rules_and_their_errors(stub: Any) -> None:
    default = (await stub.GetIdentityRules(pb.GetIdentityRulesRequest(name=RULES))).identity_rules
    assert (default.version, default.etag, default.HasField("update_time")) == (0, "0", False)
    assert json.loads(default.rules)["protected"] == ["user_id"]
    stored = (await stub.UpdateIdentityRules(update({"max_merges": 7}, default.etag))).identity_rules
    assert (stored.version, stored.etag, stored.HasField("update_time")) == (1, "1", True)
    assert json.loads(stored.rules)["max_merges"] == 7
    # What is in force already makes no new version.
    again = (await stub.UpdateIdentityRules(update(json.loads(stored.rules)))).identity_rules
    assert again.version == 1
    for wrong in (default.etag, "x"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.UpdateIdentityRules(update({}, wrong))
        assert reason_of(caught.value) == "ETAG_MISMATCH"
    for rules, field in [
        (b"", "identity_rules.rules"),
        (b"{", "identity_rules.rules"),
        (b" " * 100_001, "identity_rules.rules"),
        ({"limit": 1}, "identity_rules.rules.limit"),
        ({"namespaces": [{"name": "a"}, {"name": "a"}]}, "identity_rules.rules.namespaces[1].name"),
        ({"namespaces": [{"name": "a", "limit": 0}]}, "identity_rules.rules.namespaces[0].limit"),
        ({"blocked": [{"matches": "(?=a)"}]}, "identity_rules.rules.blocked[0].matches"),
        ({"policies": [{"policy": "link"}, {"policy": "link"}]}, "identity_rules.rules.policies[1]"),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.UpdateIdentityRules(update(rules))
        assert [violation for violation, _ in field_violations(caught.value)] == [field]


async def test_from_a_preview_to_the_rebuild(stub: Any, db: Database) -> None:
    events = [
        event("m1", ("user_id", "u1"), ("anonymous_id", "shared")),
        event("m2", ("email", "a@shop.example"), ("anonymous_id", "shared"), day=1),
        event("m3", ("email", "b@shop.example"), ("anonymous_id", "shared"), day=2),
    ]
    await Worker(db).process(WORKSPACE, [Incoming(e, "s", i) for i, e in enumerate(events)])
    rules = json.dumps({"namespaces": [{"name": "user_id"}, {"name": "email", "limit": 1}]}).encode()
    asked = pb.PreviewIdentityRulesRequest(parent=PARENT, rules=rules, request_id=str(uuid.uuid4()))
    preview = (await stub.PreviewIdentityRules(asked)).rebuild
    assert (await stub.PreviewIdentityRules(asked)).rebuild.name == preview.name
    said = await ended(stub, preview.name)
    assert (said.state, said.preview, said.error) == (pb.REBUILD_STATE_DONE, True, "")
    assert (said.profiles_before, said.profiles_after, said.splitting, said.moved_events) == (1, 2, 1, 1)
    ((before,), (first, second)) = [list(side) for e in said.split_examples for side in (e.before, e.after)]
    assert len(before.identifiers) == 4
    assert len(first.identifiers) + len(second.identifiers) == 4
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.StartRebuild(pb.StartRebuildRequest(parent=PARENT, rules=rules, etag="9"))
    assert reason_of(caught.value) == "ETAG_MISMATCH"
    begin = pb.StartRebuildRequest(parent=PARENT, rules=rules, etag="0", request_id=str(uuid.uuid4()))
    started = (await stub.StartRebuild(begin)).rebuild
    assert (await stub.StartRebuild(begin)).rebuild.name == started.name
    done = await ended(stub, started.name)
    assert (done.state, done.rules_version, done.moved_events) == (pb.REBUILD_STATE_DONE, 1, 1)
    assert done.split_examples == said.split_examples
    listed = await stub.ListRebuilds(pb.ListRebuildsRequest(parent=PARENT, page_size=1))
    assert [r.name for r in listed.rebuilds] == [started.name]
    assert not listed.rebuilds[0].split_examples
    rest = pb.ListRebuildsRequest(parent=PARENT, page_size=1, page_token=listed.next_page_token)
    assert [r.name for r in (await stub.ListRebuilds(rest)).rebuilds] == [preview.name]
    cancelled = (await stub.CancelRebuild(pb.CancelRebuildRequest(name=started.name))).rebuild
    assert cancelled.state == pb.REBUILD_STATE_DONE
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetRebuild(pb.GetRebuildRequest(name=f"{PARENT}/rebuilds/none"))
    assert reason_of(caught.value) == "NOT_FOUND"


async def test_alarms_page_by_page(stub: Any, db: Database) -> None:
    await stub.UpdateIdentityRules(update({"alarm_identifiers": 2, "alarm_people": 1}))
    kiosk = ("anonymous_id", "kiosk")
    events = [event(f"m{i}", ("user_id", f"u{i}"), kiosk) for i in range(3)]
    alarms = Alarms(db)
    await Worker(db, alarms=alarms).process(WORKSPACE, [Incoming(e, "s", i) for i, e in enumerate(events)])
    await alarms.write()
    page = await stub.ListIdentityAlarms(pb.ListIdentityAlarmsRequest(parent=PARENT, page_size=1))
    rest = pb.ListIdentityAlarmsRequest(parent=PARENT, page_token=page.next_page_token)
    found = [*page.alarms, *(await stub.ListIdentityAlarms(rest)).alarms]
    assert {a.kind: (bool(a.profile), a.identifier.value, a.count) for a in found} == {
        "super_node": (True, "", 2),
        "weak_value": (False, "kiosk", 2),
    }
    assert all(a.advice and a.HasField("create_time") for a in found)


async def test_who_stops_waiting_leaves_it_running(db: Database, make_settings: MakeSettings) -> None:
    """The command is told to end by Ctrl-C while nobody works on the rebuild."""
    settings = make_settings(ServiceSettings)
    rules = RulesStore(db)
    rebuilds = RebuildStore(db, rules)
    calls = RulesCalls(db, rules, rebuilds, RequestIds(db), Pager("secret"))
    servicer = IdentityServicer(calls)  # type: ignore[abstract]  # its parts have the methods
    hosted = Hosted(
        "headrace.api.identity.v1.IdentityService", lambda s: add_IdentityServiceServicer_to_server(servicer, s)
    )
    token = settings.service_token.get_secret_value()
    knows = ServiceTokenAuthenticator(token)
    async with serving([hosted], authenticator=knows, settings=settings) as address:
        where = ["--address", address, "--token", token, "--workspace", WORKSPACE]
        waiting = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace.cli.main", "identity", "rebuild", "--wait", *where),
            stderr=asyncio.subprocess.PIPE,
        )
        while not (found := await rebuilds.page(WORKSPACE, "", 1)):
            await asyncio.sleep(0.02)
        await asyncio.sleep(2.0)  # the answer is on its way
        waiting.send_signal(signal.SIGINT)
        _, said = await asyncio.wait_for(waiting.communicate(), 20)
    rebuild_id = id_of(found[0])
    assert waiting.returncode == 130
    assert f"headrace identity rebuilds cancel {rebuild_id}" in said.decode()
    assert (await rebuilds.get(WORKSPACE, rebuild_id))["st"] == pb.REBUILD_STATE_RUNNING
