"""Everything for HubSpot: each item accounted for, nobody in an address, no address twice in a request."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from headrace_destination_hubspot.destination import HubSpot
from headrace_destination_hubspot.settings import HubSpotSettings
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_sdk import (
    DeleteBatch,
    EventBatch,
    EventItem,
    Member,
    MemberBatch,
    RecordRejected,
    Request,
    Row,
    Skip,
    Subject,
)

NOW_US = 1_796_000_000_000_000
THERE = HubSpot(HubSpotSettings.model_validate({"access_token": "t", "list_id": "17", "portal_id": "42"}))
EMAILS = st.sampled_from(["a@x.de", "A@x.de", "b@x.de"]) | st.emails() | st.text(max_size=5)
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
PROPERTIES = st.dictionaries(st.text(max_size=4), SCALARS, max_size=3)
EVENTS = st.builds(
    EventItem,
    message_id=st.text(min_size=1, max_size=4),
    kind=st.sampled_from(["identify", "track", "page", "screen", "group", "alias"]),
    name=st.text(max_size=5),
    timestamp_us=st.integers(-(2**62), 2**62),
    fields=st.fixed_dictionaries(
        {}, optional={"email": EMAILS, "utk": EMAILS, "properties": PROPERTIES, "contact_properties": PROPERTIES}
    ),
)


def check(built: list[Any], size: int) -> list[Request]:
    requests = [one for one in built if isinstance(one, Request)]
    alone = {request.items[0] for request in requests if len(request.items) == 1}
    places = [*alone, *(place for request in requests if len(request.items) > 1 for place in request.items)]
    places += [one.item for one in built if isinstance(one, Skip)]
    assert Counter(places) == Counter(range(size))
    for request in requests:
        assert request.url.startswith("https://api.hubapi.com/") and not {"@", "%"} & set(request.url)
        inputs = json.loads(request.body).get("inputs", [])
        if "contacts" in request.url and inputs:
            assert len({one["id"] for one in inputs}) == len(inputs) == len(request.items) <= 100
        for one in inputs:
            assert all(isinstance(value, str) for value in one.get("properties", {}).values())
    return requests


@settings(max_examples=40)  # each builds several requests
@given(st.lists(EVENTS, max_size=5))
def test_events(events: list[EventItem]) -> None:
    check(list(THERE.send_events(EventBatch(events=tuple(events), now_us=NOW_US))), len(events))


@settings(max_examples=40)  # each builds several requests
@given(st.lists(EMAILS, max_size=6), st.booleans())
def test_members(emails: list[str], adding: bool) -> None:
    rows: list[Row] = []
    for email in emails:
        try:
            rows += THERE.rows(Member(profile_id="p", fields={"email": email}))
        except RecordRejected:
            continue
    batch = MemberBatch(rows=tuple(rows), now_us=NOW_US)
    check(list((THERE.add_members if adding else THERE.remove_members)(batch)), len(rows))


@settings(max_examples=40)  # each builds several requests
@given(st.lists(st.lists(EMAILS, max_size=3), max_size=4))
def test_people_to_be_forgotten(people: list[list[str]]) -> None:
    subjects = tuple(Subject(profile_id="p", identifiers={"email": emails}) for emails in people)
    check(list(THERE.delete(DeleteBatch(subjects=subjects, now_us=NOW_US))), len(people))
