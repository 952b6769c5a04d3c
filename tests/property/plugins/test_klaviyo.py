"""Everything for Klaviyo: each item accounted for, nobody in an address, nobody subscribed who did not say so."""

from __future__ import annotations

from collections import Counter
from typing import Any

from headrace_destination_klaviyo.destination import Klaviyo
from headrace_destination_klaviyo.settings import KlaviyoSettings
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_sdk import (
    DeleteBatch,
    EventBatch,
    EventItem,
    Member,
    MemberBatch,
    Note,
    RecordRejected,
    Request,
    Row,
    Skip,
    Subject,
)

NOW_US = 1_796_000_000_000_000
VALUES = st.emails() | st.integers(10**9, 10**12).map("+{}".format) | st.text(max_size=8)
CONSENTS = st.sampled_from(["granted", "denied", "", True, None, 7])
PEOPLE = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("email", "phone", "user_id", "first_name", "city", "latitude"), VALUES)
    | {"email_consent": CONSENTS, "sms_consent": CONSENTS},
)
EVENTS = st.builds(
    EventItem,
    message_id=st.text(min_size=1, max_size=4),
    kind=st.sampled_from(["identify", "track", "page", "screen", "group", "alias"]),
    name=st.sampled_from(["", "Order Completed", "trackConsent", "x"]) | st.text(max_size=5),
    timestamp_us=st.integers(-(2**62), 2**62),
    properties=st.dictionaries(st.sampled_from(["email_marketing", "sms_marketing", "x"]), CONSENTS),
    fields=st.fixed_dictionaries({}, optional={
        "email": VALUES, "phone": VALUES, "user_id": VALUES, "anonymous_id": VALUES, "value": VALUES,
        "properties": st.dictionaries(st.text(max_size=3), VALUES), "profile_properties": st.none() | VALUES,
    }),
)  # fmt: skip


def there(**settings: Any) -> Klaviyo:
    known = {"api_key": "k", "list_id": "L1", "subscribe_members": True, **settings}
    return Klaviyo(KlaviyoSettings.model_validate(known))


def check(built: list[Any], size: int) -> list[Request]:
    """Each item is in one request, in several of its own, or skipped; addresses are those of the API."""
    requests = [one for one in built if isinstance(one, Request)]
    alone = {request.items[0] for request in requests if len(request.items) == 1}
    places = [*alone, *(place for request in requests if len(request.items) > 1 for place in request.items)]
    places += [one.item for one in built if isinstance(one, Skip)]
    assert Counter(places) == Counter(range(size))
    assert all(isinstance(one, Request | Skip | Note) for one in built)
    for request in requests:
        assert request.url.startswith("https://a.klaviyo.com/api/") and request.url.isascii()
        if request.method == "GET":  # a search has no other place for identifiers
            assert len(request.url) < 5_000 and not request.body
        else:
            assert "@" not in request.url and "%40" not in request.url and len(request.url) < 90
    return requests


@settings(max_examples=40)  # each builds several requests
@given(st.lists(EVENTS, max_size=5))
def test_events(events: list[EventItem]) -> None:
    batch = EventBatch(events=tuple(events), now_us=NOW_US)
    for request in check(list(there().send_events(batch)), len(events)):
        if "subscription" in request.url:
            (place,) = request.items
            wanted = ("granted", True) if b'"SUBSCRIBED"' in request.body else ("denied", False)
            assert any(one in wanted for one in events[place].properties.values())


@settings(max_examples=40)  # each builds several requests
@given(st.lists(PEOPLE, max_size=5), st.booleans())
def test_members(people: list[dict[str, Any]], adding: bool) -> None:
    rows: list[Row] = []
    for fields in people:
        try:
            rows += there().rows(Member(profile_id="p", fields=fields))
        except RecordRejected:
            continue
        granted = {fields.get(name) for name in ("email_consent", "sms_consent")} & {"granted", True}
        assert granted or not rows[-1].data["subscribe"]
    batch = MemberBatch(rows=tuple(rows), now_us=NOW_US)
    requests = check(list((there().add_members if adding else there().remove_members)(batch)), len(rows))
    if not adding:
        assert all(b"subscri" not in request.body for request in requests)


@settings(max_examples=40)  # each builds several requests
@given(
    st.lists(st.dictionaries(st.sampled_from(["email", "phone", "user_id"]), st.lists(VALUES, max_size=3)), max_size=4)
)
def test_people_to_be_forgotten(people: list[dict[str, list[str]]]) -> None:
    subjects = tuple(Subject(profile_id="p", identifiers=one) for one in people)
    check(list(there().delete(DeleteBatch(subjects=subjects, now_us=NOW_US))), len(people))
