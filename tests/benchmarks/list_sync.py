"""A list sync of very many members to a vendor that accepts everything, beside the bare cost of the same requests.

The real sync service, its stores and the real plugin of Meta's custom audiences; identity and the audience are served
by this process from arithmetic, the vendor answers without reading. Bare is hashing the same identifiers, writing the
same rows as JSON and sending the same batches with aiohttp to the same vendor. `BENCH_MEMBERS` makes it smaller.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from aiohttp import web

from headrace.api.audience.v1.audience_pb2 import Audience, AudienceState, Member
from headrace.api.audience.v1.audience_service_pb2 import (
    GetAudienceRequest,
    GetAudienceResponse,
    ListMembersRequest,
    ListMembersResponse,
)
from headrace.api.audience.v1.audience_service_pb2_grpc import (
    AudienceServiceServicer,
    add_AudienceServiceServicer_to_server,
)
from headrace.api.common.v1.event_pb2 import Identifier
from headrace.api.identity.v1.profile_pb2 import Profile
from headrace.api.identity.v1.profile_service_pb2 import (
    BatchGetProfilesRequest,
    BatchGetProfilesResponse,
    ProfileResult,
)
from headrace.api.identity.v1.profile_service_pb2_grpc import (
    ProfileServiceServicer,
    add_ProfileServiceServicer_to_server,
)
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from tests.benchmarks.alone import Alone, services_alone
from tests.benchmarks.results import Result
from tests.benchmarks.spent import Spent
from tests.support import sync as support

MEMBERS = int(os.environ.get("BENCH_MEMBERS", "1000000"))
ROWS = 10_000
"""Rows of a request: Meta's most."""
CACHE_GB = 2.0
FLAT = 1.25
"""What memory may grow from a tenth of the members to all of them."""
LIST = "1234567890"
SINCE_US = 1_767_225_600_000_000


class Identity(ProfileServiceServicer):
    """Everybody has an address and a telephone number."""

    async def BatchGetProfiles(self, request: BatchGetProfilesRequest, context: Any) -> BatchGetProfilesResponse:
        """The people who are asked for."""
        return BatchGetProfilesResponse(
            results=[
                ProfileResult(
                    profile_id=one,
                    profile=Profile(
                        name=f"{support.PARENT}/profiles/{one}",
                        identifiers=[
                            Identifier(namespace="email", value=f"{one}@example.org"),
                            Identifier(namespace="phone", value=f"+4915{one[-9:]}"),
                        ],
                    ),
                )
                for one in request.profile_ids
            ]
        )


class Buyers(AudienceServiceServicer):
    """An audience that everybody is in."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def GetAudience(self, request: GetAudienceRequest, context: Any) -> GetAudienceResponse:
        """The audience."""
        found = Audience(
            name=support.AUDIENCE,
            display_name="Buyers",
            definition='{"where": {"event": "Purchased"}}',
            state=AudienceState.AUDIENCE_STATE_ACTIVE,
            size=self.size,
        )
        return GetAudienceResponse(audience=found)

    async def ListMembers(self, request: ListMembersRequest, context: Any) -> ListMembersResponse:
        """A page of its members."""
        start = int(request.page_token or 0)
        end = min(start + request.page_size, self.size)
        members = [Member(profile_id=profile_of(n), since_us=SINCE_US, version=1) for n in range(start, end)]
        return ListMembersResponse(members=members, next_page_token=str(end) if end < self.size else "")


class Vendor:
    """Takes every row."""

    def __init__(self) -> None:
        self.url = ""
        self.rows = 0
        self.requests = 0

    async def answer(self, request: web.Request) -> web.Response:
        """An answer in Meta's words."""
        rows = (await request.read()).count(b"],[") + 1
        self.rows += rows
        self.requests += 1
        return web.json_response({"audience_id": LIST, "num_received": rows, "num_invalid_entries": 0})


def profile_of(number: int) -> str:
    """The id of a person."""
    return f"p{number:024d}"


