"""What is said about the version of a vendor's API that a destination has set."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from headrace.connector.wire import ConnectorInfo, describe
from headrace.plugins.versions import VersionRemark, version_remark
from headrace_sdk import ApiVersions, Capability, Manifest


class Settings(BaseModel):
    api_version: str = "v2"


def info(versions: ApiVersions | None) -> ConnectorInfo:
    capabilities = frozenset({Capability.FORWARDING})
    return describe(
        Manifest(
            name="acme", title="Acme", factory="a:B", settings=Settings, capabilities=capabilities, versions=versions
        )
    )


def at(day: str) -> int:
    return int(datetime.fromisoformat(f"{day}T23:59:59").replace(tzinfo=UTC).timestamp()) * 1_000_000


VERSIONS = ApiVersions(setting="api_version", ends={"v1": "2026-06-09", "v2": "2027-02-23"})


@pytest.mark.parametrize(
    ("settings", "day", "said"),
    [
        ({}, "2026-12-24", ""),
        ({}, "2026-12-25", "Acme: the vendor stops answering version v2 on 2027-02-23: set a newer api_version"),
        ({"api_version": "v1"}, "2026-04-09", ""),
        ({"api_version": "v1"}, "2026-06-08", "Acme: the vendor stops answering version v1 on 2026-06-09"),
        ({"api_version": "v1"}, "2026-06-09", "Acme: the vendor stopped answering version v1 on 2026-06-09"),
        ({"api_version": "v3"}, "2030-01-01", "the end of version v3 is not known to this version of the connector"),
        ({"api_version": ["v1"]}, "2030-01-01", "the end of version ['v1'] is not known"),
    ],
)
def test_versions_are_warned_of_before_and_after_their_end(settings: dict[str, str], day: str, said: str) -> None:
    found = version_remark(info(VERSIONS), settings, at(day))
    assert found.text.startswith(said) and bool(found.text) == bool(said)
    assert found.warns == ("vendor st" in said)


def test_without_versions_there_is_nothing_to_say() -> None:
    assert version_remark(info(None), {}, at("2030-01-01")) == VersionRemark()
