"""Devices, browsers, systems and platforms of user agents in use, and of client hints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from headrace_audience.engine.agents import technology_in
from hypothesis import given
from hypothesis import strategies as st

AGENTS: list[dict[str, str]] = json.loads(Path("tests/cases/user_agents.json").read_text())
"""User agents in use, each with its device, browser, os and platform; "" for what it does not say."""
NAMES = ("device", "browser", "os", "platform")

WINDOWS_CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
ANDROID_CHROME = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36"
)
MAC_SAFARI = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/26.0 Safari/605.1.15"
)
GREASE = {"brand": "Not_A Brand", "version": "99"}


def said_of(context: dict[str, Any]) -> tuple[str, ...]:
    """What a context says, in the order of NAMES."""
    said = dict(technology_in(context))
    return tuple(said.get(name, "") for name in NAMES)


def hints(*brands: str, mobile: Any = False, platform: Any = "Windows") -> dict[str, Any]:
    """What `navigator.userAgentData` gives, in the order in which browsers shuffle it."""
    return {
        "brands": [GREASE, *({"brand": b, "version": "142"} for b in brands)],
        "mobile": mobile,
        "platform": platform,
    }


@pytest.mark.parametrize("case", AGENTS, ids=lambda case: case["agent"])
def test_user_agents_in_use(case: dict[str, str]) -> None:
    assert said_of({"userAgent": case["agent"]}) == tuple(case[name] for name in NAMES)


CHROME = ("Chromium", "Google Chrome")


@pytest.mark.parametrize(
    ("agent", "data", "expected"),
    [
        (WINDOWS_CHROME, hints(*CHROME), ("desktop", "Chrome", "Windows", "web")),
        (WINDOWS_CHROME, hints("Chromium"), ("desktop", "Chrome", "Windows", "web")),
        (WINDOWS_CHROME, hints("Brave", "Chromium"), ("desktop", "Brave", "Windows", "web")),
        (WINDOWS_CHROME, hints("Chromium", "Microsoft Edge"), ("desktop", "Edge", "Windows", "web")),
        (ANDROID_CHROME, hints("Brave", mobile=True, platform="Android"), ("mobile", "Brave", "Android", "web")),
        ("", hints(*CHROME, platform="macOS"), ("desktop", "Chrome", "Mac OS X", "web")),
        ("", hints(*CHROME, platform="Chromium OS"), ("desktop", "Chrome", "Chrome OS", "web")),
        ("", hints(*CHROME, mobile=True, platform="Android"), ("mobile", "Chrome Mobile", "Android", "web")),
        ("", hints(*CHROME, platform="Android"), ("tablet", "Chrome", "Android", "web")),
        ("", hints("Microsoft Edge", mobile=True, platform="Android"), ("mobile", "Edge Mobile", "Android", "web")),
        ("", hints(platform="Unknown"), ("", "", "", "")),
        ("", {"brands": "x", "mobile": "yes", "platform": 7}, ("", "", "", "")),
        ("", {"brands": [None, 7, {"brand": ["x"]}, {}]}, ("", "", "", "")),
        (WINDOWS_CHROME, [], ("desktop", "Chrome", "Windows", "web")),
        ("Mozilla/5.0 (compatible; Googlebot/2.1)", hints("Brave"), ("bot", "Googlebot", "Windows", "web")),
    ],
)
def test_client_hints(agent: str, data: Any, expected: tuple[str, str, str, str]) -> None:
    assert said_of({"userAgent": agent, "userAgentData": data}) == expected


def test_hints_do_not_depend_on_their_order() -> None:
    data = hints("Chromium", "Google Chrome", "Brave")
    turned = {**data, "brands": data["brands"][::-1]}
    contexts = [{"userAgent": WINDOWS_CHROME, "userAgentData": said} for said in (data, turned)]
    assert technology_in(contexts[0]) == technology_in(contexts[1])


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({"device": {"type": "ios", "model": "iPad14,3"}}, ("tablet", "", "", "ios")),
        ({"device": {"type": "ios", "model": "iPhone17,1"}}, ("mobile", "", "", "ios")),
        ({"device": {"type": "ios"}, "os": {"name": "iPadOS"}}, ("tablet", "", "iPadOS", "ios")),
        ({"device": {"type": "tvos"}, "os": {"name": "tvOS"}}, ("tv", "", "tvOS", "")),
        ({"device": {"type": "android"}, "userAgent": ANDROID_CHROME}, ("mobile", "", "Android", "android")),
        ({"device": {"type": "android"}, "userAgent": "okhttp/4.12.0"}, ("mobile", "", "", "android")),
        ({"device": {"type": "tablet"}, "userAgent": MAC_SAFARI}, ("tablet", "Safari", "Mac OS X", "web")),
        ({"device": {"type": "gizmo"}, "userAgent": WINDOWS_CHROME}, ("desktop", "Chrome", "Windows", "web")),
    ],
)
def test_what_apps_say_counts_before_the_user_agent(
    context: dict[str, Any], expected: tuple[str, str, str, str]
) -> None:
    assert said_of(context) == expected


_pieces = st.sampled_from(
    ["Mozilla/5.0 ", "(Macintosh; ", "Android 15; ", "Mobile ", "Tablet ", "TV ", "Chrome/1 ", "bot "]
)
_agents = st.lists(_pieces | st.text(max_size=10), max_size=8).map("".join)
_devices = st.sampled_from(["ios", "ANDROID", "tablet", "tvOS", "", "x"])
_hints = st.fixed_dictionaries(
    {},
    optional={
        "brands": st.lists(st.fixed_dictionaries({"brand": st.sampled_from(["Brave", "Chromium"]) | st.text()})),
        "mobile": st.booleans() | st.none() | st.text(),
        "platform": st.sampled_from(["Android", "Windows"]) | st.text() | st.none(),
    },
)


@given(_agents, _devices, _hints)
def test_devices_and_platforms_are_those_of_the_language(agent: str, device: str, data: dict[str, Any]) -> None:
    said = dict(technology_in({"userAgent": agent, "device": {"type": device}, "userAgentData": data}))
    assert said.get("device", "tv") in {"mobile", "tablet", "desktop", "tv", "bot"}
    assert said.get("platform", "web") in {"web", "ios", "android"}
    assert all(said.values())
    assert not (said.get("platform") in {"ios", "android"} and "browser" in said)
