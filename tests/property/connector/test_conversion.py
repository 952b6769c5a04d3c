"""Dataclasses of the SDK and messages of the protocol: whatever crosses the line arrives as it was."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.connector import operations, wire
from headrace.connector.operations import Operation, Settings, Values
from headrace_sdk import (
    Check,
    DeleteBatch,
    Delivered,
    EventBatch,
    EventItem,
    Job,
    Member,
    MemberBatch,
    Note,
    Outcomes,
    Pending,
    Profile,
    Rejected,
    Request,
    Response,
    Retry,
    Row,
    Skip,
    Subject,
    VendorList,
    Warned,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
PLACES = st.integers(0, 2**31 - 1)
SECONDS = st.floats(0, 1e6)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
TEXTS = st.dictionaries(TEXT, TEXT, max_size=3)
IDENTIFIERS = st.dictionaries(TEXT, st.lists(TEXT, min_size=1, max_size=3), max_size=3)
ROWS = st.builds(Row, key=TEXT, data=JSON)
PROFILES = st.builds(Profile, id=TEXT, identifiers=IDENTIFIERS, traits=OBJECTS, consents=TEXTS)
EVENTS = st.builds(
    EventItem, message_id=TEXT, kind=TEXT, name=TEXT, timestamp_us=INTEGERS, received_at_us=INTEGERS, source_id=TEXT,
    identifiers=IDENTIFIERS, group_id=TEXT, previous_id=TEXT, traits=OBJECTS, properties=OBJECTS, context=OBJECTS,
    profile=st.none() | PROFILES, fields=OBJECTS, traceparent=TEXT,
)  # fmt: skip
REQUESTS = st.builds(
    Request, method=TEXT, url=TEXT, headers=TEXTS, body=st.binary(max_size=9),
    items=st.lists(PLACES, max_size=4).map(tuple), secrets=st.lists(TEXT, max_size=2).map(tuple),
)  # fmt: skip
RESPONSES = st.builds(
    Response, status=st.integers(0, 999), headers=TEXTS, body=st.binary(max_size=9), received_at_us=INTEGERS
)
REJECTED = st.builds(Rejected, reason=TEXT, field=TEXT)
OUTCOMES = st.builds(
    Outcomes,
    items=st.lists(
        st.just(Delivered())
        | st.builds(Warned, reason=TEXT)
        | REJECTED
        | st.builds(Retry, reason=TEXT, after_s=st.none() | SECONDS)
        | st.builds(Pending, job=TEXT, after_s=SECONDS),
        max_size=5,
    ).map(tuple),
    unauthorized=TEXT,
    misconfigured=TEXT,
    throttle_s=st.none() | SECONDS,
    refused_whole=st.booleans(),
)
MEMBERS = st.builds(
    Member, profile_id=TEXT, fields=st.dictionaries(TEXT, TEXT | st.lists(TEXT, max_size=2), max_size=3)
)
BATCHES = st.builds(MemberBatch, rows=st.lists(ROWS, max_size=3).map(tuple), now_us=INTEGERS)
BUILT = st.builds(
    wire.BuiltBatch,
    requests=st.lists(REQUESTS, max_size=2).map(tuple),
    skipped=st.lists(st.builds(Skip, item=PLACES, reason=TEXT, field=TEXT), max_size=2).map(tuple),
    notes=st.lists(st.builds(Note, item=PLACES, reason=TEXT), max_size=2).map(tuple),
)
CHECK = st.builds(Check, title=TEXT, request=REQUESTS)
MEMBER_ROWS = st.builds(wire.MemberRows, rows=st.lists(ROWS, max_size=2).map(tuple), rejected=st.none() | REJECTED)
NORMALISED = st.builds(
    wire.NormalisedValue, normalised=st.none() | TEXT, sent=st.none() | TEXT, rejected=st.none() | TEXT
)
PROBLEM = st.builds(wire.SettingsProblem, reason=TEXT, field=TEXT)
ARGUMENTS: dict[Operation[Any, Any], st.SearchStrategy[Any]] = {
    operations.LOAD: st.none(),
    operations.OPEN: st.builds(Settings, TEXT, OBJECTS),
    operations.CLOSE: st.none(),
    operations.ROWS: st.lists(MEMBERS, max_size=3),
    operations.ADD_MEMBERS: BATCHES,
    operations.REMOVE_MEMBERS: BATCHES,
    operations.SEND_EVENTS: st.builds(EventBatch, events=st.lists(EVENTS, max_size=2).map(tuple), now_us=INTEGERS),
    operations.DELETE: st.builds(
        DeleteBatch,
        subjects=st.lists(
            st.builds(Subject, profile_id=TEXT, identifiers=IDENTIFIERS, merged_ids=st.lists(TEXT, max_size=2)),
            max_size=3,
        ).map(tuple),
        now_us=INTEGERS,
    ),
    operations.READ: st.lists(st.tuples(REQUESTS, RESPONSES), max_size=3),
    operations.NORMALISE: st.builds(Values, st.lists(st.tuples(TEXT, TEXT), max_size=3), TEXT),
    operations.POLL: st.builds(Job, id=TEXT, items=PLACES, now_us=INTEGERS),
    operations.CHECKS: st.none(),
    operations.READ_CHECK: st.tuples(CHECK, RESPONSES),
    operations.LISTS: TEXT,
    operations.CREATE_LIST: TEXT,
    operations.READ_LISTS: st.tuples(REQUESTS, RESPONSES),
    operations.DELIVER: st.builds(wire.ToDeliver, request=REQUESTS, timeout_s=SECONDS, allow_private=st.booleans()),
}
REASONS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
RESULTS: dict[Operation[Any, Any], st.SearchStrategy[Any]] = {
    operations.DELIVER: st.one_of(
        st.builds(wire.Delivery, response=RESPONSES),
        *(st.builds(wire.Delivery, **{name: REASONS}) for name in ("unsent", "lost", "refused")),
    ),
    operations.OPEN: st.none() | st.builds(wire.SettingsProblem, reason=TEXT, field=TEXT, others=st.tuples(PROBLEM)),
    operations.CLOSE: st.none(),
    operations.ROWS: st.lists(MEMBER_ROWS, max_size=3),
    operations.ADD_MEMBERS: BUILT,
    operations.REMOVE_MEMBERS: BUILT,
    operations.SEND_EVENTS: BUILT,
    operations.DELETE: BUILT,
    operations.READ: st.lists(
        st.builds(wire.ReadResult, outcomes=OUTCOMES) | st.builds(wire.ReadResult, failure=TEXT), max_size=3
    ),
    operations.NORMALISE: st.lists(NORMALISED, max_size=3),
    operations.POLL: REQUESTS,
    operations.CHECKS: st.lists(CHECK, max_size=2),
    operations.READ_CHECK: TEXT,
    operations.LISTS: REQUESTS,
    operations.CREATE_LIST: REQUESTS,
    operations.READ_LISTS: st.builds(
        wire.FoundLists,
        lists=st.lists(
            st.builds(VendorList, id=TEXT, name=TEXT, size=st.none() | st.integers(0, 2**63 - 1)), max_size=2
        ).map(tuple),
        next_page=TEXT,
        problem=TEXT,
    ),
}
"""Without LOAD, whose manifests are looked at one by one in the unit tests."""


@given(st.data(), st.sampled_from(operations.OPERATIONS), TEXT)
def test_arguments_arrive(data: st.DataObject, operation: Operation[Any, Any], instance: str) -> None:
    argument = data.draw(ARGUMENTS[operation])
    sent = operation.request_message(instance, argument).SerializeToString()
    arrived = operation.request.FromString(sent)
    assert operation.argument_of(arrived) == argument
    assert operation is operations.LOAD or getattr(arrived, "instance", None) == instance


@given(st.data(), st.sampled_from([*RESULTS]))
def test_results_arrive(data: st.DataObject, operation: Operation[Any, Any]) -> None:
    result = data.draw(RESULTS[operation])
    sent = operation.response_message(result).SerializeToString()
    assert operation.result_of(operation.response.FromString(sent)) == result
