"""Everything for Intercom: each item accounted for once, nobody in an address."""

from __future__ import annotations

from collections import Counter
from typing import Any

from headrace_destination_intercom.destination import Intercom
from headrace_destination_intercom.settings import IntercomSettings
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_sdk import (
    DeleteBatch,
    EventBatch,
    EventItem,
    Job,
    Member,
    MemberBatch,
    Pending,
    RecordRejected,
    Request,
    Response,
    Row,
    Skip,
    Subject,
)

NOW_US = 1_796_000_000_000_000
THERE = Intercom(IntercomSettings.model_validate({"access_token": "t", "list_id": "21"}))
VALUES = st.emails() | st.integers(10**9, 10**12).map("+{}".format) | st.text(max_size=6)
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2)
PEOPLE = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("email", "phone", "user_id", "name", "signed_up_at", "email_consent"), VALUES)
)
EVENTS = st.builds(
    EventItem,
    message_id=st.text(min_size=1, max_size=4),
    kind=st.sampled_from(["identify", "track", "page", "screen", "group", "alias"]),
    name=st.text(max_size=5),
    timestamp_us=st.integers(-(2**62), 2**62),
    fields=st.builds(
        lambda person, more: {**person, "custom_attributes": more, "metadata": more},
        PEOPLE,
        st.dictionaries(st.text(max_size=4), SCALARS, max_size=3),
    ),
)
CONFLICT = Response(status=409, body=b'{"errors":[{"message":"already exists with id=5ba682d23d7cf92bef87bf01"}]}')
MISSING = Response(status=404, body=b'{"errors":[{"message":"User Not Found"}]}')


def check(built: list[Any], size: int) -> None:
    """Each item is in one request or skipped; what follows it in a further step names nobody in an address either."""
    requests = [one for one in built if isinstance(one, Request)]
    places = [place for request in requests for place in request.items]
    places += [one.item for one in built if isinstance(one, Skip)]
    assert Counter(places) == Counter(range(size))
    for request in requests:
        follow(request)


def follow(request: Request) -> None:
    assert request.url.startswith("https://api.intercom.io/") and len(request.url) < 120
    assert not {"@", "+", "%"} & set(request.url) and request.url.isascii()
    making = request.url.endswith(("/contacts", "/contacts#tag"))
    if request.method == "POST" and (making or request.url.endswith("/events")):
        (outcome,) = THERE.read(request, CONFLICT if making else MISSING).items
        assert isinstance(outcome, Pending)
        follow(THERE.poll(Job(id=outcome.job, items=1, now_us=NOW_US)))


@settings(max_examples=40)  # each builds several requests
@given(st.lists(EVENTS, max_size=5))
def test_events(events: list[EventItem]) -> None:
    check(list(THERE.send_events(EventBatch(events=tuple(events), now_us=NOW_US))), len(events))


@settings(max_examples=40)  # each builds several requests
@given(st.lists(PEOPLE, max_size=5), st.booleans())
def test_members(people: list[dict[str, str | list[str]]], adding: bool) -> None:
    rows: list[Row] = []
    for fields in people:
        try:
            rows += THERE.rows(Member(profile_id="p", fields=fields))
        except RecordRejected:
            continue
    batch = MemberBatch(rows=tuple(rows), now_us=NOW_US)
    check(list((THERE.add_members if adding else THERE.remove_members)(batch)), len(rows))


IDENTIFIERS = st.dictionaries(st.sampled_from(["email", "phone", "user_id"]), st.lists(VALUES, max_size=3))


@settings(max_examples=40)  # each builds several requests
@given(st.lists(IDENTIFIERS, max_size=4))
def test_people_to_be_forgotten(people: list[dict[str, list[str]]]) -> None:
    subjects = tuple(Subject(profile_id="p", identifiers=one) for one in people)
    check(list(THERE.delete(DeleteBatch(subjects=subjects, now_us=NOW_US))), len(people))
