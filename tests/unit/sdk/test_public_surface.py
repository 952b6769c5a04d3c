"""The SDK's public surface, pinned. That the reference shows it as it is, `scripts/gen_docs.py --check` sees to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import headrace_sdk
from headrace.plugins.functions import function_help
from headrace_sdk.deprecation import DEPRECATED, Deprecated, lookup

DOCS = Path(__file__).parents[3] / "docs"
NAMES = [
    "API_VERSION", "ENTRY_POINT_GROUP", "ApiKey", "ApiVersions", "Auth", "AuthError", "AwsSignature", "Basic",
    "BatchPolicy", "Bearer", "Built", "Capability", "Check", "ConfigError", "ConnectorError", "DeleteBatch",
    "Delivered", "Destination", "Encoding", "EventBatch", "EventItem", "Field", "FieldType", "Grant", "Idempotency",
    "Job", "LimitScope", "Lists", "Manifest", "Member", "MemberBatch", "Normalised", "Note", "OAuth2", "Outcome",
    "Outcomes", "Pending", "Profile", "RateLimit", "RateLimited", "RecordRejected", "Rejected", "Request", "Response",
    "Retry", "RetryPolicy", "Row", "ServiceAccount", "Signed", "Skip", "Sources", "StandardEvent", "Subject",
    "TransientError", "VendorList", "Warned", "digest_key", "hookimpl", "iso_time",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    """A name added here is a minor version of the plugin API, a name removed a major one."""
    assert headrace_sdk.__all__ == NAMES
    assert all(hasattr(headrace_sdk, name) for name in NAMES)


def test_a_name_that_is_none_is_missed() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nowhere'"):
        headrace_sdk.Nowhere  # type: ignore[attr-defined]  # what the test is about  # noqa: B018


def test_a_deprecated_name_works_and_says_what_to_use_instead() -> None:
    gone = {"Retried": Deprecated(value="headrace_sdk.requests:Retry", instead="Retry", since="1.1", removed_in="2.0")}
    with pytest.warns(DeprecationWarning, match=r"headrace_sdk\.Retried goes with plugin API 2\.0: use Retry"):
        assert lookup("Retried", gone) is headrace_sdk.Retry


def test_deprecated_names_are_no_longer_exported_and_stand_for_something() -> None:
    assert not set(DEPRECATED) & set(NAMES)
    for name in DEPRECATED:
        with pytest.warns(DeprecationWarning):
            assert lookup(name) is not None


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
