"""Plugins in the host's own process, as their authors debug them: the same contract, without the walls."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from headrace_sync.settings import Settings
from pydantic import ValidationError

from headrace.plugins import PluginConfigError, PluginError, PluginErrorKind, PluginHost
from headrace_sdk import Delivered, EventBatch, EventItem, Member, Outcomes, Request, Response, Row
from tests.support import plugin_zoo
from tests.support.settings import MakeSettings

SETTINGS = {"token": plugin_zoo.SECRET}


@pytest.fixture(autouse=True)
def _clean_imports() -> Iterator[None]:
    """The zoo of each test is a module of its own, though it has the name of the last."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition("_")[0] == "zoo"]:
        del sys.modules[name]


@asynccontextmanager
async def zoo(folder: Path, *names: str) -> AsyncIterator[PluginHost]:
    plugin_zoo.install_callers(folder, *names)
    host = PluginHost(path=[str(folder)], in_process=True)
    await host.start()
    try:
        yield host
    finally:
        await host.close()


def events(*ids: str) -> EventBatch:
    return EventBatch(
        events=tuple(EventItem(message_id=identity, kind="track", name="Bought") for identity in ids), now_us=0
    )


async def test_a_plugin_works_and_can_be_debugged(tmp_path: Path) -> None:
    async with zoo(tmp_path, "good") as host:
        assert host.processes() == {"zoo": None}
        assert "zoo" in sys.modules
        good = await host.open("good", SETTINGS)
        found = await good.rows([Member(profile_id="p", fields={"email": "a@example.com"}), Member(profile_id="q")])
        assert found[0].rows == (Row.of("a@example.com"),)
        assert found[1].rejected is not None and found[1].rejected.field == "email"
        built = await good.send_events(events("a", "b"))
        assert built.requests[0].items == (0, 1)
        assert await good.read(built.requests[0], Response(status=200)) == Outcomes(items=(Delivered(),) * 2)
        assert (await good.read(built.requests[0], Response(status=401))).unauthorized == "refused ********"
        await good.close()


FAULTS = (
    ("raises", PluginErrorKind.DEFECT, "RuntimeError at zoo.py:"),
    ("raises-system-exit", PluginErrorKind.DEFECT, "SystemExit"),
    ("deep-recursion", PluginErrorKind.DEFECT, "RecursionError"),
    ("loses-item", PluginErrorKind.DEFECT, "item 1 of 2 is left out without a reason"),
    ("yields-rubbish", PluginErrorKind.DEFECT, "send_events yielded a str"),
    ("injects-header", PluginErrorKind.DEFECT, "the value of header X holds a control character"),
    ("wrong-types", PluginErrorKind.DEFECT, "its answer to send_events has a wrong shape"),
)


async def test_the_same_contract_holds(tmp_path: Path) -> None:
    async with zoo(tmp_path, *(name for name, _, _ in FAULTS)) as host:
        for name, kind, part in FAULTS:
            bad = await host.open(name, SETTINGS)
            with pytest.raises(PluginError) as caught:
                await bad.send_events(events("msg-one", "msg-two"))
            assert caught.value.kind == kind, name
            assert part in caught.value.reason, (name, caught.value.reason)
            assert len(await bad.rows([Member(profile_id="p", fields={"email": "x"})])) == 1


async def test_settings_and_answers_are_checked_too(tmp_path: Path) -> None:
    async with zoo(tmp_path, "good", "few-outcomes", "same-rows") as host:
        with pytest.raises(PluginConfigError) as caught:
            await host.open("good", {})
        assert caught.value.field == "token"
        few = await host.open("few-outcomes", SETTINGS)
        request = Request(method="POST", url="https://vendor.example", items=(0, 1))
        with pytest.raises(PluginError, match="1 outcomes for 2 items"):
            await few.read(request, Response(status=200))
        same = await host.open("same-rows", SETTINGS)
        with pytest.raises(PluginError, match="two rows of member 0 have the same key"):
            await same.rows([Member(profile_id="p")])


async def test_a_plugin_that_cannot_be_loaded_is_told_as_ever(tmp_path: Path) -> None:
    plugin_zoo.install(tmp_path, "good", "raises-at-import", "no-connector")
    host = PluginHost(path=[str(tmp_path)], in_process=True)
    await host.start()
    try:
        assert list(host.connectors()) == ["good"]
        reasons = {failure.plugin: failure.reason for failure in host.failures()}
        assert "RuntimeError at zoo_raises_at_import.py:1" in reasons["zoo-raises-at-import"]
        assert "it offers no connector" in reasons["zoo-no-connector"]
    finally:
        await host.close()


async def test_nothing_guards_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said in the documentation, and the reason why it is for development only."""
    monkeypatch.setattr("os.environ", {"HEADRACE_CANARY": "1"})
    async with zoo(tmp_path, "curious") as host:
        curious = await host.open("curious", SETTINGS)
        (skip,) = (await curious.send_events(events("a"))).skipped
        assert "HEADRACE_CANARY" in skip.reason


def test_a_service_takes_it_only_on_a_machine_of_its_own(make_settings: MakeSettings) -> None:
    assert make_settings(Settings, plugins_in_process=True, host="127.0.0.1").plugin_options().in_process
    with pytest.raises(ValidationError, match="only where the service listens on loopback"):
        make_settings(Settings, plugins_in_process=True, host="0.0.0.0")
    assert not make_settings(Settings, host="0.0.0.0").plugin_options().in_process
