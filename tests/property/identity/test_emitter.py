"""Messages put together from serialised parts are the messages that protobuf itself would write."""

from __future__ import annotations

from headrace_identity.emitter import Resolved, messages
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.identity.v1.profile_pb2 import Decision, Merge, ResolvedBatch, ResolvedEvent
from headrace.domain.ids import partition_of
from headrace.storage.streams import names
from tests.support.identity import WORKSPACE, event

profiles = st.sampled_from(["", "p1", "p2", "p3"])


@st.composite
def resolved_events(draw: st.DrawFn) -> ResolvedEvent:
    """A resolved event of any size, so that lengths take one, two or three bytes."""
    one = event(draw(st.sampled_from(["m1", "m2", "m3"])), ("user_id", "u1"))
    one.properties = b"x" * draw(st.sampled_from([0, 1, 60, 100, 127, 128, 129, 300, 16_300, 16_384, 20_000]))
    merges = [Merge(loser="p1", survivor="p2", loser_parts=["p1"])] * draw(st.integers(0, 2))
    decision = Decision(sequence=draw(st.integers(0, 2**62)), rule="attach", merges=merges)
    return ResolvedEvent(
        event=one,
        profile_id=draw(profiles),
        decision=decision,
        resolved_at_us=draw(st.integers(0, 2**60)),
        segment_id="s1",
        segment_index=draw(st.integers(0, 5000)),
        traceparent=draw(st.sampled_from(["", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"])),
        epoch=draw(st.integers(0, 3)),
    )


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    resolved=st.lists(resolved_events(), max_size=6),
    partitions=st.integers(1, 5),
    survivors=st.dictionaries(st.sampled_from(["p1", "p2"]), st.just("p3")),
)
def test_equals_protobuf(resolved: list[ResolvedEvent], partitions: int, survivors: dict[str, str]) -> None:
    expected: dict[int, ResolvedBatch] = {}
    for one in resolved:
        sent = ResolvedEvent()
        sent.CopyFrom(one)
        sent.profile_id = survivors.get(one.profile_id, one.profile_id)
        to = partition_of(sent.profile_id or one.event.message_id, partitions)
        for partition in {to} | {
            partition_of(p, partitions) for m in one.decision.merges for p in (m.loser, m.survivor)
        }:
            expected.setdefault(partition, ResolvedBatch(workspace_id=WORKSPACE, partition=partition))
        expected[to].events.append(sent)
        for merge in one.decision.merges:
            announced = Merge()
            announced.CopyFrom(merge)
            announced.epoch = one.epoch
            for partition in {partition_of(merge.loser, partitions), partition_of(merge.survivor, partitions)}:
                expected[partition].merges.append(announced)

    contexts = [one.traceparent for one in resolved]
    sent_messages = messages(WORKSPACE, [Resolved.of(r, r.epoch) for r in resolved], survivors, contexts, partitions)
    assert [stream for stream, _ in sent_messages] == [names.resolved(p) for p in sorted(expected)]
    assert [ResolvedBatch.FromString(payload) for _, payload in sent_messages] == [
        expected[p] for p in sorted(expected)
    ]
