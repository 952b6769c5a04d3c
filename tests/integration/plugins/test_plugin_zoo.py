"""The plugin host against a zoo of bad plugins: each fault is reported by its reason and harms nobody else."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.plugins import Limits, PluginConfigError, PluginError, PluginErrorKind, PluginHost
from headrace_sdk import (
    DeleteBatch,
    Delivered,
    EventBatch,
    EventItem,
    Job,
    Member,
    MemberBatch,
    Rejected,
    Request,
    Response,
    Row,
    Subject,
)
from tests.support import plugin_zoo
from tests.support.processes import is_running, parent_of

SETTINGS = {"token": plugin_zoo.SECRET}
LIMITS = Limits(call_s=20.0, load_s=60.0, memory_bytes=1 << 30)


@asynccontextmanager
async def zoo(folder: Path, *names: str, limits: Limits = LIMITS) -> AsyncIterator[PluginHost]:
    """A host with the good plugin, and the distribution "zoo" with these connectors."""
    plugin_zoo.install(folder, "good-too")
    plugin_zoo.install_callers(folder, *names)
    async with started(folder, limits) as host:
        yield host


@asynccontextmanager
async def started(folder: Path, limits: Limits = LIMITS) -> AsyncIterator[PluginHost]:
    host = PluginHost(path=[str(folder)], limits=limits)
    await host.start()
    try:
        yield host
    finally:
        await host.close()


def events(*ids: str) -> EventBatch:
    return EventBatch(
        events=tuple(EventItem(message_id=identity, kind="track", name="Bought") for identity in ids), now_us=0
    )


async def killed(pid: int | None) -> None:
    """End a process the hard way, and wait until the host knows."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for _ in range(500):
        if not Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.05)
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the process is still there")


