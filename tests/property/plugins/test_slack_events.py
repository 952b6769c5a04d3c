"""Whatever events and templates hold, each event is accounted for once, and values cannot mention anybody."""

from __future__ import annotations

import json

from headrace_destination_slack.destination import Slack
from headrace_destination_slack.messages import FIELDS
from headrace_destination_slack.settings import SlackSettings
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import EventBatch, EventItem, Request, Skip

HOOK = "https://hooks.slack.com/services/T0/B0/x"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
EVENTS = st.builds(
    EventItem,
    message_id=st.just("m"),
    kind=st.sampled_from(["track", "identify", "page"]),
    name=st.sampled_from(["A", "B", ""]) | st.text(),
    fields=st.dictionaries(st.sampled_from([field.name for field in FIELDS]), JSON, max_size=6),
)
TEMPLATES = st.lists(
    st.sampled_from(["${event}", "${properties.a}", "${person}", "$${", "*", " ", "x", "${traits}"]), min_size=1
).map("".join)


@given(st.lists(EVENTS, max_size=4), TEMPLATES, st.booleans())
def test_events(events: list[EventItem], template: str, bot: bool) -> None:
    way = {"bot_token": "t", "channel": "C1"} if bot else {"webhook_url": HOOK}
    settings = SlackSettings.model_validate({**way, "message": template, "messages": {"B": ""}})
    built = list(Slack(settings).send_events(EventBatch(events=tuple(events), now_us=0)))
    requests = [one for one in built if isinstance(one, Request)]
    places = [place for request in requests for place in request.items]
    places += [one.item for one in built if isinstance(one, Skip)]
    assert sorted(places) == list(range(len(events)))
    for request in requests:
        assert request.url == ("https://slack.com/api/chat.postMessage" if bot else HOOK)
        text = json.loads(request.body)["text"]
        assert 0 < len(text) <= 40_000
        assert "<" not in text and ">" not in text
