"""S3 through mapping, plugin process and outlet, to storage that checks signatures and keeps the documented rules."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pyarrow.parquet as pq
import pytest
import pytest_asyncio
import zstandard
from headrace_sync.outlets.verdicts import Kind

from headrace_sdk import EventItem, Profile
from tests.support.connector_outlets import Station, Way
from tests.support.vendors.s3 import FakeS3, error

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "s3"


@pytest_asyncio.fixture(loop_scope="module")
async def vendor() -> AsyncIterator[FakeS3]:
    fake = FakeS3()
    await fake.start()
    yield fake
    await fake.stop()


def settings(vendor: FakeS3, **more: Any) -> dict[str, Any]:
    known = {"bucket": vendor.bucket, "region": vendor.region, "access_key_id": vendor.access_key}
    return {**known, "secret_access_key": vendor.secret_key, "endpoint": vendor.url, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def s3(vendor: FakeS3, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(vendor)) as found:
        yield found


def event(message_id: str, name: str = "Order Completed", **properties: Any) -> EventItem:
    profile = Profile(id="p1", identifiers={"email": ["ada@example.com"]})
    return EventItem(
        message_id=message_id, kind="track", name=name, timestamp_us=1_796_000_000_250_000, properties=properties,
        profile=profile,
    )  # fmt: skip


async def test_a_file_per_partition_and_a_repeat_overwrites_it(vendor: FakeS3, s3: Way) -> None:
    items = [event("a", total=3), event("b"), event("c", "Größe (neu)/..?x=1&y")]
    for _ in range(2):
        assert [verdict.kind for verdict in await s3.deliver(items)] == [Kind.DELIVERED] * 3
    assert len(vendor.puts) == 4
    first, second = sorted(vendor.objects)
    assert first.startswith("headrace/date=2026-11-30/event=Gr_e_neu_.._x_1_y/")
    assert second.startswith("headrace/date=2026-11-30/event=Order_Completed/") and second.endswith(".ndjson.gz")
    rows = [json.loads(line) for line in gzip.decompress(vendor.objects[second]).splitlines()]
    assert [row["message_id"] for row in rows] == ["a", "b"]
    assert rows[0]["properties"] == {"total": 3} and rows[0]["profile"]["id"] == "p1"


async def test_parquet_and_zstd(vendor: FakeS3, shared: Station) -> None:
    for more in ({"format": "parquet", "compression": "zstd"}, {"compression": "zstd", "partition": ""}):
        async with shared.way(settings(vendor, **more)) as found:
            assert [one.kind for one in await found.deliver([event("a", total=3), event("b")])] == [Kind.DELIVERED] * 2
    lines, table = (vendor.objects[key] for key in sorted(vendor.objects, key=lambda key: key.endswith(".parquet")))
    with zstandard.ZstdDecompressor().stream_reader(lines) as reader:
        assert len(reader.read().splitlines()) == 2
    rows = pq.read_table(io.BytesIO(table)).to_pylist()
    assert [row["message_id"] for row in rows] == ["a", "b"]
    assert rows[0]["timestamp"].isoformat() == "2026-11-30T00:53:20.250000+00:00"
    assert json.loads(rows[0]["properties"]) == {"total": 3} and rows[0]["profile_id"] == "p1"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"secret_access_key": "another"}, "SignatureDoesNotMatch"),
        ({"access_key_id": "another"}, "InvalidAccessKeyId"),
        ({"region": "us-east-1"}, "AuthorizationHeaderMalformed"),
        ({"bucket": "another"}, "NoSuchBucket"),
    ],
)
async def test_settings_that_cannot_work_stop_the_destination(
    vendor: FakeS3, shared: Station, wrong: dict[str, Any], code: str
) -> None:
    async with shared.way(settings(vendor, **wrong)) as found:
        (verdict,) = await found.deliver([event("a")])
    assert verdict.kind is Kind.UNTRIED and code in found.halted[0]


async def test_what_passes_is_tried_again(vendor: FakeS3, s3: Way) -> None:
    for status, code in ((500, "InternalError"), (503, "SlowDown"), (400, "RequestTimeout"), (200, "InternalError")):
        vendor.failures.append(error(status, code))
        (verdict,) = await s3.deliver([event("a")])
        assert verdict.kind is Kind.RETRY
        assert code in verdict.reason or status == 200
        s3.outlet._shared.not_before = 0.0
    assert vendor.objects == {} and s3.halted == []


async def test_the_check_lists_the_bucket(vendor: FakeS3, s3: Way, shared: Station) -> None:
    opened = await shared.host.open(CONNECTOR, settings(vendor))
    (check,) = await opened.check()
    response = await s3.outlet._signer.send(s3.outlet._client, check.request, timeout_s=5)
    assert await opened.read_check(check, response) == ""
    vendor.bucket = "another"
    response = await s3.outlet._signer.send(s3.outlet._client, check.request, timeout_s=5)
    assert "NoSuchBucket" in await opened.read_check(check, response)
    await opened.close()
