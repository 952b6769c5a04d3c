"""Whatever scripts return and events hold, each event is accounted for once, and what goes out is HTTP."""

from __future__ import annotations

import json
from typing import Any

from headrace_destination_javascript.destination import Javascript
from headrace_destination_javascript.settings import JavascriptSettings
from hypothesis import given
from hypothesis import strategies as st

from headrace.connector import wire
from headrace.plugins.contract import check_built
from headrace_sdk import EventBatch, EventItem, Request, Skip

URLS = st.sampled_from(["https://a.example/x", "http://a.example", "ftp://a", "https://", "//", "https://a.example:0/"])
NAMES = st.sampled_from(["A", "content-type", "Host", "authorization", "a b", ""]) | st.text(max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "url": URLS | st.text().map("https://a.example/{}".format) | JSON,
        "method": st.sampled_from(["GET", "post", "PUT", "DELETE", "BREW"]) | JSON,
        "headers": st.dictionaries(NAMES, st.text(max_size=5) | JSON, max_size=3) | JSON,
        "body": JSON,
        "secrets": st.lists(st.text(max_size=5), max_size=2) | JSON,
        "other": st.none(),
    },
)
RETURNED = REQUESTS | st.lists(REQUESTS, max_size=12) | JSON
SCRIPT = "function send(event) { return event.properties.returned; }"
RETURNS = Javascript(JavascriptSettings(script=SCRIPT, allow_http=True))


@given(st.lists(RETURNED, max_size=3))
def test_what_is_returned(returned: list[Any]) -> None:
    events = [
        EventItem(message_id=f"m{place}", kind="track", name="A", properties={"returned": one})
        for place, one in enumerate(returned)
    ]
    built = list(RETURNS.send_events(EventBatch(events=tuple(events), now_us=0)))
    requests = tuple(one for one in built if isinstance(one, Request))
    skipped = tuple(one for one in built if isinstance(one, Skip))
    check_built(len(events), wire.BuiltBatch(requests=requests, skipped=skipped))
    for request in requests:
        one = returned[request.items[0]]
        each = one if isinstance(one, list) else [one]
        assert request.url in [given["url"] for given in each]
        bodies = [given.get("body") for given in each]
        if request.headers.get("Content-Type") == "application/json":
            assert any(_same(json.loads(request.body), body) for body in bodies)
        else:
            assert request.body.decode() in [
                body or "" for body in bodies if body is None or isinstance(body, str)
            ] or (any(_same(json.loads(request.body), body) for body in bodies))


def _same(found: Any, given: Any) -> bool:
    """Whether JSON came back as it was; JavaScript's numbers are doubles."""
    if isinstance(given, dict) and isinstance(found, dict):
        # __proto__ is an ordinary name for JSON.parse.
        return found.keys() == given.keys() and all(_same(found[name], given[name]) for name in given)
    if isinstance(given, list) and isinstance(found, list):
        return len(found) == len(given) and all(map(_same, found, given))
    if isinstance(given, int | float) and not isinstance(given, bool):
        try:
            as_double = float(given)
        except OverflowError:
            return found is None
        return isinstance(found, int | float) and float(found) == as_double
    return type(found) is type(given) and bool(found == given)
