"""Segments put together from serialised events are the very bytes that protobuf would write."""

from __future__ import annotations

import pytest

from headrace.api.common.v1.event_pb2 import Event, EventBatch
from headrace.storage.mongo.log import segment_of


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 129, 16_383, 16_384, 16_385, 2_097_151, 2_097_152, 3_000_000])
def test_a_segment_is_what_protobuf_would_write(size: int) -> None:
    events = [Event(message_id="a"), Event(message_id="b", properties=b"x" * size), Event(), Event(message_id="c")]
    segment = segment_of("acme", 3, [event.SerializeToString() for event in events])
    batch = EventBatch(segment_id=segment.id, workspace_id="acme", events=events)
    assert segment.payload == batch.SerializeToString()
    assert (segment.workspace_id, segment.partition, segment.event_count, len(segment.id)) == ("acme", 3, 4, 32)


@pytest.mark.parametrize("length", [*range(120, 136), *range(16_375, 16_395)])
def test_every_length_around_the_steps_of_its_encoding(length: int) -> None:
    event = Event(message_id="x" * length)
    segment = segment_of("acme", 0, [event.SerializeToString()])
    assert EventBatch.FromString(segment.payload).events == [event]
