"""Scripts through plugin process and outlet, to a receiver: several requests of an event, bombs among others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web
from headrace_sync.outlets.http import VendorClient
from headrace_sync.outlets.verdicts import Kind

from headrace_sdk import EventItem
from tests.support.connector_outlets import Station, Way

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "javascript"

SCRIPT = """
function send(event, profile, settings) {
  if (event.name === "Loop") while (true) {}
  if (event.name === "Native") Array(2 ** 32 - 1).reverse();
  if (event.name === "Noise") return null;
  if (event.name === "Inside") return { url: "https://127.0.0.1:1/" };
  return ["first", "second"].map((step) => ({ url: `${settings.url}/${event.name}/${step}`, body: event.message_id }));
}
"""


class Receiver:
    """Answers 200, or the next of `statuses`."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.taken: list[tuple[str, str]] = []
        """Path and content type of each request."""
        self.port = 0

    async def take(self, request: web.Request) -> web.Response:
        self.taken.append((request.path, request.headers["Content-Type"]))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="module")
async def scripted(receiver: Receiver, shared: Station) -> AsyncIterator[Way]:
    settings = {"script": SCRIPT, "settings": {"url": f"http://127.0.0.1:{receiver.port}"}, "allow_http": True}
    async with shared.way(settings) as found:
        yield found


def events(*names: str) -> list[EventItem]:
    return [EventItem(message_id=f"m-{name}", kind="track", name=name) for name in names]


async def test_requests_go_out_in_turn(receiver: Receiver, scripted: Way) -> None:
    verdicts = await scripted.deliver(events("A", "Noise", "B"))
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED, Kind.SKIPPED, Kind.DELIVERED]
    paths = [path for path, _ in receiver.taken]
    for name in "AB":
        assert [path for path in paths if f"/{name}/" in path] == [f"/{name}/first", f"/{name}/second"]
    assert receiver.taken[0][1] == "text/plain; charset=utf-8"


async def test_the_rest_waits_for_the_request_before(receiver: Receiver, scripted: Way) -> None:
    receiver.statuses = [503]
    (verdict,) = await scripted.deliver(events("A"))
    assert (verdict.kind, len(receiver.taken)) == (Kind.RETRY, 1)


async def test_bombs_harm_no_other_event(receiver: Receiver, scripted: Way) -> None:
    looped, fine = await scripted.deliver(events("Loop", "A"))
    assert (looped.kind, fine.kind) == (Kind.REJECTED, Kind.DELIVERED)
    assert looped.reason.startswith("script: line 3, ") and looped.reason.endswith("takes longer than 50 ms")
    native, fine = await scripted.deliver(events("Native", "B"))
    assert (native.kind, fine.kind) == (Kind.PLUGIN, Kind.DELIVERED)


async def test_private_addresses_are_refused(scripted: Way) -> None:
    scripted.outlet._client = client = VendorClient(allow_private=False)
    (verdict,) = await scripted.deliver(events("Inside"))
    await client.close()
    assert verdict.kind is Kind.REJECTED and "private" in verdict.reason
