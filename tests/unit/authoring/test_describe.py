"""A connector's page says what its manifest declares."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import entry_points

import pytest
from pydantic import BaseModel, Field, SecretStr

from headrace.authoring.describe import document, page
from headrace.connector import wire
from headrace_sdk import Bearer, Capability, LimitScope, Manifest, RateLimit, StandardEvent
from headrace_sdk import Field as Value


class Settings(BaseModel):
    token: SecretStr = Field(title="API token", description="Made in Acme.")
    other: SecretStr | None = Field(SecretStr("never-shown"), title="Other")
    region: str = Field("eu", title="Region", description="eu | us.")


MANIFEST = Manifest(
    name="acme",
    title="Acme",
    description="Sends events to Acme.",
    factory="acme:Acme",
    settings=Settings,
    capabilities=frozenset({Capability.FORWARDING, Capability.DELETION}),
    fields=(
        Value(name="email", title="E-mail", required=True, hashed=True, default="profile.identifiers.email[0]"),
        Value(name="phone", title="Phone", normalised="digits"),
    ),
    any_of=(("email", "phone"),),
    events=(StandardEvent(name="Purchase", names=("Order Completed",), requires=("email",)),),
    limits=(
        RateLimit(count=10, per_s=2.0),
        RateLimit(count=7, per_s=1.0, scope=LimitScope.CONNECTOR),
        RateLimit(count=9, per_s=60.0, scope=LimitScope.SETTING, setting="region"),
    ),
    minimum_list_size=1_000,
    not_deleted="Its logs.",
    auth=Bearer(setting="token"),
)


def test_the_page_has_everything_that_is_declared() -> None:
    text = page(dataclasses.replace(wire.describe(MANIFEST), plugin="acme-plugin", version="1.2"))
    assert text.startswith(
        "# Acme\n\nSends events to Acme.\n\nConnector `acme` of acme-plugin 1.2, plugin API 1.0. It\n"
    )
    for line in (
        "- takes events as they happen.",
        "| `token` | required | API token. Made in Acme, a secret |",
        "| `other` |  | Other, a secret |",
        '| `region` | `"eu"` | Region. eu \\| us |',
        "| `email` | E-mail. Required | SHA-256 | `profile.identifiers.email[0]` |",
        "| `phone` | Phone | digits |  |",
        "An item needs one of `email`, `phone`.",
        "| `Purchase` | Order Completed | `email` |",
        "- 10 requests in 2 s.",
        "- 7 requests in 1 s, of all destinations together.",
        "- 9 requests in 60 s, of the destinations with the same `region` together.",
        "- The vendor uses lists from 1,000 members on.",
        "- Of a person who is to be forgotten the vendor keeps: Its logs.",
    ):
        assert line in text.splitlines(), line
    assert "never-shown" not in text


@pytest.mark.parametrize("point", entry_points(group="headrace.plugins"), ids=lambda point: str(point.name))
def test_every_installed_connector_has_a_page(point: object) -> None:
    for manifest in point.load().headrace_connectors():  # type: ignore[attr-defined]  # an entry point
        info = wire.describe(manifest)
        assert f"# {manifest.title}\n" in page(info)
        assert json.loads(json.dumps(document(info)))["settings_schema"] == manifest.settings.model_json_schema()
