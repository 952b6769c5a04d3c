"""Whatever events and members hold, each is accounted for once, keeps Mixpanel's rules, and nobody is in an address."""

from __future__ import annotations

import json

from headrace_destination_mixpanel.destination import MAX_GROUPS, Mixpanel
from headrace_destination_mixpanel.events import insert_id_of
from headrace_destination_mixpanel.fields import FIELDS
from headrace_destination_mixpanel.profiles import rows_of
from headrace_destination_mixpanel.settings import MixpanelSettings
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from headrace_sdk import EventBatch, EventItem, MemberBatch, RecordRejected, Request, Row, Skip
from tests.support.vendors.mixpanel import wrong_event

NOW_US = 1_796_000_000_000_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PROPERTIES = st.dictionaries(st.sampled_from(["time", "token", "$ignore", "sku", "$insert_id", "distinct_id"]), JSON)
CONTEXT = st.dictionaries(st.sampled_from(["page", "campaign", "os", "screen", "app"]), JSON)
VALUES = {"properties": PROPERTIES | JSON, "context": CONTEXT | JSON}
FIELD_VALUES = st.fixed_dictionaries({}, optional={field.name: VALUES.get(field.name, JSON) for field in FIELDS})
EVENTS = st.builds(
    EventItem,
    message_id=st.text(min_size=1, max_size=50),
    kind=st.sampled_from(["track", "track", "page", "screen", "group", "identify", "alias"]),
    name=st.sampled_from(["Order Completed", "added_to_segment", ""]) | st.text(max_size=10),
    timestamp_us=st.integers(-1, NOW_US + 86_400_000_000),
    received_at_us=st.integers(NOW_US - 86_400_000_000, NOW_US),
    previous_id=st.text(max_size=3),
    fields=FIELD_VALUES,
)
HOST = "https://api.mixpanel.com"
URLS = {
    f"{HOST}/import?strict=1": 2_000,
    f"{HOST}/engage?strict=1&verbose=1&ip=0": 2_000,
    f"{HOST}/groups?strict=1&verbose=1": MAX_GROUPS,
}


@examples(max_examples=50)
@given(st.lists(EVENTS, max_size=4), st.sampled_from(["simplified", "original"]))
def test_events(events: list[EventItem], merge: str) -> None:
    settings = MixpanelSettings.model_validate({"project_token": "t", "group_key": "company", "id_merge": merge})
    built = list(Mixpanel(settings).send_events(EventBatch(events=tuple(events), now_us=NOW_US)))
    requests = [one for one in built if isinstance(one, Request)]
    alone = {request.items for request in requests if len(request.items) == 1}
    several = [request.items for request in requests if len(request.items) > 1]
    places = [place for items in (*alone, *several) for place in items]
    places += [one.item for one in built if isinstance(one, Skip)]
    assert sorted(places) == list(range(len(events)))
    for request in requests:
        records = json.loads(request.body)
        assert len(records) == len(request.items) <= URLS[request.url]
        if "/import" in request.url:
            assert [wrong_event(record, NOW_US // 1_000) for record in records] == [("", "")] * len(records)
        else:
            ids = "$distinct_id" if "/engage" in request.url else "$group_id"
            assert all(record["$token"] == "t" and record[ids] for record in records)


@given(st.text())
def test_insert_ids(id: str) -> None:
    made = insert_id_of(id)
    assert 1 <= len(made.encode()) <= 36 and made.replace("-", "a").isalnum()


@given(st.lists(st.lists(st.text(max_size=5), max_size=3), max_size=5), st.booleans())
def test_members(people: list[list[str]], adding: bool) -> None:
    settings = MixpanelSettings.model_validate({"project_token": "t", "audience": "VIPs"})
    rows: list[Row] = []
    for ids in people:
        try:
            found = rows_of({"user_id": ids}, settings)
        except RecordRejected:
            continue
        assert found == rows_of({"user_id": ids[::-1]}, settings)
        rows += found
    there, batch = Mixpanel(settings), MemberBatch(rows=tuple(rows), now_us=0)
    requests = list((there.add_members if adding else there.remove_members)(batch))
    assert [place for one in requests if isinstance(one, Request) for place in one.items] == list(range(len(rows)))
    assert all(isinstance(one, Request) and one.url in URLS for one in requests)
