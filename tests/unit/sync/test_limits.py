"""Who shares a rate limit."""

from __future__ import annotations

from typing import Any

import pytest
from headrace_sync.config import key_of
from headrace_sync.outlets.rates import limits_of
from pydantic import BaseModel

from headrace.connector import wire
from headrace_sdk import Capability, LimitScope, Manifest, RateLimit


class Settings(BaseModel):
    account: str = ""
    region: str = "eu"


def key(workspace: str, destination: str, settings: dict[str, Any], scope: LimitScope, setting: str = "") -> str:
    """The row of a limit of which a destination takes its places."""
    manifest = Manifest(
        name="acme",
        title="Acme",
        factory="acme:Acme",
        settings=Settings,
        capabilities=frozenset({Capability.FORWARDING}),
        limits=(RateLimit(count=10, per_s=1.0, scope=scope, setting=setting),),
    )
    (limit,) = limits_of(wire.describe(manifest), key_of(workspace, destination), settings)
    assert (limit.count, limit.per_s) == (10, 1.0)
    return limit.key


def test_destinations_have_limits_of_their_own_and_connectors_one() -> None:
    assert key("w", "a", {}, LimitScope.DESTINATION) != key("w", "b", {}, LimitScope.DESTINATION)
    assert key("w", "a", {}, LimitScope.CONNECTOR) == key("v", "b", {}, LimitScope.CONNECTOR)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (("w", "a", {"account": "1"}), ("w", "b", {"account": "1"}), True),
        (("w", "a", {"account": "1"}), ("w", "b", {"account": "2"}), False),
        # Nobody slows the destinations of another workspace by naming their account.
        (("w", "a", {"account": "1"}), ("v", "b", {"account": "1"}), False),
        # Without an account each has the budget for itself.
        (("w", "a", {"account": ""}), ("w", "b", {}), False),
        (("w", "a", {}), ("w", "a", {"account": ""}), True),
    ],
)
def test_limits_may_go_by_a_setting(first: Any, second: Any, shared: bool) -> None:
    found = [
        key(workspace, destination, settings, LimitScope.SETTING, "account")
        for workspace, destination, settings in (first, second)
    ]
    assert (found[0] == found[1]) is shared


def test_a_setting_that_is_not_given_has_its_default_and_is_not_shown() -> None:
    given = key("w", "a", {"region": "eu"}, LimitScope.SETTING, "region")
    assert given == key("w", "b", {}, LimitScope.SETTING, "region")
    assert "s3cret" not in key("w", "a", {"account": "s3cret"}, LimitScope.SETTING, "account")