async def run(members: int = MEMBERS) -> list[Result]:
    """All figures of this file."""
    async with served(members) as (address, vendor):
        bare = await _bare(vendor, members)
        environment = {
            "HEADRACE_IDENTITY_ADDRESS": address,
            "HEADRACE_AUDIENCE_ADDRESS": address,
            "HEADRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
        }
        with (
            tempfile.TemporaryDirectory() as folder,
            services_alone(Path(folder), ["sync"], environment, cache_gb=CACHE_GB) as alone,
        ):
            vendor.rows = vendor.requests = 0
            return await _measured(alone, vendor, members, bare)


@asynccontextmanager
async def served(members: int) -> AsyncIterator[tuple[str, Vendor]]:
    """Identity and audience at an address, and the vendor."""
    server = grpc.aio.server()
    add_ProfileServiceServicer_to_server(Identity(), server)  # type: ignore[abstract]  # answers only what sync asks
    add_AudienceServiceServicer_to_server(Buyers(members), server)  # type: ignore[abstract]  # likewise
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    vendor = Vendor()
    app = web.Application(client_max_size=1 << 27)
    app.router.add_route("*", "/{version}/{audience}/users", vendor.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    vendor.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield address, vendor
    finally:
        await runner.cleanup()
        await server.stop(None)


async def _bare(vendor: Vendor, members: int) -> float:
    """Members a second of hashing and sending alone."""
    started = time.perf_counter()
    async with aiohttp.ClientSession() as http:
        for start in range(0, members, ROWS):
            data = [
                [
                    hashlib.sha256(f"{profile_of(n)}@example.org".encode()).hexdigest(),
                    hashlib.sha256(f"4915{profile_of(n)[-9:]}".encode()).hexdigest(),
                ]
                for n in range(start, min(start + ROWS, members))
            ]
            body = json.dumps({"payload": {"schema": ["EMAIL", "PHONE"], "data": data}}, separators=(",", ":"))
            async with http.post(f"{vendor.url}/v26.0/{LIST}/users", data=body.encode()) as answer:
                assert answer.status == 200
    return members / (time.perf_counter() - started)


async def _measured(alone: Alone, vendor: Vendor, members: int, bare: float) -> list[Result]:
    service = alone.processes["sync"].pid
    async with support.api(alone.grpc["sync"], alone.settings.service_token.get_secret_value()) as client:
        destination = await client.destination(
            "meta", "", connector="meta-audience", audience_id=LIST, access_token="token", base_url=vendor.url
        )
        before = alone.resident_mib("sync")
        assert alone.stores.mongod is not None
        spent = Spent(service, alone.stores.mongod.pid)
        started = time.perf_counter()
        name = await client.sync("buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE)
        tenth = await _resident_at(alone, vendor, members // 10)
        whole = await _resident_at(alone, vendor, members)
        sent = time.perf_counter() - started
        while (ledger := await client.ledger(name)).delivered + ledger.warned < members:
            assert not ledger.failed, ledger
            await asyncio.sleep(1.0)
        us = spent.us_each(members)
    assert vendor.rows == members, (vendor.rows, members)
    return [
        Result(
            name=f"list sync of {members:,} members",
            value=members / sent,
            unit="members/s",
            baseline="hashing and sending the same batches with aiohttp",
            baseline_value=bare,
            note=f"{vendor.requests} requests; of processor a member: {us}; load {os.getloadavg()[0]:.1f}",
        ),
        Result(
            name="memory of the service when a tenth is sent, and all",
            value=whole,
            unit="MiB",
            baseline="at a tenth",
            baseline_value=tenth,
            target=FLAT,
            lower_is_better=True,
            note=f"{before:,.0f} MiB before",
        ),
    ]


async def _resident_at(alone: Alone, vendor: Vendor, rows: int) -> float:
    """Memory of the service's process, in MiB, once the vendor has so many rows."""
    while vendor.rows < rows:
        assert alone.processes["sync"].poll() is None, "the service has ended"
        await asyncio.sleep(0.1)
    return alone.resident_mib("sync")
