"""Connectors in another language: the example of the documentation, over its protocol and over HTTP, and bad ones."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from headrace.conformance import Level, Options, Result, conformance
from headrace.domain.times import now_us
from headrace.plugins import Limits, PluginConfigError, PluginError, PluginErrorKind, PluginHost, secrets_of
from headrace_sdk import (
    Bearer,
    Delivered,
    EventBatch,
    EventItem,
    FieldType,
    Idempotency,
    MemberBatch,
    Outcomes,
    RateLimit,
    Rejected,
    Request,
    Response,
    Retry,
)
from tests.support import node_plugin
from tests.support.processes import is_running
from tests.support.vendor_calls import send

TOKEN = {"token": node_plugin.SECRET}
PATIENT = Limits(call_s=20.0)


@asynccontextmanager
async def hosting(*folders: Path, limits: Limits = PATIENT) -> AsyncIterator[PluginHost]:
    host = PluginHost(path=[], folders=map(str, folders), limits=limits)
    await host.start()
    try:
        yield host
    finally:
        await host.close()


def event(message_id: str, **fields: Any) -> EventItem:
    return EventItem(message_id=message_id, kind="track", name="Bought", fields=fields)


def batch(*events: EventItem) -> EventBatch:
    return EventBatch(events=events, now_us=now_us())


async def test_the_example_says_what_it_is() -> None:
    async with hosting(node_plugin.EXAMPLE) as host:
        assert host.failures() == ()
        info = host.connectors()["events-js"]
    assert (info.plugin, info.version, info.api) == ("headrace-connector-node", "1.0.0", "1.0")
    assert info.capabilities == {"forwarding", "event_sync"}
    assert info.auth == Bearer(setting="token")
    assert [field.type for field in info.fields] == [FieldType.TEXT, FieldType.NUMBER]
    assert info.limits == (RateLimit(count=20, per_s=1.0),)
    assert info.idempotency == Idempotency.KEY
    # What it does not say has the defaults.
    assert (info.batch.max_items, info.batch.max_bytes, info.concurrency, info.timeout_s) == (100, 1_000_000, 4, 30.0)
    assert (info.kind, info.removes, info.retry.base_s) == ("destination", True, 2.0)
    assert secrets_of(info.settings_schema, {"url": "u", "token": "t"}) == ["t"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({}, "url"),
        ({"url": "https://a.example", "token": 7}, "token"),
        ({"url": "ftp://a.example", "token": "t"}, "url"),
        ({"url": "https://a.example", "token": "t", "colour": "red"}, "colour"),
    ],
)
async def test_the_example_refuses_settings_by_their_field(settings: dict[str, Any], field: str) -> None:
    async with hosting(node_plugin.EXAMPLE) as host:
        with pytest.raises(PluginConfigError) as caught:
            await host.open("events-js", settings)
    assert caught.value.field == field


def test_the_example_conforms() -> None:
    folder = node_plugin.EXAMPLE
    options = Options(folder=folder / "tests" / "conformance", path=[], folders=[str(folder)], examples=8)
    report = conformance("headrace-connector-node", options)
    assert {one.id: one.seen for one in report.failed()} == {}
    asked = {one.level for one in report.checks if one.result is Result.PASSED}
    assert asked == set(Level) - {Level.HYGIENE}  # which looks at Python from within


async def test_the_example_delivers_to_a_receiver() -> None:
    got: list[Any] = []
    answers: list[tuple[int, Any]] = []

    async def take(request: web.Request) -> web.Response:
        got.append(await request.json())
        status, body = answers.pop(0)
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_post("/in", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with hosting(node_plugin.EXAMPLE) as host:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/in"
            instance = await host.open("events-js", {"url": url, **TOKEN})
            events = batch(event("m1", email=" Ada@Example.com", value=9.5), event("m2"), event("m3", email="b@x.de"))
            built = await instance.send_events(events)
            (skip,) = built.skipped
            assert (skip.item, skip.field) == (1, "email")
            (request,) = built.requests
            assert request.items == (0, 2)

            answers += [(200, {}), (200, {"rejected": [{"at": 1, "field": "email"}]}), (429, {}), (401, {}), (404, {})]
            read = [await instance.read(request, await send(request)) for _ in range(5)]
            assert (await instance.normalise([("email", " A@B.de")]))[0].sent == "a@b.de"
    finally:
        await runner.cleanup()
    assert got[0] == [
        {"id": "m1", "name": "Bought", "email": "ada@example.com", "value": 9.5},
        {"id": "m3", "name": "Bought", "email": "b@x.de"},
    ]
    assert read[0] == Outcomes(items=(Delivered(), Delivered()))
    rejected = Rejected(reason="the receiver refuses the value", field="email")
    assert read[1] == Outcomes(items=(Delivered(), rejected))
    assert read[2] == Outcomes(items=(Retry(reason="the receiver answered 429"),) * 2, throttle_s=0.0)
    assert read[3].unauthorized == "the receiver refuses the token"
    assert read[4] == Outcomes(items=(Rejected(reason="refused with 404"),) * 2)


BUILDING = {
    "hangs": (
        "methods.SendEvents = () => { for (;;); }",
        PluginErrorKind.TIMEOUT,
        "no answer to send_events within 2 s",
    ),
    "answers-nothing": (
        "methods.SendEvents = () => ({})",
        PluginErrorKind.DEFECT,
        "item 0 of 1 is left out without a reason",
    ),
    "ends": ("methods.SendEvents = () => process.exit(7)", PluginErrorKind.CRASHED, "ended with status 7 during"),
    "eats-memory": (
        "methods.SendEvents = () => Buffer.alloc(3e9, 1)",
        PluginErrorKind.DEFECT,
        "Array buffer allocation failed",
    ),
    "throws": (
        "methods.SendEvents = () => { throw new Error(`no ${settings.token}`); }",
        PluginErrorKind.DEFECT,
        "no ********",
    ),
    "lacks-a-method": ("delete methods.SendEvents", PluginErrorKind.DEFECT, "it does not answer to send_events"),
    "loses-item": (
        "methods.SendEvents = () => ({ built: { requests: [] } })",
        PluginErrorKind.DEFECT,
        "item 0 of 1 is left out",
    ),
    "too-large": (
        "methods.SendEvents = () => ({ built: { requests: [{ body: Buffer.alloc(140e6) }] } })",
        PluginErrorKind.DEFECT,
        "its answer to send_events is larger than a message may be",
    ),
}


@pytest.mark.parametrize("name", BUILDING)
async def test_faults_of_other_languages_are_told_and_harm_nobody(tmp_path: Path, name: str) -> None:
    fault, kind, part = BUILDING[name]
    async with hosting(node_plugin.install(tmp_path, fault), limits=Limits(call_s=2.0)) as host:
        faulty = await host.open("faulty", TOKEN)
        with pytest.raises(PluginError) as caught:
            await faulty.send_events(batch(event("m")))
        assert caught.value.kind == kind, str(caught.value)
        assert part in caught.value.reason
        assert await faulty.rows([]) == []  # it serves again


WRONG = {
    "no-json-in-a-row": ("BuildRows", "{ members: [{ rows: [{ key: 'k', data_json: Buffer.from('{') }] }] }"),
    "no-kind": ("ReadResponses", "{ results: [{ outcomes: { items: [{}] } }] }"),
}


async def test_answers_of_a_wrong_shape_are_defects(tmp_path: Path) -> None:
    fault = "; ".join(f"methods.{rpc} = () => ({answer})" for rpc, answer in WRONG.values())
    async with hosting(node_plugin.install(tmp_path, fault)) as host:
        faulty = await host.open("faulty", TOKEN)
        with pytest.raises(PluginError, match="its answer to rows has a wrong shape"):
            await faulty.rows([])
        request = Request(method="POST", url="https://vendor.example/", items=(0,))
        with pytest.raises(PluginError, match="its answer to read has a wrong shape"):
            await faulty.read(request, Response(status=200))
        with pytest.raises(PluginError, match="does not answer to add_members"):
            await faulty.add_members(MemberBatch(rows=(), now_us=0))


LOADING = {
    "manifest.name = 'Not A Name'": "name must be 1 to 63 lower-case letters",
    "manifest.title = ''": "title must say something",
    "manifest.api = '2.0'": "written for plugin API 2.0",
    "manifest.capabilities = []": "capabilities must name at least one",
    "manifest.auth = { bearer: { setting: 'key' } }": "auth names the setting 'key', which the settings do not have",
    "manifest.concurrency = -1": "must be positive",
    "manifest.any_of = [{ names: ['email'] }]": "any_of names the field 'email', which is not declared",
    "manifest.settings_schema_json = Buffer.from('[]')": "its answer to load has a wrong shape",
    'manifest.settings_schema_json = Buffer.from(\'{"type": "string"}\')': "must be one of an object",
    "manifest.idempotency = 'sometimes'": "its answer to load has a wrong shape",
    "methods.DescribeConnectors = () => ({ connectors: [] })": "it offers no connector",
    "methods.DescribeConnectors = () => ({ connectors: [manifest, manifest] })": "connector 'faulty' is offered twice",
    "process.exit(3)": "its process ended with status 3 during load",
}


async def test_what_cannot_be_loaded_is_told_with_its_reason(tmp_path: Path) -> None:
    folders = [node_plugin.install(tmp_path, fault, name=f"n{at}") for at, fault in enumerate(LOADING)]
    async with hosting(*folders, node_plugin.install(tmp_path)) as host:
        assert list(host.connectors()) == ["faulty"]
        reasons = {failure.plugin: failure.reason for failure in host.failures()}
    for at, (fault, part) in enumerate(LOADING.items()):
        assert part in reasons[f"n{at}"], (fault, reasons[f"n{at}"])


async def test_a_command_that_cannot_serve_is_given_up(tmp_path: Path) -> None:
    absent = node_plugin.install(tmp_path, name="absent", said={"command": ["no-such-program-anywhere"]})
    silent = node_plugin.install(tmp_path, name="silent", said={"command": ["sleep", "60"]})
    async with hosting(absent, silent, limits=Limits(load_s=3.0)) as host:
        assert {failure.plugin: failure.reason for failure in host.failures()} == {
            "absent": "its process ended with status 127 during load",
            "silent": "no answer to load within 3 s",
        }


async def test_what_it_prints_is_kept_and_masked_and_it_sees_no_settings_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_MASTER_KEY", "top-secret-key")
    fault = """methods.SendEvents = ({ batch }) => {
      console.log("out", settings.token); console.error("err", settings.token);
      return { built: { skipped: [{ item: 0, reason: JSON.stringify(Object.keys(process.env).sort()) }] } };
    }"""
    async with hosting(node_plugin.install(tmp_path, fault)) as host:
        faulty = await host.open("faulty", TOKEN)
        (skip,) = (await faulty.send_events(batch(event("m")))).skipped
        assert '"PATH"' in skip.reason
        assert "MASTER_KEY" not in skip.reason
        for _ in range(200):
            if len(host.output("faulty")) == 2:
                break
            await asyncio.sleep(0.02)
        assert sorted(host.output("faulty")) == ["err ********", "out ********"]


async def test_it_ends_with_a_host_that_is_killed(tmp_path: Path) -> None:
    """Also in the middle of a call that never ends."""
    folder = node_plugin.install(tmp_path, BUILDING["hangs"][0])
    code = f"""
import asyncio
from headrace.plugins import Limits, PluginHost
from headrace_sdk import EventBatch, EventItem

async def main():
    host = PluginHost(path=[], folders=[{str(folder)!r}], limits=Limits(call_s=300))
    await host.start()
    faulty = await host.open("faulty", {TOKEN!r})
    print(host.processes()["faulty"], flush=True)
    await faulty.send_events(EventBatch(events=(EventItem(message_id="m", kind="track"),), now_us=0))

asyncio.run(main())
"""
    host = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert host.stdout is not None
    pid = int(await host.stdout.readline())
    await asyncio.sleep(0.3)
    host.kill()
    await host.wait()
    for _ in range(200):
        if not is_running(pid):
            return
        await asyncio.sleep(0.1)
    os.kill(pid, 9)
    raise AssertionError("the plugin's process is still there")
