"""Manifests: what is refused when one is made."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from headrace_sdk import (
    ApiVersions,
    Basic,
    BatchPolicy,
    Bearer,
    Capability,
    Field,
    LimitScope,
    Manifest,
    OAuth2,
    RateLimit,
    StandardEvent,
)


class Settings(BaseModel):
    token: SecretStr
    region: str = "eu"


def manifest(**more: Any) -> Manifest:
    values: dict[str, Any] = {
        "name": "acme",
        "title": "Acme",
        "factory": "acme.destination:Acme",
        "settings": Settings,
        "capabilities": frozenset({Capability.FORWARDING}),
    }
    return Manifest(**{**values, **more})


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"name": "Acme"}, "name must be"),
        ({"name": ""}, "name must be"),
        ({"name": "a" * 64}, "name must be"),
        ({"kind": "source"}, "kind 'source' is not known"),
        ({"api": "2.0"}, "written for plugin API 2.0"),
        ({"factory": "acme.destination"}, "factory must be"),
        ({"factory": "acme destination:Acme"}, "factory must be"),
        ({"settings": dict}, "settings must be a pydantic model"),
        ({"capabilities": frozenset()}, "capabilities must name at least one"),
        ({"fields": (Field(name="email", title="E"), Field(name="email", title="E"))}, "a field is declared twice"),
        ({"fields": (Field(name="E-mail", title="E"),)}, "field name 'E-mail'"),
        ({"batch": BatchPolicy(max_items=0)}, "must be positive"),
        ({"concurrency": 0}, "must be positive"),
        ({"timeout_s": 0}, "must be positive"),
        ({"limits": (RateLimit(count=0, per_s=1.0),)}, "limits must be positive"),
        ({"limits": (RateLimit(count=1, per_s=1.0, scope=LimitScope.SETTING),)}, "a limit names a setting if"),
        ({"limits": (RateLimit(count=1, per_s=1.0, setting="region"),)}, "a limit names a setting if"),
        (
            {"limits": (RateLimit(count=1, per_s=1.0, scope=LimitScope.SETTING, setting="account"),)},
            "limits names the setting 'account', which the settings do not have",
        ),
        ({"any_of": (("email",),)}, "any_of names the field 'email', which is not declared"),
        ({"removal_keys": (("email",),)}, "removal_keys names the field 'email'"),
        ({"events": (StandardEvent(name="Buy", requires=("value",)),)}, "event 'Buy' names the field 'value'"),
        (
            {"events": (StandardEvent(name="Buy", names=("Bought",)), StandardEvent(name="Pay", names=("Bought",)))},
            "'Bought' stands for several events",
        ),
        ({"auth": Bearer(setting="key")}, "auth names the setting 'key', which the settings do not have"),
        ({"auth": Basic(username="token", password="key")}, "auth names the setting 'key'"),
        (
            {"auth": OAuth2(token_url="setting:url", client_id="token", client_secret="token")},
            "auth names the setting 'url'",
        ),
        ({"versions": ApiVersions(setting="version", ends={})}, "versions names the setting 'version'"),
        ({"versions": ApiVersions(setting="token", ends={"v1": "soon"})}, "end of version 'v1' must be a day"),
    ],
)
def test_a_bad_manifest_is_refused_with_the_reason(more: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        manifest(**more)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ValueError, match=r"name must be.*; capabilities must"):
        manifest(name="", capabilities=frozenset())


def test_a_later_minor_version_is_taken() -> None:
    assert manifest(api="1.7").api == "1.7"
