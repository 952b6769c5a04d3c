"""Manifests as data: whole on the other side of the line, and readable when a plugin sets only what it must."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from headrace.api.connector.v1 import manifest_pb2
from headrace.connector import conversion, wire
from headrace_sdk import (
    ApiKey,
    ApiVersions,
    Auth,
    AwsSignature,
    Basic,
    BatchPolicy,
    Bearer,
    Capability,
    Encoding,
    Field,
    FieldType,
    Grant,
    Idempotency,
    LimitScope,
    Manifest,
    OAuth2,
    RateLimit,
    RetryPolicy,
    ServiceAccount,
    Signed,
    Sources,
    StandardEvent,
)


class Settings(BaseModel):
    token: SecretStr
    region: str = "eu"


FIELDS = (
    Field(
        name="email", title="E-mail", description="d", required=True, hashed=True, many=True, default="p",
        type=FieldType.LIST, normalised="n", example="e", anonymous=True,
    ),
    Field(name="zip", title="Z"),
)  # fmt: skip
EVERYTHING = Manifest(
    name="acme",
    title="Acme",
    description="Sends.",
    factory="acme.destination:Acme",
    settings=Settings,
    capabilities=frozenset({Capability.FORWARDING, Capability.CHECK, Capability.LIST_SYNC}),
    fields=FIELDS,
    batch=BatchPolicy(max_items=7, max_bytes=8, max_wait_s=0.0),
    limits=(
        RateLimit(count=5, per_s=1.5, scope=LimitScope.CONNECTOR),
        RateLimit(count=1, per_s=2.0, scope=LimitScope.SETTING, setting="region"),
    ),
    concurrency=3,
    retry=RetryPolicy(max_age_s=0.0, base_s=1.0, cap_s=2.0),
    timeout_s=5.0,
    idempotency=Idempotency.NONE,
    rows_match_people=True,
    auth=Bearer(setting="token"),
    versions=ApiVersions(setting="region", ends={"v1": "2027-01-01"}),
    any_of=(("email",), ("email", "zip")),
    events=(StandardEvent(name="Purchase", names=("Order Completed",), requires=("email",)),),
    sources=Sources.OFFLINE,
    removes=False,
    removal_keys=(("zip",),),
    minimum_list_size=1000,
    not_deleted="Orders.",
    schemes=("acme+tcp",),
    list_setting="region",
)
LEAST = Manifest(
    name="least",
    title="Least",
    factory="least:Least",
    settings=Settings,
    capabilities=frozenset({Capability.DELETION}),
)


def there_and_back(info: wire.ConnectorInfo) -> wire.ConnectorInfo:
    message = conversion.info_message(info)
    return conversion.info_of(manifest_pb2.Manifest.FromString(message.SerializeToString()))


@pytest.mark.parametrize("manifest", [EVERYTHING, LEAST])
def test_all_of_a_manifest_arrives(manifest: Manifest) -> None:
    described = wire.describe(manifest)
    assert there_and_back(described) == described
    for field in dataclasses.fields(manifest):
        if field.name not in ("factory", "settings"):
            assert getattr(described, field.name) == getattr(manifest, field.name)


def test_the_example_above_leaves_nothing_at_its_default() -> None:
    """So that a field which is added to the manifest, but forgotten in the protos, is found."""
    given: dict[str, Any] = {
        "manifest": EVERYTHING,
        "field": FIELDS[0],
        "batch": EVERYTHING.batch,
        "limit": EVERYTHING.limits[1],
    }
    for name, value in given.items():
        for field in dataclasses.fields(value):
            if field.default is not dataclasses.MISSING and field.name not in ("kind", "api"):
                assert getattr(value, field.name) != field.default, f"{name}: {field.name}"


@pytest.mark.parametrize(
    "auth",
    [
        ApiKey(setting="s", header="h", query="q", prefix="p "),
        ApiKey(setting=""),
        Bearer(setting="s"),
        Basic(username="u", password="p"),
        OAuth2(
            token_url="u", client_id="i", client_secret="s", refresh_token="r", grant=Grant.CLIENT_CREDENTIALS,
            scopes=("a", "b"), basic=True,
        ),
        OAuth2(token_url="u", client_id="i", client_secret="s"),
        ServiceAccount(setting="s", scopes=("a",), subject="b"),
        ServiceAccount(setting="s", scopes=()),
        Signed(secret="s", header="h", prefix="p", timestamp_header="t", encoding=Encoding.BASE64),
        AwsSignature(access_key="a", secret_key="s", region="r", service="s3", session_token="t"),
    ],
)  # fmt: skip
def test_every_scheme_of_authentication_arrives(auth: Auth) -> None:
    info = dataclasses.replace(wire.describe(LEAST), auth=auth)
    assert there_and_back(info).auth == auth


def test_secrets_are_marked() -> None:
    schema: Any = there_and_back(wire.describe(LEAST)).settings_schema
    assert schema["properties"]["token"]["writeOnly"] is True


def test_a_plugin_that_says_the_least_gets_the_defaults() -> None:
    said = manifest_pb2.Manifest(
        name="least", title="Least", api="1.0", capabilities=["deletion"], settings_schema_json=b"{}"
    )
    expected = dataclasses.replace(wire.describe(LEAST), settings_schema={})
    assert conversion.info_of(said) == expected


@pytest.mark.parametrize(
    "part",
    [
        {"settings_schema_json": b"[]"},
        {"settings_schema_json": b""},
        {"idempotency": "sometimes"},
        {"sources": "all"},
        {"fields": [manifest_pb2.Field(name="a", title="A", type="date")]},
        {"limits": [manifest_pb2.RateLimit(count=1, per_s=1.0, scope="planet")]},
    ],
)
def test_what_is_no_manifest_is_refused(part: dict[str, Any]) -> None:
    said = manifest_pb2.Manifest(name="least", title="Least", api="1.0", settings_schema_json=b"{}")
    for name, value in part.items():
        if isinstance(value, list):
            getattr(said, name).extend(value)
        else:
            setattr(said, name, value)
    with pytest.raises(ValueError):
        conversion.info_of(said)


@pytest.mark.parametrize(("fields", "missing"), [({}, "email"), ({"email": ""}, "email"), ({"email": []}, "email")])
def test_missing_required_fields_are_named(fields: dict[str, Any], missing: str) -> None:
    info = wire.describe(EVERYTHING)
    assert info.missing(fields) == missing
    assert info.missing({"email": "a"}) == ""