@pytest.fixture
def no_leaks(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


async def test_broken_plugins_are_reported_by_their_reason_and_the_rest_load(
    tmp_path: Path, no_leaks: pytest.LogCaptureFixture
) -> None:
    expected = {
        "raises-at-import": "RuntimeError at zoo_raises_at_import.py:1",
        "syntax-error": "SyntaxError",
        "missing-module": "No module named 'no_such_module_anywhere'",
        "exits-at-import": "its process ended with status 3 during load",
        "leaves-at-import": "SystemExit at zoo_leaves_at_import.py:2",
        "no-hook": "it offers no connector: headrace_connectors() is missing or returned none",
        "no-connector": "it offers no connector",
        "no-manifest": "headrace_connectors() returned a str, not a Manifest",
        "bad-manifest": "manifest 'Not A Name': name must be",
        "future-api": "written for plugin API 2.0, this platform has 1.0",
        "twice": "connector 'twice' is offered twice",
        "unknown-hook": "unknown hook 'headrace_conectors'",
    }
    plugin_zoo.install(tmp_path, "good", *expected)
    async with started(tmp_path) as host:
        assert list(host.connectors()) == ["good"]
        reasons = {failure.plugin: failure.reason for failure in host.failures()}
        assert set(reasons) == {f"zoo-{name}" for name in expected}
        for name, part in expected.items():
            assert part in reasons[f"zoo-{name}"], (name, reasons[f"zoo-{name}"])
            assert plugin_zoo.SECRET not in reasons[f"zoo-{name}"]
        assert all(failure.version == "1.2.3" for failure in host.failures())
        good = await host.open("good", SETTINGS)
        assert len((await good.send_events(events("a"))).requests) == 1
    assert plugin_zoo.SECRET not in no_leaks.text


async def test_a_plugin_that_hangs_while_it_loads_is_given_up(tmp_path: Path) -> None:
    plugin_zoo.install(tmp_path, "hangs-at-import")
    async with started(tmp_path, Limits(load_s=1.0)) as host:
        assert host.connectors() == {}
        assert [failure.reason for failure in host.failures()] == ["no answer to load within 1 s"]


async def test_a_connector_of_another_plugin_is_not_taken_over(tmp_path: Path) -> None:
    plugin_zoo.install(tmp_path, "good")
    plugin_zoo.write(
        tmp_path,
        "a-good-copy",
        plugin_zoo.LOAD_FAULTS["twice"].replace("[manifest(), manifest()]", "[manifest()]"),
        connector="good",
    )
    host = PluginHost(path=[str(tmp_path)], limits=LIMITS)
    await host.start()
    try:
        assert host.connectors()["good"].plugin == "a-good-copy"
        (failure,) = host.failures()
        assert failure.plugin == "zoo-good"
        assert failure.reason == "the connector 'good' is offered by a-good-copy already"
    finally:
        await host.close()


async def test_entry_points_of_another_api_are_reported_without_loading(tmp_path: Path) -> None:
    plugin_zoo.write(tmp_path, "tomorrow", "raise RuntimeError", group="headrace.plugins.v2")
    host = PluginHost(path=[str(tmp_path)], limits=LIMITS)
    await host.start()
    await host.close()
    (failure,) = host.failures()
    assert failure.reason == "written for plugin API 2, this platform has 1.0"


async def test_only_wanted_plugins_load_and_missing_ones_are_named(tmp_path: Path) -> None:
    plugin_zoo.install(tmp_path, "good", "good-too", "raises-at-import")
    host = PluginHost(["Zoo_Good", "good-too", "absent"], path=[str(tmp_path)], limits=LIMITS)
    await host.start()
    try:
        assert sorted(host.connectors()) == ["good", "good-too"]
        assert [(f.plugin, f.reason) for f in host.failures()] == [("absent", "no plugin of this name is installed")]
    finally:
        await host.close()


async def test_the_good_one_does_everything(tmp_path: Path) -> None:
    async with zoo(tmp_path, "good") as host:
        info = host.connectors()["good"]
        assert (info.plugin, info.version, info.api) == ("zoo", "1.2.3", "1.0")
        assert info.settings_schema["properties"]["token"]["format"] == "password"
        good = await host.open("good", SETTINGS)
        found = await good.rows([Member(profile_id="p", fields={"email": "a@example.com"}), Member(profile_id="q")])
        assert found[0].rows == (Row.of("a@example.com"),)
        assert found[1].rejected is not None and found[1].rejected.field == "email"
        members = MemberBatch(rows=found[0].rows, now_us=1)
        for built in (
            await good.add_members(members),
            await good.remove_members(members),
            await good.send_events(events("a")),
            await good.delete(DeleteBatch(subjects=(Subject(profile_id="p"),), now_us=1)),
        ):
            assert [request.items for request in built.requests] == [(0,)]
        outcomes = await good.read(built.requests[0], Response(status=200))
        assert outcomes.items == (Delivered(),)
        assert (await good.normalise([("email", "A")]))[0].sent == "A"
        assert (await host.normalise("good", [("email", "A"), ("email", "B")]))[1].normalised == "B"
        refused = await good.read(built.requests[0], Response(status=401))
        assert refused.unauthorized == "refused ********"


BUILDING = (
    ("raises", PluginErrorKind.DEFECT, "RuntimeError at zoo.py:"),
    ("exits", PluginErrorKind.CRASHED, "its process ended with status 139 during send_events"),
    ("segfaults", PluginErrorKind.CRASHED, "its process was ended by signal SIGSEGV during send_events"),
    ("raises-system-exit", PluginErrorKind.DEFECT, "SystemExit"),
    ("eats-memory", PluginErrorKind.DEFECT, "MemoryError at zoo.py:"),
    ("deep-recursion", PluginErrorKind.DEFECT, "RecursionError"),
    ("loses-item", PluginErrorKind.DEFECT, "item 1 of 2 is left out without a reason"),
    ("repeats-item", PluginErrorKind.DEFECT, "item 0 of 2 is accounted for 2 times"),
    ("invents-item", PluginErrorKind.DEFECT, "it speaks of item 2 in a batch of 2"),
    ("yields-rubbish", PluginErrorKind.DEFECT, "send_events yielded a str"),
    ("returns-nothing", PluginErrorKind.DEFECT, "TypeError"),
    ("injects-header", PluginErrorKind.DEFECT, "the value of header X holds a control character"),
    ("odd-address", PluginErrorKind.DEFECT, "no absolute http or https address"),
    ("wrong-types", PluginErrorKind.DEFECT, "its answer to send_events has a wrong shape"),
    ("opens-socket", PluginErrorKind.DEFECT, "OutsideRefused at zoo.py:"),
    ("hides-socket", PluginErrorKind.DEFECT, "it tried to reach the outside (socket.getaddrinfo)"),
    ("starts-process", PluginErrorKind.DEFECT, "OutsideRefused"),
)


async def test_faults_while_building(tmp_path: Path) -> None:
    async with zoo(tmp_path, *(name for name, _, _ in BUILDING)) as host:
        good = await host.open("good-too", SETTINGS)
        for name, kind, part in BUILDING:
            bad = await host.open(name, SETTINGS)
            with pytest.raises(PluginError) as caught:
                await bad.send_events(events("msg-one", "msg-two"))
            assert caught.value.kind == kind, name
            assert part in caught.value.reason, (name, caught.value.reason)
            assert "msg-one" not in str(caught.value)
            assert len((await good.send_events(events("a"))).requests) == 1
            # The plugin serves again after its fault: here with the operation that has none.
            assert len(await bad.rows([Member(profile_id="p", fields={"email": "x"})])) == 1


async def test_calls_that_never_end_are_ended(tmp_path: Path) -> None:
    async with zoo(tmp_path, "hangs", "sleeps-in-c", limits=Limits(call_s=1.5)) as host:
        for name in ("hangs", "sleeps-in-c"):
            bad = await host.open(name, SETTINGS)
            with pytest.raises(PluginError, match=r"no answer to send_events within 1\.5 s") as caught:
                await bad.send_events(events("a"))
            assert caught.value.kind == PluginErrorKind.TIMEOUT
            assert len(await bad.rows([Member(profile_id="p", fields={"email": "x"})])) == 1


async def test_wrong_answers_are_a_defect(tmp_path: Path) -> None:
    request = Request(method="POST", url="https://vendor.example", items=(0, 1))
    expected = {
        "few-outcomes": "1 outcomes for 2 items",
        "many-outcomes": "3 outcomes for 2 items",
        "no-outcomes": "read returned a str, not Outcomes",
        "empty-key": "key that is empty",
        "same-rows": "two rows of member 0 have the same key",
        "no-class": "AttributeError",
        "no-destination": "is no Destination",
    }
    async with zoo(tmp_path, *expected) as host:
        for name, part in expected.items():
            with pytest.raises(PluginError, match=part) as caught:
                bad = await host.open(name, SETTINGS)
                await bad.read(request, Response(status=200))
                await bad.rows([Member(profile_id="p", fields={"email": "x"})])
            assert caught.value.kind == PluginErrorKind.DEFECT


async def test_settings_are_refused_with_field_and_without_the_secret(tmp_path: Path) -> None:
    async with zoo(tmp_path, "good", "refuses-settings") as host:
        with pytest.raises(PluginConfigError) as caught:
            await host.open("good", {"token": SETTINGS["token"], "url": 7})
        assert caught.value.field == "url"
        with pytest.raises(PluginConfigError) as caught:
            await host.open("good", {})
        assert (caught.value.field, caught.value.reason) == ("token", "token: Field required")
        with pytest.raises(PluginConfigError) as caught:
            await host.open("refuses-settings", SETTINGS)
        assert (caught.value.field, caught.value.reason) == ("token", "bad token ********")
        with pytest.raises(PluginError, match="no plugin offers the connector 'nowhere'") as missing:
            await host.open("nowhere", {})
        assert missing.value.kind == PluginErrorKind.LOAD


async def test_a_printed_secret_is_masked_and_never_logged(tmp_path: Path, no_leaks: pytest.LogCaptureFixture) -> None:
    async with zoo(tmp_path, "prints-secret", "leaky-reasons") as host:
        bad = await host.open("prints-secret", SETTINGS)
        built = await bad.send_events(events("a"))
        assert built.requests[0].headers["Authorization"] == f"Bearer {plugin_zoo.SECRET}"
        lines: list[str] = []
        for _ in range(100):
            lines = host.output("zoo")
            if len(lines) == 4:
                break
            await asyncio.sleep(0.02)
        assert sorted(lines) == ["coded ********", "err ********", "out ********", "raw ********"]
        leaky = await host.open("leaky-reasons", SETTINGS)
        (outcome,) = (await leaky.read(built.requests[0], Response(status=200))).items
        assert isinstance(outcome, Rejected)
        assert outcome.reason.startswith("no ********x") and len(outcome.reason) == 500
    assert plugin_zoo.SECRET not in no_leaks.text


async def test_much_output_neither_blocks_nor_grows(tmp_path: Path) -> None:
    async with zoo(tmp_path, "prints-much", limits=Limits(call_s=20.0, load_s=20.0)) as host:
        bad = await host.open("prints-much", SETTINGS)
        assert len((await bad.send_events(events("a"))).requests) == 1
        lines = host.output("zoo")
        assert len(lines) <= 200 and all(len(line) <= 1_000 for line in lines)


async def test_what_cannot_be_sent_is_a_defect_and_ends_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with zoo(tmp_path, "good") as host:
        good = await host.open("good", SETTINGS)
        with pytest.raises(PluginError, match="the batch for send_events cannot be sent") as caught:
            await good.send_events(events("half a surrogate \ud800"))
        assert caught.value.kind == PluginErrorKind.DEFECT
        with monkeypatch.context() as changed:
            changed.setattr("headrace.plugins.process.MAX_MESSAGE_BYTES", 1_000)
            with pytest.raises(PluginError, match="the batch for send_events is larger than a message may be"):
                await good.send_events(events("m" * 1_000))
        assert len((await good.send_events(events("a"))).requests) == 1
        assert host._processes["zoo"].starts == 1


async def test_a_poison_batch_does_not_fail_the_calls_behind_it(tmp_path: Path) -> None:
    async with zoo(tmp_path, "hangs-once", limits=Limits(call_s=2.0)) as host:
        bad = await host.open("hangs-once", SETTINGS)
        results = await asyncio.gather(
            bad.send_events(events("poison")),
            *(bad.send_events(events(f"m{n}")) for n in range(5)),
            return_exceptions=True,
        )
        assert isinstance(results[0], PluginError) and results[0].kind == PluginErrorKind.TIMEOUT
        assert all(not isinstance(result, BaseException) for result in results[1:])


async def test_a_plugin_that_always_hangs_fails_waiting_calls_and_waits_before_it_starts_again(tmp_path: Path) -> None:
    async with zoo(tmp_path, "hangs", limits=Limits(call_s=1.0)) as host:
        bad = await host.open("hangs", SETTINGS)
        results = await asyncio.gather(*(bad.send_events(events("x")) for _ in range(20)), return_exceptions=True)
        errors = [result for result in results if isinstance(result, PluginError)]
        assert len(errors) == 20
        # The first may be one bad batch; after the second the plugin waits, and those behind it are told at once.
        assert [error.kind for error in errors] == [PluginErrorKind.TIMEOUT] * 2 + [PluginErrorKind.CRASHED] * 18
        assert errors[0].retry_after_s == 0 and errors[1].retry_after_s > 0
        assert not errors[1].untried and all(error.untried for error in errors[2:])
        await asyncio.sleep(errors[1].retry_after_s)
        assert await bad.rows([]) == []


async def test_one_bad_answer_fails_no_other_that_is_read_with_it(tmp_path: Path) -> None:
    request = Request(method="POST", url="https://vendor.example", items=(0, 1))
    async with zoo(tmp_path, "hangs-reading", limits=Limits(call_s=2.0)) as host:
        bad = await host.open("hangs-reading", SETTINGS)
        bodies = [b"%d" % n for n in range(40)]
        bodies[7], bodies[20] = b"bad", b"poison"
        results = await asyncio.gather(
            *(bad.read(request, Response(status=200, body=body)) for body in bodies), return_exceptions=True
        )
        wrong = {place: result for place, result in enumerate(results) if isinstance(result, PluginError)}
        assert {place: error.kind for place, error in wrong.items() if not error.untried} == {
            7: PluginErrorKind.DEFECT,
            20: PluginErrorKind.TIMEOUT,
        }
        assert all(place > 20 for place, error in wrong.items() if error.untried)


async def test_a_killed_process_is_replaced_with_its_instances(tmp_path: Path) -> None:
    async with zoo(tmp_path, "good") as host:
        first, second = (
            await host.open("good", SETTINGS),
            await host.open("good", {**SETTINGS, "url": "https://b.example"}),
        )
        process = host._processes["zoo"]
        for _ in range(2):
            await killed(process.pid)
            built = await second.send_events(events("a"))
            assert built.requests[0].url == "https://b.example"
            assert (await first.send_events(events("a"))).requests[0].url == "https://vendor.example/in"
        assert process.starts == 3


async def test_a_caller_that_gives_up_gets_nobody_elses_answer(tmp_path: Path) -> None:
    async with zoo(tmp_path, "good") as host:
        good = await host.open("good", SETTINGS)
        for number in range(20):
            abandoned = asyncio.create_task(good.rows([Member(profile_id="p", fields={"email": "abandoned"})]))
            await asyncio.sleep(0.0005 * (number % 4))
            abandoned.cancel()
            found = await good.rows([Member(profile_id="p", fields={"email": f"mine{number}"})])
            assert found[0].rows == (Row.of(f"mine{number}"),)


async def test_many_callers_get_their_own_answers(tmp_path: Path) -> None:
    async with zoo(tmp_path, "good") as host:
        good = await host.open("good", SETTINGS)

        async def ask(number: int) -> None:
            found = await good.rows([Member(profile_id="p", fields={"email": f"m{number}"})])
            assert found[0].rows == (Row.of(f"m{number}"),)

        await asyncio.gather(*(ask(number) for number in range(200)))


async def test_close_ends_the_processes_and_fails_calls(tmp_path: Path) -> None:
    async with zoo(tmp_path, "hangs", limits=Limits(call_s=30.0, load_s=10.0)) as host:
        bad = await host.open("hangs", SETTINGS)
        process = host._processes["zoo"]
        pid = process.pid
        assert pid is not None
        waiting = [asyncio.create_task(bad.send_events(events("x"))) for _ in range(3)]
        await asyncio.sleep(0.1)
        await host.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, PluginError) for result in results)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(PluginError, match="closed"):
            await bad.rows([])


