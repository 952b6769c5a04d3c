"""What a customer's URL may reach: every way of writing an address of the inside, against a server that is there."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import aiohttp
import grpc
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from google.protobuf import field_mask_pb2
from headrace_sync.outlets.http import AddressRefused, NoAnswer, VendorClient, check_url, guarded_connector

from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace_sdk import Request
from tests.integration.sync.conftest import Serve
from tests.support import sync as support

INSIDE = [
    "127.0.0.1", "127.0.0.1.", "localhost", "LOCALHOST", "0.0.0.0",
    "１２７.0.0.1", "127。0。0。1", "127．0．0．1", "①②⑦.0.0.1", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "1\u00ad27.0.0.1", "127.0.0\u200b.1",
    "0177.0.0.1", "0177.0.0.01", "0x7f.0.0.1", "0x7f000001", "0X7F000001", "2130706433", "017700000001", "127.1",
    "127.0.1", "0", "127.0.0.0x1", "0x7f.1", "127.0.0.1.0x", "%31%32%37.0.0.1", "127.0.0.1%00", "127.0.0.1\\.a.example",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fe80::1%25lo]", "[::1%25lo]",
    "[::1%lo]", "[::ffff:127.0.0.1%25lo]", "[fec0::1]", "[fd00::1]", "169.254.169.254", "169。254。169。254",
    "a.example@127.0.0.1", "127.0.0.1#@a.example", "a.example\\@127.0.0.1", "127.0.\t0.1", " 127.0.0.1",
]  # fmt: skip


class Names(AbstractResolver):
    """A name server whose answers to each question come from a list, the last again and again."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        address = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


class Server:
    """A server of the inside that counts who comes."""

    def __init__(self) -> None:
        self.requests = 0
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        if request.path == "/away":
            return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{self.port}/secret"})
        return web.json_response({"secret": "inside"})


@pytest.fixture
async def inside() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


def get(host: str, port: int, path: str = "/secret") -> Request:
    return Request(method="GET", url=f"http://{host}:{port}{path}", items=())


@pytest.mark.parametrize("host", INSIDE)
async def test_no_way_of_writing_an_address_leads_inside(inside: Server, host: str) -> None:
    client = VendorClient(allow_private=False)
    try:
        with pytest.raises(AddressRefused):
            await client.send(get(host, inside.port), timeout_s=5)
    finally:
        await client.close()
    assert inside.requests == 0


@pytest.mark.parametrize("host", ["127。0。0。1", "１２７.0.0.1", "127.0.0.1", "[::ffff:127.0.0.1]"])
async def test_no_socket_is_made_for_a_private_address_whatever_was_checked_before(inside: Server, host: str) -> None:
    """The last check stands alone: here nobody has looked at the URL, and no resolver is asked about a literal."""
    async with aiohttp.ClientSession(connector=guarded_connector(allow_private=False)) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as refused:
            await session.get(f"http://{host}:{inside.port}/secret")
    assert isinstance(refused.value.os_error, AddressRefused)
    assert inside.requests == 0


async def test_a_name_that_answers_differently_the_second_time_gains_nothing(inside: Server) -> None:
    names = Names("192.0.2.1", "127.0.0.1")  # a public one would leave the machine: that of documentation is refused
    client = VendorClient(allow_private=False, resolver=names)
    try:
        for _ in range(2):
            with pytest.raises(AddressRefused, match="resolves to a private"):
                await client.send(get("rebound.example", inside.port), timeout_s=5)
    finally:
        await client.close()
    assert names.asked == 2
    assert inside.requests == 0


async def test_the_addresses_that_a_name_has_are_connected_to_without_asking_again(inside: Server) -> None:
    """What was judged is what is connected to: a second question could have another answer."""
    names = Names("127.0.0.1", "192.0.2.1")
    client = VendorClient(allow_private=True, resolver=names)
    try:
        answer = await client.send(get("name.example", inside.port), timeout_s=5)
    finally:
        await client.close()
    assert (answer.status, names.asked) == (200, 1)


async def test_redirects_are_answers_and_are_not_followed(inside: Server) -> None:
    client = VendorClient(allow_private=True)
    try:
        answer = await client.send(get("127.0.0.1", inside.port, "/away"), timeout_s=5)
    finally:
        await client.close()
    assert (answer.status, inside.requests) == (302, 1)


@pytest.mark.parametrize("url", [
    "https://api.example/v1", "https://API.Example", "http://a_b.example:8080", "https://xn--mnchen-3ya.example",
    "https://1.2.3.4.example", "https://8.8.8.8", "https://[2606:4700::1111]:8443/", "https://example.com./x?y=ä",
])  # fmt: skip
def test_what_vendors_have_is_taken(url: str) -> None:
    check_url(url, allow_private=False)


async def test_an_address_where_nobody_listens_is_no_refusal() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = VendorClient(allow_private=True)
        try:
            with pytest.raises(NoAnswer) as error:
                await client.send(get("127.0.0.1", taken.getsockname()[1]), timeout_s=5)
        finally:
            await client.close()
    assert not error.value.sent


async def test_neither_a_destination_nor_its_alert_hook_takes_such_an_address(
    serve: Serve, hooks: support.Hooks
) -> None:
    inside = hooks.url.replace("127.0.0.1", "127。0。0。1")
    async with serve(allow_private_destinations=False) as api:
        with pytest.raises(grpc.aio.AioRpcError, match="must be an absolute http or https address") as address:
            await api.destination("inside", inside)
        name = await api.destination("hook", "https://hooks.example")
        with pytest.raises(grpc.aio.AioRpcError, match="must be ASCII") as alerts:
            await api.destinations.UpdateDestination(
                dest.UpdateDestinationRequest(
                    destination=dest.Destination(name=name, alert_hook=dest.AlertHook(url=inside)),
                    update_mask=field_mask_pb2.FieldMask(paths=["alert_hook"]),
                )
            )
    assert {address.value.code(), alerts.value.code()} == {grpc.StatusCode.INVALID_ARGUMENT}
    assert hooks.total_attempts == 0
