"""Device, browser, operating system and platform, by the user agent, the browser's client hints and what apps say.

Browsers and systems are named as by the table of the ua-parser project (https://github.com/ua-parser/uap-core). Bots
are known by the list of https://github.com/monperrus/crawler-user-agents. Client hints, which Segment's library sends
as `context.userAgentData`, tell what a user agent hides: Brave says that it is Chrome. An iPad whose browser asks for
desktop pages says that it is a Macintosh; only a sender who knows better can tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from crawleruseragents import is_crawler
from ua_parser import parse as parse_agent

_MOST = 1_000
"""Longer user agents are looked at so far."""
_MOST_BRANDS = 10

_APPS = {"ios": "ios", "ipados": "ios", "iphone os": "ios", "android": "android"}
_DEVICES = {
    "mobile": "mobile",
    "phone": "mobile",
    "smartphone": "mobile",
    "tablet": "tablet",
    "desktop": "desktop",
    "tv": "tv",
    "tvos": "tv",
}
"""Devices by what senders write as their type, when it names no system."""
_BROWSERS = ("Mozilla/", "Opera/")
"""How the user agents of all browsers begin; those of libraries for HTTP do not."""
_TV = re.compile(r"TV|BRAVIA|NetCast|CrKey|Chromecast|Roku/|\bAFT[A-Z]{1,5}\b")
"""Televisions and what is plugged into them; AFT... are Amazon's Fire TVs."""

_GREASE = re.compile("not.a.brand", re.IGNORECASE)
"""Made up by browsers so that nobody relies on the list: https://wicg.github.io/ua-client-hints/#grease"""
_BRANDS = {
    "Google Chrome": "Chrome",
    "Microsoft Edge": "Edge",
    "Microsoft Edge WebView2": "Edge",
    "Android WebView": "Chrome Mobile WebView",
}
"""Brands that the table of user agents calls otherwise."""
_ON_MOBILES = {"Chrome": "Chrome Mobile", "Edge": "Edge Mobile", "Opera": "Opera Mobile"}
_HIDES_OTHERS = frozenset({"Chrome", "Chrome Mobile"})
"""Browsers that others say they are."""
_SYSTEMS = {"macOS": "Mac OS X", "Chromium OS": "Chrome OS", "Unknown": ""}
"""Systems that the table of user agents calls otherwise."""


class _Hints(NamedTuple):
    """What a browser says of itself beside its user agent."""

    brand: str = ""
    mobile: bool = False
    system: str = ""


class _Agent(NamedTuple):
    device: str | None = None
    browser: str | None = None
    os: str | None = None


def technology_in(context: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What a context says of "device", "browser", "os" and "platform", as pairs; without what it does not say."""
    agent = _text(context.get("userAgent"))
    system = _text(_inside(context, "os", "name"))
    device_type = _text(_inside(context, "device", "type")).lower()
    on_ipad = system.lower() == "ipados" or _text(_inside(context, "device", "model")).lower().startswith("ipad")
    hints = _hints_in(context.get("userAgentData"))
    if not (agent or system or device_type or hints):
        return ()
    return _technology(agent, device_type, on_ipad, system, hints or _Hints())


def _hints_in(said: Any) -> _Hints | None:
    if not isinstance(said, dict):
        return None
    listed = said.get("brands")
    entries = listed[:_MOST_BRANDS] if isinstance(listed, list) else []
    names = {_text(entry.get("brand")) for entry in entries if isinstance(entry, dict)}
    brands = sorted(name for name in names if name and _GREASE.search(name) is None)
    # Browsers that are made from Chromium name it, and those that are made from Chrome name that, beside themselves.
    own = [name for name in brands if name not in {"Chromium", "Google Chrome"}] or brands[-1:]
    brand = own[0] if own else ""
    system = _text(said.get("platform"))
    return _Hints(_BRANDS.get(brand, brand), said.get("mobile") is True, _SYSTEMS.get(system, system))


@lru_cache(maxsize=10_000)  # looking a user agent up takes about a millisecond
def _technology(text: str, device_type: str, on_ipad: bool, system: str, hints: _Hints) -> tuple[tuple[str, str], ...]:
    agent = _agent(text) if text else _Agent()
    browser = _browser(agent, hints)
    os_name = system or agent.os or hints.system
    # An app's SDK names the type of device or the system, and sends no browser's user agent.
    app = _APPS.get(device_type) or (None if browser else _APPS.get(os_name.lower()))
    if device_type in _DEVICES:
        device: str | None = _DEVICES[device_type]
    elif app:
        device = "tablet" if on_ipad else agent.device if agent.device in {"tablet", "tv"} else "mobile"
    else:
        device = _device(agent, hints)
    found = {
        "device": device,
        "browser": None if app else browser,
        "os": os_name,
        "platform": app or ("web" if browser else None),
    }
    return tuple((name, value) for name, value in found.items() if value)


def _browser(agent: _Agent, hints: _Hints) -> str | None:
    if agent.browser is None or (agent.browser in _HIDES_OTHERS and hints.brand not in {"", "Chrome", "Chromium"}):
        brand = _ON_MOBILES.get(hints.brand, hints.brand) if hints.mobile else hints.brand
        return brand or agent.browser
    return agent.browser


def _device(agent: _Agent, hints: _Hints) -> str | None:
    if agent.device not in {None, "desktop"}:
        return agent.device
    if hints.mobile:
        return "mobile"
    if agent.device is None and hints.system:
        # Chrome says of phones only that they are mobile.
        return "tablet" if hints.system == "Android" else "desktop" if hints.brand else None
    return agent.device


def _agent(text: str) -> _Agent:
    found = parse_agent(text)
    os_name = found.os.family if found.os and found.os.family != "Other" else None
    browser = found.user_agent.family if found.user_agent and found.user_agent.family != "Other" else None
    if not text.startswith(_BROWSERS):
        browser = None
    family = found.device.family if found.device else ""
    brand = (found.device.brand or "") if found.device else ""
    return _Agent(_kind_of_device(text, family, brand, os_name, browser), browser, os_name)


def _kind_of_device(text: str, family: str, brand: str, os_name: str | None, browser: str | None) -> str | None:
    if family == "Spider" or is_crawler(text):
        return "bot"
    if _TV.search(text) or (os_name == "Tizen" and "Mobile" not in text):
        return "tv"
    if family == "iPad" or "Tablet" in brand or "Kindle" in family:
        return "tablet"
    if "Tablet" in text and os_name != "Windows":  # where it means that a pen can be used
        return "tablet"
    if os_name == "Android":
        # Chrome on Android says "Mobile" on phones only: https://developer.chrome.com/docs/multidevice/user-agent
        return "mobile" if "Mobile" in text or "Dalvik" in text else "tablet"
    if (
        os_name == "iOS" and "Macintosh" in text
    ):  # other browsers than Safari on an iPad, when they ask for desktop pages
        return "tablet"
    if os_name == "iOS" or "Mobile" in text:
        return "mobile"
    return "desktop" if os_name and browser else None


def _text(value: Any) -> str:
    return value.strip()[:_MOST] if isinstance(value, str) else ""


def _inside(context: Mapping[str, Any], part: str, key: str) -> Any:
    value = context.get(part)
    return value.get(key) if isinstance(value, dict) else None
