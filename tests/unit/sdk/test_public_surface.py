"""The SDK's public surface: pinned, and documented with its exact signatures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import headrace_sdk
from headrace.plugins.functions import function_help
from tests.support.signatures import public_block

DOCS = Path(__file__).parents[3] / "docs"
NAMES = [
    "API_VERSION", "ENTRY_POINT_GROUP", "AuthError", "BatchPolicy", "Built", "Capability", "ConfigError",
    "ConnectorError", "DeleteBatch", "Delivered", "Destination", "EventBatch", "EventItem", "Field",
    "Idempotency", "LimitScope", "Manifest", "Member", "MemberBatch", "Normalised", "Note", "Outcome", "Outcomes",
    "Profile", "RateLimit", "RateLimited", "RecordRejected", "Rejected", "Request", "Response", "Retry",
    "RetryPolicy", "Row", "Skip", "Subject", "TransientError", "Warned", "digest_key", "hookimpl", "iso_time",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    """A name added here is a minor version of the plugin API, a name removed a major one."""
    assert headrace_sdk.__all__ == NAMES
    assert all(hasattr(headrace_sdk, name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_documented_with_its_signature(name: str) -> None:
    text = (DOCS / "reference" / "sdk.md").read_text()
    section = re.search(rf"^### `{name}`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/reference/sdk.md has no section on {name}"
    block = f"```python\n{public_block(name, getattr(headrace_sdk, name))}\n```"
    assert block in section[1], f"docs/reference/sdk.md: {name} should show\n{block}"
    assert section[1].replace(block, "").strip(), f"docs/reference/sdk.md says nothing about {name}"


def test_the_guide_shows_every_mapping_function() -> None:
    text = (DOCS / "guides" / "connectors.md").read_text()
    for line in function_help().values():
        call, _, what = line.partition(": ")
        assert f"| `{call}` | {what} |" in text


def test_the_example_of_the_guide_works() -> None:
    """The guide's connector is run as it is printed."""
    from headrace_sdk import Delivered, EventBatch, EventItem, Request, Response

    text = (DOCS / "guides" / "connectors.md").read_text()
    code = re.search(r"```python\n(# acme_destination\.py\n.*?)```", text, re.DOTALL)
    assert code is not None
    names: dict[str, object] = {"__name__": "acme_destination"}
    exec(compile(code[1], "guide", "exec", dont_inherit=True), names)  # the documentation's own code
    manifests = names["headrace_connectors"]()  # type: ignore[operator]  # found by name
    assert [manifest.name for manifest in manifests] == ["acme"]
    acme = names["Acme"](names["AcmeSettings"](token="t"))  # type: ignore[operator]  # found by name
    event = EventItem(message_id="m", kind="track", name="Bought", fields={"email": "a@b.de"})
    (request,) = acme.send_events(EventBatch(events=(event,), now_us=0))
    assert isinstance(request, Request) and request.items == (0,)
    assert acme.read(request, Response(status=200)).items == (Delivered(),)
