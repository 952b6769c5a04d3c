"""What users ask vendors through a destination: does it work, which lists are there, make one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from headrace_sync.calls.vendor_handlers import FAILED, PASSED, UNKNOWN, Checked, VendorHandlers
from headrace_sync.config import DestinationConfig, sealing_place
from headrace_sync.outlets.rates import RateLimiter

from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1.destination_service_pb2 import DestinationState
from headrace.rpc.errors import ApiError, error_info, reason_of
from headrace.storage.mongo.client import Database
from headrace.storage.sealing import Sealer
from headrace.storage.streams.client import Redis
from tests.integration.sync.test_management import refused
from tests.support import plugin_zoo
from tests.support.outlets import MASTER_KEY, Bench, benched
from tests.support.sync import PARENT


@pytest.fixture
async def bench(tmp_path: Path, redis: Redis, db: Database) -> AsyncIterator[Bench]:
    plugin_zoo.install_callers(tmp_path, "takes-jobs", "good")
    async with benched(tmp_path, redis, db) as made:
        yield made


@pytest.fixture
def handlers(bench: Bench, redis: Redis) -> VendorHandlers:
    return VendorHandlers(bench.host, Sealer(MASTER_KEY), bench.tokens, bench.client, RateLimiter(redis))


def destination(bench: Bench, connector: str = "takes-jobs", **settings: Any) -> DestinationConfig:
    values = {"token": plugin_zoo.SECRET, "url": bench.url, **settings}
    sealed = Sealer(MASTER_KEY).seal(msgspec.json.encode(values).decode(), sealing_place("w/d"))
    return DestinationConfig(
        key="w/d", workspace_id="w", id="d", display_name="D", connector=connector, sealed=sealed, masked="{}",
        state=DestinationState.DESTINATION_STATE_UNAUTHORIZED, state_reason="refused", created_us=1, updated_us=1,
        revision=1, required_consents=(),
    )  # fmt: skip


async def test_checks_say_what_works(bench: Bench, handlers: VendorHandlers) -> None:
    assert await handlers.check(destination(bench)) == [Checked("May write", PASSED)]
    bench.status = 403
    assert await handlers.check(destination(bench)) == [Checked("May write", FAILED, "no right with ********")]
    bench.status = 503
    (found,) = await handlers.check(destination(bench))
    assert (found.state, found.problem) == (UNKNOWN, "the vendor answered with HTTP 503: check again")
    nobody = destination(bench, url="http://127.0.0.1:9/in")
    (found,) = await handlers.check(nobody)
    assert (found.state, found.problem) == (UNKNOWN, "no connection to the destination")


async def test_lists_are_shown_page_by_page_and_made(bench: Bench, handlers: VendorHandlers) -> None:
    bench.answer = {"lists": [{"id": "7", "name": "Buyers", "size": 3}], "next": "p2"}
    found = await handlers.lists(destination(bench), "")
    assert [(one.id, one.name, one.size) for one in found.lists] == [("7", "Buyers", 3)]
    await handlers.lists(destination(bench), found.next_page)
    assert bench.paths == ["/in?page=", "/in?page=p2"]
    bench.answer = {"lists": [{"id": "8", "name": "New"}]}
    assert (await handlers.create_list(destination(bench), "New")).id == "8"
    bench.answer = {"lists": []}
    with pytest.raises(ApiError, match="did not say which list"):
        await handlers.create_list(destination(bench), "New")


async def test_a_refusal_says_so(bench: Bench, handlers: VendorHandlers) -> None:
    bench.status = 401
    with pytest.raises(ApiError, match="The vendor refused: refused"):
        await handlers.lists(destination(bench), "")
    with pytest.raises(ApiError, match="is not loaded"):
        await handlers.check(destination(bench, "gone"))
    with pytest.raises(ApiError, match="settings cannot work"):
        await handlers.check(destination(bench, token=7))


async def test_over_grpc_a_connector_without_lists_says_so(serve: Any) -> None:
    async with serve() as api:
        name = await api.destination("hook", "https://receiver.example/hook")
        answer = await api.destinations.CheckDestination(dest.CheckDestinationRequest(name=name))
        assert [(one.title, one.state) for one in answer.checks] == [("The settings are complete", PASSED)]
        error = await refused(api.destinations.ListVendorLists(dest.ListVendorListsRequest(parent=name)))
        assert reason_of(error) == "WRONG_STATE"
        info = error_info(error)
        assert info is not None
        made = dest.CreateVendorListRequest(parent=name, display_name="New")
        assert reason_of(await refused(api.destinations.CreateVendorList(made))) == "WRONG_STATE"
        nameless = dest.CreateVendorListRequest(parent=name)
        assert reason_of(await refused(api.destinations.CreateVendorList(nameless))) == "INVALID_ARGUMENT"


SCRIPT = (
    "function send(event, profile, settings) { return {url: 'https://a.example/' + event.name, body: settings.token} }"
)


async def test_settings_are_tried_with_sample_events(serve: Any) -> None:
    async with serve(plugins="webhook,javascript") as api:
        await api.destination("hook", "https://receiver.example/hook")
        events = [
            '{"event": "A", "messageId": "m1", "userId": "u"}',
            '{"event": "B", "messageId": "m2", "userId": "u"}',
        ]

        async def tried(events: list[str] = events, **destination: Any) -> dest.TestDestinationResponse:
            request = dest.TestDestinationRequest(
                parent=PARENT, destination=dest.Destination(**destination), events=events
            )
            answer: dest.TestDestinationResponse = await api.destinations.TestDestination(request)
            return answer

        saved = await tried(name=f"{PARENT}/destinations/hook")
        assert [(one.url, list(one.message_ids)) for one in saved.requests] == [
            ("https://receiver.example/hook", ["m1"]), ("https://receiver.example/hook", ["m2"]),
        ]  # fmt: skip
        settings = {"script": SCRIPT, "secrets": {"token": "s3cr3t-s3cr3t"}}
        found = await tried(connector="javascript", settings=json.dumps(settings))
        assert [(one.method, one.url, one.body) for one in found.requests] == [
            ("POST", "https://a.example/A", "********"), ("POST", "https://a.example/B", "********"),
        ]  # fmt: skip
        failing = {"script": "function send(event) {\n  return event.a.b;\n}"}
        found = await tried(connector="javascript", settings=json.dumps(failing))
        assert [(one.message_id, one.is_failure) for one in found.skipped] == [("m1", True), ("m2", True)]
        assert found.skipped[0].reason.startswith("line 2, column ")
        for wrong, field in (
            (tried(connector="javascript", settings='{"script": "function ("}'), "destination.settings.script"),
            (tried(connector="webhook", settings="{"), "destination.settings"),
            (tried(connector="nobody"), "destination.connector"),
            (tried(["{"], name=f"{PARENT}/destinations/hook"), "events[0]"),
            (tried([], name=f"{PARENT}/destinations/hook"), "events"),
            (tried(name="workspaces/other/destinations/hook"), "destination.name"),
        ):
            error = await refused(wrong)
            assert reason_of(error) == "INVALID_ARGUMENT" and field in (error.details() or "")
        assert reason_of(await refused(tried(name=f"{PARENT}/destinations/nobody"))) == "NOT_FOUND"
