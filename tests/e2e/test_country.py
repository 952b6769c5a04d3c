"""An audience of a country holds for people of whom only an IP address says it, and the address is shown nowhere."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.support.otlp import Collector
from tests.support.up import Up

CONFIGURATION = """
kind: Source
id: country-site
display_name: Site
type: website
---
kind: Audience
id: country-first
display_name: First seen in Germany
active: true
definition: {where: {all: [{event: Country asked}, {first_touch: country, eq: DE}]}}
---
kind: Audience
id: country-last
display_name: Last seen in France
active: true
definition: {where: {all: [{event: Country asked}, {last_touch: country, eq: FR}]}}
"""

GERMAN, FRENCH = "203.0.113.77", "2001:db8:1::4711"


async def command(up: Up, *arguments: str) -> Any:
    done = await asyncio.to_thread(up.headrace, *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


async def until(check: Callable[[], Awaitable[bool]], what: str, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not await check():
        assert time.monotonic() < deadline, f"did not happen: {what}"
        await asyncio.sleep(0.2)


@pytest.mark.long
async def test_an_audience_of_a_country_known_by_address_alone(up: Up, collector: Collector) -> None:
    configuration = up.folder / "country.yaml"
    configuration.write_text(CONFIGURATION)
    await command(up, "apply", "-f", str(configuration))
    site_key = (await command(up, "sources", "get", "country-site"))["write_key"]
    serial = uuid.uuid4().hex

    def message(person: str, **context: Any) -> dict[str, Any]:
        who = {"userId": f"{person}-{serial}", "messageId": uuid.uuid4().hex}
        return {"type": "track", "event": "Country asked", "context": context, **who}

    async def send(key: str, *messages: dict[str, Any], **headers: str) -> None:
        url = f"{up.ready['ingest_http']}/v1/batch"
        sent = {"X-Write-Key": key, **headers}
        async with aiohttp.ClientSession() as http, http.post(url, json={"batch": messages}, headers=sent) as answer:
            assert (answer.status, await answer.json()) == (200, {"success": True})

    key = up.ready["write_key"]
    await send(key, message("traveller", ip=GERMAN), message("private", ip="192.168.1.1"))
    await send(key, message("traveller", ip=FRENCH), message("visitor", ip=f"{FRENCH}%eth0"))
    await send(site_key, message("browser"), **{"X-Forwarded-For": GERMAN})

    async def lookup(person: str) -> str | None:
        done = await asyncio.to_thread(up.headrace, "profiles", "lookup", "user_id", f"{person}-{serial}", "--json")
        return str(json.loads(done.stdout)["name"]).rpartition("/")[2] if done.returncode == 0 else None

    people = ("traveller", "private", "visitor", "browser")
    profiles: dict[str, str] = {}

    async def known() -> bool:
        profiles.update({found: person for person in people if (found := await lookup(person))})
        return len(profiles) == len(people)

    async def hold() -> bool:
        listed = [await command(up, "audiences", "members", a, "--all") for a in ("country-first", "country-last")]
        members = [{profiles.get(member["profile_id"], "somebody else") for member in one} for one in listed]
        return members == [{"traveller", "browser"}, {"traveller", "visitor"}]

    await until(known, "all events are resolved")
    await until(hold, "the audiences have who they should have")
    for audience in ("country-first", "country-last"):
        assert (await command(up, "audiences", "verify", audience))["mismatched_profile_ids"] == []
    _shown_nowhere(up, collector)


def _shown_nowhere(up: Up, collector: Collector) -> None:
    shown = {"spans": json.dumps([[s.name, s.attributes] for s in collector.spans()])}
    for path in (up.folder / "data" / "logs").glob("*.log"):
        if path.stem not in {"mongod", "redis", "redis-server"}:
            shown[path.name] = path.read_text(errors="replace")
    assert len(shown) > 5
    for place, text in shown.items():
        assert GERMAN not in text and FRENCH not in text, f"{place} shows an address"
