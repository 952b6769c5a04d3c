"""Consents of a person: the newest statement over all their events, whatever was merged when."""

from __future__ import annotations

import msgspec
from headrace_identity.documents import profile_document, profile_from
from headrace_identity.resolving.replay import as_json, replay
from headrace_identity.resolving.rules import DEFAULT_RULES
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.common.v1.event_pb2 import Event
from tests.support.identity import event

thoroughly = settings(derandomize=True, deadline=None, max_examples=150)

statuses = st.sampled_from(["granted", "denied"])
said = st.dictionaries(st.sampled_from(["ad_storage", "newsletter"]), statuses, max_size=2)
identifiers = st.sampled_from(
    [(n, v + n[0]) for n in ("email", "anonymous_id") for v in ("a@shop.example", "dev1", "dev2")]
)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Events of few people, most of which speak of consent, several at the same time."""
    history = []
    for number in range(draw(st.integers(0, 10))):
        one = event(f"m{number:02}", *draw(st.lists(identifiers, min_size=1, max_size=2)), day=draw(st.integers(0, 2)))
        statement = msgspec.json.encode({"consent": draw(said)})
        if draw(st.booleans()):
            one.context = statement
        else:
            one.traits = statement
        history.append(one)
    return history


@thoroughly
@given(history=histories())
def test_the_newest_statement_of_all_events_of_a_person_counts(history: list[Event]) -> None:
    result = replay(history, DEFAULT_RULES)
    for root in result.roots():
        plain: dict[str, tuple[int, str, bool]] = {}
        for one in history:
            if result.root_of(one.message_id) != root:
                continue
            statement = msgspec.json.decode(one.context or one.traits)["consent"]
            for purpose, status in statement.items():
                entry = (one.timestamp_us, one.message_id, status == "granted")
                plain[purpose] = max(plain.get(purpose, entry), entry)
        found = result.consents(root)
        assert {p: (c.time_us, c.message_id, c.granted) for p, c in found.items()} == plain
        assert list(found) == sorted(found)
        assert all(c.source_id == "web" for c in found.values())
        for part in result.graph.profiles[root].parts:
            stored = profile_document("shop", result.graph.profiles[part])
            assert profile_from(stored).consents == result.graph.profiles[part].consents


def test_without_consents_the_offline_result_does_not_speak_of_them() -> None:
    silent = as_json(replay([event("m1", ("email", "a@shop.example"))], DEFAULT_RULES))
    assert set(silent["profiles"][0]) == {"id", "identifiers", "traits", "message_ids"}
    speaking = event("m2", ("email", "a@shop.example"))
    speaking.context = b'{"consent":{"ad_storage":"denied"}}'
    assert as_json(replay([speaking], DEFAULT_RULES))["profiles"][0]["consents"] == {"ad_storage": "denied"}
