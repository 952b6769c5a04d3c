"""Whatever events and members hold, each is accounted for once, keeps Brevo's rules, and nobody is in an address."""

from __future__ import annotations

import json

from headrace_destination_brevo.contacts import rows_of
from headrace_destination_brevo.destination import Brevo
from headrace_destination_brevo.fields import FIELDS
from headrace_destination_brevo.settings import BrevoSettings
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from headrace_sdk import EventBatch, EventItem, MemberBatch, RecordRejected, Request, Row, Skip
from tests.support.vendors.brevo import wrong_event

NOW_US = 1_796_000_000_000_000
API = "https://api.brevo.com/v3"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
EMAIL = st.sampled_from(["Ada@b.co", " x+y@z.de", "é@ü.fr"]) | st.text(max_size=3)
EMAILS = EMAIL | st.lists(EMAIL, max_size=2)
VALUES = {
    "email": EMAILS | JSON,
    "phone": st.just("+491711234567") | JSON,
    "properties": st.dictionaries(st.text(), JSON),
}
FIELD_VALUES = st.fixed_dictionaries({}, optional={field.name: VALUES.get(field.name, JSON) for field in FIELDS})
EVENTS = st.builds(
    EventItem,
    message_id=st.just("m"),
    kind=st.sampled_from(["track", "track", "page", "screen", "group", "identify", "alias"]),
    name=st.sampled_from(["Order Completed", "added_to_segment", "", "ü" * 300]) | st.text(max_size=10),
    timestamp_us=st.integers(-1, NOW_US + 86_400_000_000),
    received_at_us=st.integers(NOW_US - 86_400_000_000, NOW_US),
    fields=FIELD_VALUES,
)


@examples(max_examples=50)
@given(st.lists(EVENTS, max_size=4), st.booleans())
def test_events(events: list[EventItem], uses_ext_id: bool) -> None:
    known = {"api_key": "k", "uses_ext_id": uses_ext_id, "attributes": {"plan": "PLAN"}}
    settings = BrevoSettings.model_validate(known)
    built = list(Brevo(settings).send_events(EventBatch(events=tuple(events), now_us=NOW_US)))
    requests = [one for one in built if isinstance(one, Request)]
    places = [place for request in requests for place in request.items]
    places += [one.item for one in built if isinstance(one, Skip)]
    assert sorted(places) == list(range(len(events)))
    for request in requests:
        body = json.loads(request.body)
        if "events" in body:
            assert request.url == f"{API}/events/batch" and len(body["events"]) == len(request.items)
            assert [wrong_event(one) for one in body["events"]] == [""] * len(request.items)
        else:
            assert request.url == f"{API}/contacts" and len(request.items) == 1
            assert {"email", "ext_id"} & set(body) or "SMS" in body["attributes"]


@given(st.lists(st.lists(EMAIL, max_size=3), max_size=5), st.booleans())
def test_members(people: list[list[str]], adding: bool) -> None:
    settings = BrevoSettings.model_validate({"api_key": "k", "list_id": "7", "import_from": 3})
    rows: list[Row] = []
    for emails in people:
        try:
            found = rows_of({"email": emails, "user_id": "u"}, settings)
        except RecordRejected:
            continue
        assert found == rows_of({"email": emails[::-1], "user_id": "u"}, settings)
        rows += found
    there, batch = Brevo(settings), MemberBatch(rows=tuple(rows), now_us=0)
    requests = list((there.add_members if adding else there.remove_members)(batch))
    assert [place for one in requests if isinstance(one, Request) for place in one.items] == list(range(len(rows)))
    urls = {f"{API}/contacts", f"{API}/contacts/import"} if adding else {f"{API}/contacts/lists/7/contacts/remove"}
    assert all(isinstance(one, Request) and one.url in urls for one in requests)
