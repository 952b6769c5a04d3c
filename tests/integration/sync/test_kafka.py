"""The Kafka destination through plugin process and outlet, to a cluster that speaks Kafka's protocol (librdkafka's)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from headrace_sync.outlets.batch import DELETE_PEOPLE
from headrace_sync.outlets.http import VendorClient
from headrace_sync.outlets.verdicts import Kind, Verdict

from headrace_sdk import EventItem, Profile, Subject
from tests.support.connector_outlets import Station

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "kafka"


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """Address of a cluster of one broker, which lives as long as the producer that was asked for it."""
    keeper = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": "1", "log_level": "0"})
    (found,) = keeper.list_topics(timeout=10).brokers.values()
    yield f"{found.host}:{found.port}"
    keeper.flush(1)


def settings(broker: str, topic: str, **more: Any) -> dict[str, Any]:
    return {"bootstrap_servers": [broker], "topic": topic, "tls": False, **more}


def event(message_id: str, profile_id: str = "p1", **more: Any) -> EventItem:
    profile = Profile(id=profile_id, identifiers={"email": ["ada@example.com"]})
    return EventItem(
        message_id=message_id, kind="track", name="A", timestamp_us=1_796_000_000_250_000, profile=profile, **more
    )


def consumed(broker: str, topic: str, count: int) -> list[Any]:
    """The first records of a topic, in the order of each partition."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "test", "auto.offset.reset": "earliest"})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    found: list[Any] = []
    while len(found) < count:
        record = consumer.poll(10)
        assert record is not None and record.error() is None
        found.append(record)
    consumer.close()
    return found


async def test_records_are_keyed_by_person_and_stay_in_order(broker: str, shared: Station) -> None:
    async with shared.way(settings(broker, "orders")) as kafka:
        found = await kafka.deliver([event(f"m{at}", f"p{at % 2}", properties={"at": at}) for at in range(20)])
        assert [verdict.kind for verdict in found] == [Kind.DELIVERED] * 20
        assert [one.kind for one in await kafka.deliver([event("m20", "p0")])] == [Kind.DELIVERED]
    records = consumed(broker, "orders", 21)
    values = [json.loads(record.value()) for record in records if record.key() == b"p0"]
    assert [value["message_id"] for value in values] == [f"m{at}" for at in range(0, 21, 2)]
    assert values[0]["profile"]["identifiers"] == {"email": ["ada@example.com"]} and values[1]["properties"] == {
        "at": 2
    }
    assert len({record.partition() for record in records if record.key() == b"p0"}) == 1
    assert dict(records[0].headers())["message_id"].startswith(b"m")
    assert records[0].timestamp()[1] == 1_796_000_000_250


async def test_a_record_that_is_too_large_is_rejected_alone(broker: str, shared: Station) -> None:
    async with shared.way(settings(broker, "large", compression="none")) as kafka:
        large = event("m1", properties={"text": "x" * 1_000_000})
        found = await kafka.deliver([event("m0"), large, event("m2")])
    assert [verdict.kind for verdict in found] == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
    assert len(consumed(broker, "large", 2)) == 2


async def test_events_go_to_their_own_topics_or_nowhere(broker: str, shared: Station) -> None:
    chosen = settings(broker, "rest", topics={"B": "bees", "C": ""})
    async with shared.way(chosen) as kafka:
        items = [event("a"), replace(event("b"), name="B"), replace(event("c"), name="C")]
        found = await kafka.deliver(items, {"value": "event.name == 'B' && {only: event.message_id} || null"})
    assert [verdict.kind for verdict in found] == [Kind.DELIVERED, Kind.DELIVERED, Kind.SKIPPED]
    (record,) = consumed(broker, "bees", 1)
    assert json.loads(record.value()) == {"only": "b"}


async def test_people_are_forgotten_by_records_without_a_value(broker: str, shared: Station) -> None:
    async with shared.way(settings(broker, "people")) as kafka:
        found = await kafka.outlet.send(DELETE_PEOPLE, [Subject(profile_id="p1", merged_ids=["p0"])])
    assert found == [Verdict(Kind.DELIVERED, code=200)]
    assert {(record.key(), record.value()) for record in consumed(broker, "people", 2)} == {
        (b"p1", None),
        (b"p0", None),
    }


async def test_brokers_that_are_away_and_private_ones(broker: str, shared: Station) -> None:
    async with shared.way(settings("127.0.0.1:9", "t")) as kafka:
        (verdict,) = await kafka.deliver([event("m")])
        assert verdict.kind is Kind.RETRY and verdict.reason.startswith("no broker can be reached")
    async with shared.way(settings(broker, "t")) as kafka:
        guarded = VendorClient(allow_private=False)
        kafka.outlet._client, allowing = guarded, kafka.outlet._client
        (verdict,) = await kafka.deliver([event("m")])
        kafka.outlet._client = allowing
        await guarded.close()
    assert verdict.kind is Kind.REJECTED and "private" in verdict.reason
