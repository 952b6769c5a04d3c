"""Consent, from a call of the HTTP API to what destinations get: filtered, on a list, and off it again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from headrace.demo.sandbox import ACCESS_TOKEN, SandboxVendor
from tests.support.up import Up

CONFIGURATION = """
kind: Audience
id: consent-buyers
display_name: Bought
active: true
definition: {kind: dynamic, where: {event: Consent bought, within: 7d}}
---
kind: Destination
id: consent-hook
display_name: Webhook
connector: webhook
settings: {url: "${SANDBOX_URL}/hook"}
required_consents: [ad_user_data]
---
kind: Destination
id: consent-list
display_name: List
connector: meta-audience
settings: {base_url: "${SANDBOX_URL}", audience_id: "99", access_token: "${SANDBOX_TOKEN}"}
required_consents: [ad_user_data]
---
kind: Sync
id: consent-forwarding
display_name: Purchases to the webhook
type: forwarding
destination: consent-hook
event_names: [Consent bought]
---
kind: Sync
id: consent-list
display_name: Buyers on the list
type: list
destination: consent-list
audience: consent-buyers
"""


async def until(check: Callable[[], bool | Awaitable[bool]], what: str, *, every_s: float = 0.1) -> None:
    deadline = time.monotonic() + 60
    while True:
        answer = check()
        if (await answer) if isinstance(answer, Awaitable) else answer:
            return
        assert time.monotonic() < deadline, f"did not happen: {what}"
        await asyncio.sleep(every_s)


async def command(up: Up, *arguments: str, **environment: str) -> Any:
    done = await asyncio.to_thread(up.headrace, *arguments, "--json", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


async def test_consent_decides_what_destinations_get(up: Up) -> None:
    sandbox = SandboxVendor()
    await sandbox.start()
    configuration = up.folder / "consent.yaml"
    configuration.write_text(CONFIGURATION)
    await command(up, "apply", "-f", str(configuration), SANDBOX_URL=sandbox.url, SANDBOX_TOKEN=ACCESS_TOKEN)
    serial = uuid.uuid4().hex

    def message(kind: str, name: str, person: str, **more: Any) -> dict[str, Any]:
        return {"type": kind, "event": name, "userId": f"{person}-{serial}", "messageId": uuid.uuid4().hex, **more}

    async def send(*messages: dict[str, Any]) -> None:
        url, key = f"{up.ready['ingest_http']}/v1/batch", {"X-Write-Key": up.ready["write_key"]}
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, json={"batch": messages}, headers=key) as answer,
        ):
            assert (answer.status, await answer.json()) == (200, {"success": True})

    def on_list(person: str) -> bool:
        row = hashlib.sha256(f"{person}.{serial}@example.com".encode()).hexdigest()
        return any(("EMAIL", row) in held for held in sandbox.lists.get("99", set()))

    async def ledger(sync: str) -> Any:
        return await command(up, "syncs", "ledger", sync)

    try:
        people = ("willing", "silent")
        await send(*(message("identify", "", p, traits={"email": f"{p}.{serial}@example.com"}) for p in people))
        await send(message("track", "Track Consent", "willing", properties={"adUserData": "granted"}))
        bought = [message("track", "Consent bought", person) for person in people]
        await send(*bought)
        await until(lambda: bought[0]["messageId"] in sandbox.webhook_ids, "the webhook has the allowed purchase")
        await until(lambda: on_list("willing"), "who allowed it is on the list")

        async def accounted() -> bool:
            found = [await ledger(sync) for sync in ("consent-forwarding", "consent-list")]
            return all(
                int(one.get("unaccounted", 0)) == 0 and int(one["filtered"].get("consent:ad_user_data", 0)) == 1
                for one in found
            )

        await until(accounted, "who said nothing is accounted for, with the reason", every_s=1.0)
        assert bought[1]["messageId"] not in sandbox.webhook_ids
        assert not on_list("silent")
        await send(message("page", "", "willing", context={"consent": {"ad_user_data": False}}))
        await until(lambda: not on_list("willing"), "who withdrew is taken off the list")
        await send(message("identify", "", "silent", traits={"consent": {"ad_user_data": "granted"}}))
        await until(lambda: on_list("silent"), "who allows it now is on the list")
    finally:
        await sandbox.stop()
        for sync in ("consent-forwarding", "consent-list"):
            await command(up, "syncs", "delete", sync)
