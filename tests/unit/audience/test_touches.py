"""What events say of how they reached a person."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_audience.engine.touches import touch_in, touch_json, touch_of
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.common.v1.event_pb2 import Event

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/17.4 Mobile/15E148 Safari/604.1"
)
WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36"
)
PIXEL = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/124.0.0.0 Mobile Safari/537.36"
)
GALAXY_TAB = (
    "Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36"
)
IPAD = (
    "Mozilla/5.0 (iPad; CPU OS 16_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/16.0 Mobile/15E148 Safari/604.1"
)
TV = "Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) AppleWebKit/538.1 (KHTML, like Gecko) Version/6.0 TV Safari/538.1"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (IPHONE, {"device": "mobile", "browser": "Mobile Safari", "os": "iOS", "platform": "web"}),
        (WINDOWS, {"device": "desktop", "browser": "Chrome", "os": "Windows", "platform": "web"}),
        (PIXEL, {"device": "mobile", "browser": "Chrome Mobile", "os": "Android", "platform": "web"}),
        (GALAXY_TAB, {"device": "tablet", "browser": "Chrome", "os": "Android", "platform": "web"}),
        (IPAD, {"device": "tablet", "browser": "Mobile Safari", "os": "iOS", "platform": "web"}),
        (TV, {"device": "tv", "browser": "Safari", "os": "Tizen", "platform": "web"}),
        (GOOGLEBOT, {"device": "bot", "browser": "Googlebot", "platform": "web"}),
        ("nonsense", {}),
        ("", {}),
    ],
)
def test_a_user_agent_tells_device_browser_and_system(agent: str, expected: dict[str, str]) -> None:
    assert touch_in({"userAgent": agent}) == expected


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (
            {"campaign": {"source": "google", "name": "spring", "medium": " cpc ", "term": "", "other": "x"}},
            {"campaign": {"source": "google", "name": "spring", "medium": "cpc"}},
        ),
        (
            {"page": {"url": "https://shop.example/a?utm_source=meta&UTM_Campaign=May%20sale&utm_source=second#x"}},
            {"campaign": {"source": "meta", "name": "May sale"}},
        ),
        (
            {"page": {"search": "?utm_medium=mail", "url": "https://shop.example/?utm_source=no"}},
            {"campaign": {"medium": "mail"}},
        ),
        ({"page": {"url": "http://[?utm_source=x"}}, {}),
        ({"campaign": {}, "page": {"search": "?utm_source=x"}}, {}),
        ({"location": {"country": "de"}, "timezone": "Asia/Kolkata"}, {"country": "DE"}),
        ({"location": {"country": "Germany"}}, {"country": "Germany"}),
        ({"timezone": "Asia/Calcutta"}, {"country": "IN"}),
        ({"timezone": "Europe/Oslo"}, {"country": "NO"}),
        ({"timezone": "Atlantic/Nowhere"}, {}),
        (
            {"device": {"type": "iOS"}, "os": {"name": "iPadOS"}},
            {"device": "tablet", "os": "iPadOS", "platform": "ios"},
        ),
        (
            {"device": {"type": "android"}, "userAgent": "Dalvik/2.1.0 (Linux; U; Android 9; Pixel)"},
            {"device": "mobile", "os": "Android", "platform": "android"},
        ),
        ({"os": {"name": "Android"}}, {"device": "mobile", "os": "Android", "platform": "android"}),
        (
            {"userAgentData": {"brands": [{"brand": "Brave"}], "mobile": False, "platform": "macOS"}},
            {"device": "desktop", "browser": "Brave", "os": "Mac OS X", "platform": "web"},
        ),
        ({"os": {"name": "Windows"}, "userAgent": WINDOWS}, touch_in({"userAgent": WINDOWS})),
    ],
)
def test_a_context_tells_the_rest(context: dict[str, Any], expected: dict[str, Any]) -> None:
    assert touch_in(context) == expected
    event = Event(context=json.dumps({"library": {"name": "x"}, **context}).encode())
    assert touch_of(event) == expected
    assert (json.loads(touch_json(event)) if expected else touch_json(event)) == (expected or b"")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ("campaign", "page", "userAgent", "userAgentData", "device", "os", "location", "timezone", "traits")
)
INSIDE = st.dictionaries(
    st.sampled_from(("source", "name", "url", "search", "type", "country", "brands", "platform")),
    st.one_of(JSON, st.text(alphabet="?&=utm_source[]:/%# \x00\ud800", max_size=30)),
    max_size=4,
)


@given(context=st.dictionaries(KEYS, st.one_of(JSON, INSIDE), max_size=6))
def test_any_context_is_read(context: dict[str, Any]) -> None:
    said = touch_of(Event(context=json.dumps(context).encode()))
    assert said.keys() <= {"campaign", "device", "browser", "os", "platform", "country"}
    json.dumps(said)


@given(context=st.binary(max_size=60) | st.binary(max_size=40).map(lambda b: b'{"campaign":' + b + b"}"))
def test_any_bytes_are_read(context: bytes) -> None:
    assert isinstance(touch_of(Event(context=context)), dict)
