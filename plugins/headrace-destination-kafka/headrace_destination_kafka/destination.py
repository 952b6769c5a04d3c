"""The Kafka destination: a record per event, keyed by person, by an idempotent producer.

https://kafka.apache.org/documentation/#producerconfigs
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from headrace_destination_kafka import answers
from headrace_destination_kafka.client import Client
from headrace_destination_kafka.settings import KafkaSettings
from headrace_sdk import (
    BatchPolicy,
    Built,
    Capability,
    Check,
    DeleteBatch,
    Destination,
    EventBatch,
    EventItem,
    Field,
    FieldType,
    Idempotency,
    Manifest,
    Outcomes,
    Request,
    Response,
    Skip,
)

FIELDS = (
    Field(name="key", title="Key", anonymous=True, example="p-1",
          description="Of the record, in place of what the setting key says."),
    Field(name="value", title="Value", type=FieldType.OBJECT,
          description="Of the record, in place of the event and the person."),
)  # fmt: skip

MANIFEST = Manifest(
    name="kafka",
    title="Apache Kafka",
    description="Produces a record per event.",
    factory="headrace_destination_kafka.destination:Kafka",
    settings=KafkaSettings,
    capabilities=frozenset({Capability.FORWARDING, Capability.EVENT_SYNC, Capability.DELETION, Capability.CHECK}),
    fields=FIELDS,
    batch=BatchPolicy(max_items=500, max_bytes=5_000_000, max_wait_s=0.2),
    concurrency=2,
    timeout_s=30.0,
    idempotency=Idempotency.KEY,  # the message id in the headers, by which consumers drop repetitions
    schemes=("kafka",),
    not_deleted="Records that consumers have read, and those that a topic without compaction keeps.",
)


class Kafka(Destination[KafkaSettings]):
    """Produces records."""

    manifest = MANIFEST

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(settings)
        self._client: Client | None = None

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """A request per topic, with a line per record."""
        topics: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for place, event in enumerate(batch.events):
            topic = self.settings.topics.get(event.name or event.kind, self.settings.topic)
            if topic:
                topics.setdefault(topic, []).append((place, self._record(event)))
            else:
                yield Skip(item=place, reason="the settings leave the event out")
        for topic, records in topics.items():
            yield self._request("PRODUCE", topic, records)

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """Records without a value for each key that a person may have: compacted topics then drop the older ones."""
        if self.settings.key != "person":
            for place in range(len(batch.subjects)):
                yield Skip(item=place, reason="records are not keyed by person, so none can be found")
            return
        for place, subject in enumerate(batch.subjects):
            ids = dict.fromkeys(one for one in (subject.profile_id, *subject.merged_ids) if one)
            if not ids:
                yield Skip(item=place, reason="has no profile id, by which records are keyed")
                continue
            for topic in dict.fromkeys([self.settings.topic, *filter(None, self.settings.topics.values())]):
                tombstones: list[tuple[int, dict[str, Any]]] = [
                    (place, {"key": one, "value": None, "headers": {}}) for one in ids
                ]
                yield self._request("PRODUCE", topic, tombstones)

    def read(self, request: Request, response: Response) -> Outcomes:
        """What became of each record, see `answers`."""
        return answers.read(request, response)

    def check(self) -> Iterable[Check]:
        """Whether the brokers let this user in and know the topic."""
        title = f"The topic {self.settings.topic} is there"
        yield Check(title=title, request=Request(method="DESCRIBE", url=self._url(self.settings.topic), items=()))

    def read_check(self, check: Check, response: Response) -> str:
        """What the brokers said."""
        return answers.problem(response)

    async def connect(self) -> None:
        """Find the brokers."""
        self._client = await Client.connect(self.settings)

    async def deliver(self, request: Request) -> Response:
        """Produce the records and wait until all replicas that are in sync have them."""
        assert self._client is not None
        return await self._client.carry_out(request)

    async def close(self) -> None:
        """Leave the brokers."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _record(self, event: EventItem) -> dict[str, Any]:
        own = event.fields.get("value")
        value = own
        if not isinstance(own, dict):
            person = event.profile.document() if event.profile is not None else None
            value = {**event.document(), "profile": person}
        headers = {"message_id": event.message_id, **({"traceparent": event.traceparent} if event.traceparent else {})}
        return {
            "key": self._key(event),
            "value": json.dumps(value, ensure_ascii=False, separators=(",", ":")),
            "headers": headers,
            "timestamp": max(event.timestamp_us // 1000, 0),
        }

    def _key(self, event: EventItem) -> str | None:
        own = event.fields.get("key")
        if isinstance(own, str) and own:
            return own
        if self.settings.key == "message_id":
            return event.message_id
        if self.settings.key == "none":
            return None
        if event.profile is not None and event.profile.id:
            return event.profile.id
        first = next((values[0] for values in event.identifiers.values() if values), "")
        return first or event.message_id

    def _request(self, method: str, topic: str, records: list[tuple[int, dict[str, Any]]]) -> Request:
        lines = [json.dumps(record, ensure_ascii=False, separators=(",", ":")) for _, record in records]
        return Request(
            method=method,
            url=self._url(topic),
            headers={"Content-Type": "application/x-ndjson"},
            body="\n".join(lines).encode("utf-8", "replace"),
            items=tuple(dict.fromkeys(place for place, _ in records)),
        )

    def _url(self, topic: str) -> str:
        return f"kafka://{self.settings.bootstrap_servers[0]}/{topic}"
