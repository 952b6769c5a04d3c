"""Dry runs through the plugin host: exact requests as golden files, secrets masked, bad input refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from headrace.plugins import MASK, PluginConfigError, PluginError, PluginHost
from headrace.plugins.mapping import MappingError
from headrace.plugins.offline import InputError
from headrace.plugins.render import normalise, normalise_lines, render
from tests.support.golden import check_golden

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW_US = 1_796_000_000_000_000  # 29 November 2026
META = {"audience_id": "1234567890", "access_token": "meta-access-token", "app_secret": "meta-app-secret"}
HOOK = {
    "url": "https://hooks.example/in",
    "signing_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "secret_headers": {"Authorization": "Bearer hook-secret-token"},
}
MEMBERS = [
    {
        "id": "ada",
        "identifiers": {"email": ["ada@example.com", "ada@work.example"], "phone": ["+491711234567"]},
        "traits": {"first_name": "Ada", "last_name": "de la Cruz", "country": "US", "state": "California"},
    },
    {"id": "bob", "identifiers": {"email": "bob@example.com"}, "action": "remove"},
    {"id": "eve", "identifiers": {"email": "not an address"}},
    {"id": "sum", "fields": {"user_id": "u-1", "date_of_birth": "1990-02-03"}},
]
EVENTS = [
    {
        "type": "track", "event": "Purchased", "messageId": "m-1", "userId": "u-1", "anonymousId": "a-1",
        "timestamp": "2026-11-29T08:00:00.5Z", "receivedAt": "2026-11-29T08:00:01Z",
        "properties": {"total": 19.9, "currency": "EUR"}, "context": {"ip": "203.0.113.7"},
    },
    {"type": "identify", "messageId": "m-2", "userId": "u-2", "traits": {"email": "x@example.com", "plan": "pro"}},
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["webhook", "meta-audience"])
    await running.start()
    yield running
    await running.close()


def lines(values: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(value) for value in values]


async def test_meta_members(host: PluginHost) -> None:
    rendering = await render(host, connector="meta-audience", settings=META, now_us=NOW_US, members=lines(MEMBERS))
    document = rendering.document()
    text = json.dumps(document)
    for hidden in (META["access_token"], META["app_secret"], "ada@", "Cruz", "491711234567"):
        assert hidden not in text
    assert [request["message_ids"] for request in document["requests"]] == [["bob"], ["ada", "sum"]]
    assert document["skipped"] == [{"message_id": "eve", "reason": "email is no e-mail address"}]
    check_golden("plugins/meta_audience_members", document)


async def test_meta_with_a_mapping_of_its_own(host: PluginHost) -> None:
    mapping = {"email": None, "phone": "profile.traits.tel", "city": "split(profile.traits.home, ',') | [0]"}
    members = lines([{"id": "a", "traits": {"tel": "+1 650 555 1212", "home": "Palo Alto, CA"}}])
    rendering = await render(
        host, connector="headrace-destination-meta-audience", settings={**META, "api_version": "v25.0"},
        now_us=1_800_000_000_000_000, mapping=mapping, members=members,
    )  # fmt: skip
    payload = json.loads(rendering.requests[0]["body"])["payload"]
    row = dict(zip(payload["schema"], payload["data"][0], strict=True))
    assert {key: cell for key, cell in row.items() if cell} == {
        "PHONE": hashlib.sha256(b"16505551212").hexdigest(),
        "CT": hashlib.sha256(b"paloalto").hexdigest(),
    }
    reason = "Meta Custom Audiences: the vendor stops answering version v25.0 on 2027-02-23: set a newer api_version"
    assert rendering.warnings == [{"message_id": "", "reason": reason}]


async def test_webhook_events(host: PluginHost) -> None:
    rendering = await render(host, connector="webhook", settings=HOOK, now_us=NOW_US, events=lines(EVENTS))
    document = rendering.document()
    for request in document["requests"]:
        assert request["headers"]["Authorization"] == MASK
    assert "hook-secret-token" not in json.dumps(document)
    check_golden("plugins/webhook_events", document)


async def test_webhook_batches_and_templates(host: PluginHost) -> None:
    settings = {
        **HOOK,
        "batch_size": 2,
        "body": {
            "id": "${event.message_id}",
            "text": "${event.name}: ${event.properties.total || '-'}",
            "p": "${profile}",
        },
    }
    rendering = await render(host, connector="webhook", settings=settings, now_us=NOW_US, events=lines(EVENTS))
    check_golden("plugins/webhook_template", rendering.document())


async def test_a_dry_run_is_the_same_every_time(host: PluginHost) -> None:
    runs = [
        (await render(host, connector="meta-audience", settings=META, now_us=NOW_US, members=lines(MEMBERS))).document()
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


async def test_a_batch_whose_request_is_too_large_is_halved(host: PluginHost) -> None:
    events = lines([{"type": "page", "messageId": f"m{n}", "properties": {"x": "y" * 150_000}} for n in range(10)])
    settings = {**HOOK, "batch_size": 10}
    rendering = await render(host, connector="webhook", settings=settings, now_us=NOW_US, events=events)
    assert [len(request["message_ids"]) for request in rendering.requests] == [5, 5]


async def test_what_cannot_be_rendered_is_said(host: PluginHost) -> None:
    with pytest.raises(PluginError, match="no plugin offers the connector 'acme'; there are: meta-audience, webhook"):
        await render(host, connector="acme", settings={}, now_us=0, events=[])
    with pytest.raises(PluginConfigError, match="audience_id"):
        await render(host, connector="meta-audience", settings={**META, "audience_id": "x"}, now_us=0, members=[])
    with pytest.raises(MappingError, match="shoe_size"):
        await render(host, connector="meta-audience", settings=META, now_us=0, mapping={"shoe_size": "x"}, members=[])
    with pytest.raises(InputError, match="line 1: is no JSON"):
        await render(host, connector="webhook", settings=HOOK, now_us=0, events=["{"])
    with pytest.raises(ValueError, match="takes members, no events"):
        await render(host, connector="meta-audience", settings=META, now_us=0, events=[])
    with pytest.raises(ValueError, match="takes events, no members"):
        await render(host, connector="webhook", settings=HOOK, now_us=0, members=[])
    with pytest.raises(ValueError, match="give either"):
        await render(host, connector="webhook", settings=HOOK, now_us=0)


async def test_nothing_in_gives_nothing_out(host: PluginHost) -> None:
    rendering = await render(host, connector="webhook", settings=HOOK, now_us=0, events=["", "  "])
    assert rendering.document() == {"requests": [], "skipped": [], "warnings": []}


async def test_values_are_normalised_one_by_one_and_in_files(host: PluginHost) -> None:
    digest = hashlib.sha256(b"a@b.de").hexdigest()
    assert await normalise(host, "meta-audience", "email", " A@B.de") == {
        "normalised": "a@b.de", "sent": digest, "rejected": None,
    }  # fmt: skip
    assert await normalise(host, "headrace-destination-meta-audience", "email", "x") == {
        "normalised": None, "sent": None, "rejected": "is no e-mail address",
    }  # fmt: skip
    answers = await normalise_lines(
        host,
        [
            '{"plugin": "meta-audience", "field": "email", "value": "a@b.de"}',
            '{"plugin": "webhook", "field": "any", "value": 7}',
            '{"plugin": "acme", "field": "any", "value": "x"}',
            '{"plugin": "meta-audience", "field": "email", "value": null}',
            '{"plugin": "meta-audience", "field": "gender", "value": "female"}',
        ],
    )
    assert [answer["normalised"] for answer in answers] == ["a@b.de", "7", None, None, "f"]
    assert answers[2]["rejected"] == "no plugin offers the connector 'acme'; there are: meta-audience, webhook"
    assert answers[3]["rejected"] == "plugin, field and value must be texts"
    with pytest.raises(InputError, match="line 1"):
        await normalise_lines(host, ["["])


async def test_events_are_shown_as_of_when_they_came(host: PluginHost) -> None:
    """Vendors refuse old events; a dry run of recorded ones shows what was sent at the time."""
    days = ("2025-01-01T10:00:00Z", "2025-01-01T10:30:00Z", "2026-06-01T00:00:00Z", "2025-01-01T10:00:00Z")
    events = lines([{"event": "Purchased", "messageId": f"m-{at}", "timestamp": day} for at, day in enumerate(days)])
    rendering = await render(
        host,
        connector="webhook",
        settings={**HOOK, "batch_size": 10},
        now_us=NOW_US,
        events=events,
        as_they_came=True,
    )
    assert [request["message_ids"] for request in rendering.requests] == [["m-0", "m-1"], ["m-2"], ["m-3"]]
    assert "2025-01-01T10:00:00" in str(rendering.requests[0]["body"])