async def test_the_plugin_sees_no_settings_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MASTER_KEY", "top-secret-key")
    async with zoo(tmp_path, "curious") as host:
        curious = await host.open("curious", SETTINGS)
        (skip,) = (await curious.send_events(events("a"))).skipped
        assert "PATH" in json.loads(skip.reason)
        assert "HEADRACE" not in skip.reason


async def test_bytes_on_the_reply_line_are_a_defect_not_an_answer(tmp_path: Path) -> None:
    async with zoo(tmp_path, "speaks-on-the-line", limits=Limits(call_s=2.0)) as host:
        bad = await host.open("speaks-on-the-line", SETTINGS)
        with pytest.raises(PluginError) as caught:
            await bad.send_events(events("a"))
        # Mostly the line is seen to be broken; it may also be noticed only before the next call.
        assert caught.value.kind in (PluginErrorKind.CRASHED, PluginErrorKind.DEFECT, PluginErrorKind.TIMEOUT)
        assert len(await bad.rows([Member(profile_id="p", fields={"email": "x"})])) == 1


async def test_plugins_end_with_a_host_that_is_killed(tmp_path: Path) -> None:
    """Also in the middle of a call that never ends."""
    plugin_zoo.install_callers(tmp_path, "hangs")
    code = f"""
import asyncio
from headrace.plugins import Limits, PluginHost
from headrace_sdk import EventBatch, EventItem

async def main():
    host = PluginHost(path=[{str(tmp_path)!r}], limits=Limits(call_s=300))
    await host.start()
    bad = await host.open("hangs", {SETTINGS!r})
    print(host._processes["zoo"].pid, flush=True)
    await bad.send_events(EventBatch(events=(EventItem(message_id="m", kind="track"),), now_us=0))

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
    raise AssertionError("the plugin's process is still there")


async def test_a_plugin_that_cannot_start_again_says_so_and_blames_no_call(tmp_path: Path) -> None:
    async with zoo(tmp_path, "exits") as host:
        bad = await host.open("exits", SETTINGS)
        (tmp_path / "zoo.py").write_text("raise RuntimeError")
        with pytest.raises(PluginError) as caught:
            await bad.send_events(events("a"))
        assert not caught.value.untried
        with pytest.raises(PluginError, match=r"RuntimeError at zoo\.py:1") as caught:
            await bad.rows([])
        assert caught.value.untried and caught.value.kind == PluginErrorKind.LOAD
        with pytest.raises(PluginError, match="starts again later") as caught:
            await bad.rows([])
        assert caught.value.untried and caught.value.retry_after_s > 0


async def test_jobs_checks_and_lists_are_asked_for(tmp_path: Path) -> None:
    async with zoo(tmp_path, "takes-jobs", "polls-wrongly") as host:
        opened = await host.open("takes-jobs", SETTINGS)
        polled = await opened.poll(Job(id="j1", items=2, now_us=0))
        assert (polled.method, polled.items, polled.url.partition("?")[2]) == ("GET", (0, 1), "job=j1")
        (check,) = await opened.check()
        assert check.title == "May write"
        assert await opened.read_check(check, Response(status=200)) == ""
        assert await opened.read_check(check, Response(status=403)) == "no right with ********"
        asked = await opened.lists("p2")
        assert asked.url.endswith("page=p2")
        body = b'{"lists": [{"id": "7", "name": "Buyers", "size": 3}, {"id": "8", "name": "All"}], "next": "p3"}'
        found = await opened.read_lists(asked, Response(status=200, body=body))
        assert [(one.id, one.name, one.size) for one in found.lists] == [("7", "Buyers", 3), ("8", "All", None)]
        assert (found.next_page, found.problem) == ("p3", "")
        made = await opened.create_list("New")
        assert made.body == b"New"
        assert (await opened.read_lists(made, Response(status=401))).problem == "refused"
        wrong = await host.open("polls-wrongly", SETTINGS)
        with pytest.raises(PluginError, match="carries other items than it has to"):
            await wrong.poll(Job(id="j1", items=2, now_us=0))


async def test_a_plugin_without_instances_is_ended_and_comes_back(tmp_path: Path) -> None:
    async with zoo(tmp_path, "good", limits=Limits(idle_s=0.2)) as host:
        for _ in range(500):
            if host.processes() == {"zoo": None, "zoo-good-too": None}:
                break
            await asyncio.sleep(0.02)
        assert host.processes() == {"zoo": None, "zoo-good-too": None}
        assert (await host.normalise("good", [("email", "A")]))[0].sent == "A"
        good = await host.open("good", SETTINGS)
        pid = host.processes()["zoo"]
        assert pid is not None
        await asyncio.sleep(0.5)
        assert host.processes()["zoo"] == pid
        await good.close()
        for _ in range(500):
            if not is_running(pid):
                break
            await asyncio.sleep(0.02)
        assert not is_running(pid)


async def test_plugins_survive_the_death_of_the_process_that_forks_them(tmp_path: Path) -> None:
    async with zoo(tmp_path, "good") as host:
        good = await host.open("good", SETTINGS)
        plugins = list(host.processes().values())
        (nursery,) = {parent_of(pid) for pid in plugins if pid is not None}
        assert nursery != os.getpid()
        await killed(nursery)
        for _ in range(3):
            assert len((await good.send_events(events("a"))).requests) == 1
        assert not any(is_running(pid) for pid in plugins if pid is not None)
        assert host._processes["zoo"].starts == 2


@pytest.mark.parametrize(("name", "part"), [("forks", "no answer to send_events"), ("forks-and-ends", "with status 5")])
async def test_what_a_plugin_starts_ends_with_it(tmp_path: Path, name: str, part: str) -> None:
    async with zoo(tmp_path, name, limits=Limits(call_s=2.0)) as host:
        bad = await host.open(name, SETTINGS)
        with pytest.raises(PluginError, match=part):
            await bad.send_events(events("a"))
        child = int((tmp_path / "child.pid").read_text())
        for _ in range(200):
            if not is_running(child):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("what the plugin started is still there")


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket, as that of `tmp_path` may not."""
    with tempfile.TemporaryDirectory(prefix="zoo-", dir="/tmp") as folder:
        yield Path(folder)


