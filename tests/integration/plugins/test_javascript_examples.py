"""The examples of the custom JavaScript destination's README, with the samples below them; its golden requests."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from headrace_destination_javascript import destination

from headrace.plugins import PluginHost
from headrace.plugins.errors import PluginConfigError, PluginError, PluginErrorKind
from headrace.plugins.render import render
from headrace.plugins.samples import read_samples, try_samples
from tests.support.golden import check_golden

pytestmark = pytest.mark.asyncio(loop_scope="module")

README = Path(destination.__file__).parents[1] / "README.md"
NOW_US = 1_796_000_000_000_000  # 29 November 2026
SECRET = "token-secret-for-tests"  # of no real vendor
SETTINGS = {"settings": {"region": "eu", "user": "ada"}, "secrets": {"token": SECRET}}
EXAMPLE = re.compile(r"^### (.+?)\n\n```js\n(.+?)```\n\n```json\n(.+?)```", re.MULTILINE | re.DOTALL)
ORDER = {
    "type": "track", "event": "Order Completed", "messageId": "order", "timestamp": "2026-11-29T08:00:00.5Z",
    "profile": {"id": "p-1", "identifiers": {"email": ["ada@example.com"]}, "traits": {"last_name": "Byron"}},
    "properties": {"order_id": "T-1001", "revenue": 29.8, "currency": "EUR", "products": [{"sku": "S-1"}]},
}  # fmt: skip


def examples() -> Iterator[Any]:
    for title, script, samples in EXAMPLE.findall(README.read_text(encoding="utf-8")):
        yield pytest.param(script, samples, id=title)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["javascript"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


@pytest.mark.parametrize(("script", "samples"), list(examples()))
async def test_examples(host: PluginHost, script: str, samples: str) -> None:
    tried = await try_samples(
        host, read_samples(samples), connector="javascript", settings={**SETTINGS, "script": script}, now_us=NOW_US
    )
    assert [one.differences for one in tried] == [[]] * len(tried)
    assert all(one.sample.requests is not None or one.sample.skipped is not None for one in tried)


async def test_there_are_a_dozen(host: PluginHost) -> None:
    readme = README.read_text(encoding="utf-8")
    assert len(list(examples())) == readme.count("\n### ") >= 12


@pytest.mark.parametrize(
    ("name", "body", "events"),
    [
        ("required", "return {url: 'https://a.example/x'}", [{"event": "A", "userId": "u", "messageId": "m"}]),
        (
            "all",
            "return {method: 'PATCH', url: 'https://a.example/x?' + headrace.formEncode({k: settings.token}), headers:"
            " {Authorization: 'Basic ' + headrace.base64('ada:' + settings.token), 'X-Key': settings.token},"
            " body: {event, profile, now: new Date(), chance: Math.random(), token: settings.token}}",
            [ORDER],
        ),
        (
            "several",
            "if (event.type !== 'track') return null; return event.properties.products.map((product) =>"
            " ({url: 'https://a.example/' + product.sku, body: `sold ${product.sku}`}))",
            [ORDER, {"type": "page", "name": "Home", "messageId": "p", "userId": "u"},
             {"event": "Order Completed", "messageId": "none", "userId": "u"},
             {**ORDER, "messageId": "two", "properties": {"products": [{"sku": "A"}, {"sku": "B"}]}}],
        ),
    ],
)  # fmt: skip
async def test_golden_requests(host: PluginHost, name: str, body: str, events: list[dict[str, Any]]) -> None:
    settings = {**SETTINGS, "script": f"function send(event, profile, settings) {{ {body}; }}"}
    lines = [json.dumps(event) for event in events]
    found = await render(host, connector="javascript", settings=settings, now_us=NOW_US, events=lines)
    document = found.document()
    assert SECRET not in json.dumps(document)
    check_golden(f"plugins/javascript_{name}", document)


async def test_secrets_are_masked_in_errors(host: PluginHost) -> None:
    script = "function send(event, profile, settings) { throw new Error('refused ' + settings.token); }"
    found = await render(
        host, connector="javascript", settings={**SETTINGS, "script": script}, now_us=NOW_US, events=[json.dumps(ORDER)]
    )
    (skipped,) = found.skipped
    assert skipped["reason"] == "line 1, column 72: Error: refused ********"
    assert found.failures == ["order"]


async def test_a_script_that_does_not_compile_is_refused_with_its_place(host: PluginHost) -> None:
    with pytest.raises(PluginConfigError, match="line 2, column 10: SyntaxError") as caught:
        await host.open("javascript", {"script": "function send() {\n  let = {;\n}"})
    assert caught.value.field == "script"


async def test_a_loop_of_the_engines_own_ends_the_process_and_nothing_else(host: PluginHost) -> None:
    script = "function send(event) { if (event.name === 'Bomb') Array(2 ** 32 - 1).reverse(); return null; }"
    with pytest.raises(PluginError) as caught:
        await render(host, connector="javascript", settings={"script": script}, now_us=NOW_US,
                     events=[json.dumps({**ORDER, "event": "Bomb"})])  # fmt: skip
    assert caught.value.kind is PluginErrorKind.CRASHED and "SIGVTALRM" in caught.value.reason
    found = await render(
        host, connector="javascript", settings={"script": script}, now_us=NOW_US, events=[json.dumps(ORDER)]
    )
    assert found.skipped == [{"message_id": "order", "reason": "the script leaves it out"}]