async def test_no_folder_of_a_socket_is_left_behind(
    tmp_path: Path, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = short_folder
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    plugin_zoo.install(tmp_path, "exits-at-import", "hangs-at-import")
    async with zoo(tmp_path, "exits", limits=Limits(load_s=3.0)) as host:
        assert len(host.failures()) == 2
        assert list(folder.iterdir()) == []  # nobody else can connect, even while the plugins run
        bad = await host.open("exits", SETTINGS)
        with pytest.raises(PluginError):
            await bad.send_events(events("a"))
        assert await bad.rows([]) == []
    assert list(folder.iterdir()) == []


async def test_a_temporary_folder_with_a_name_too_long_for_a_socket_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    plugin_zoo.install(tmp_path, "good")
    async with started(tmp_path) as host:
        (failure,) = host.failures()
    assert failure.reason == "no process (the path of the temporary folder is too long for a socket: set TMPDIR)"
    assert list(folder.iterdir()) == []


async def test_an_instance_of_a_process_that_is_gone_is_closed_without_another(tmp_path: Path) -> None:
    async with zoo(tmp_path, "good") as host:
        good = await host.open("good", SETTINGS)
        await killed(host.processes()["zoo"])
        await good.close()
        assert host.processes()["zoo"] is None
        assert host._processes["zoo"].starts == 1


async def test_a_library_that_looks_around_when_it_is_imported_spoils_nothing(tmp_path: Path) -> None:
    plugin_zoo.install(tmp_path, "looks-around-at-import")
    async with started(tmp_path) as host:
        assert host.failures() == ()
        curious = await host.open("looks-around-at-import", SETTINGS)
        assert len((await curious.send_events(events("a"))).requests) == 1
