"""Small tables of countries, as MaxMind and others publish them, with the networks that are kept for documentation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

NETWORKS = {
    "203.0.113.0/25": "DE",
    "203.0.113.128/25": "FR",
    "198.51.100.0/24": "IN",
    "2001:db8:de::/48": "DE",
    "2001:db8:1::/48": "FR",
    "10.0.0.0/8": "CH",  # nobody places a private network: that it is here shows that it is not even asked about
}
"""Where the networks of the tests are; 192.0.2.0/24 is in no table."""


def maxmind(code: str) -> dict[str, Any]:
    """A record as MaxMind and DB-IP write it."""
    return {
        "continent": {"code": "EU", "names": {"en": "Europe"}},
        "country": {"iso_code": code, "names": {"en": code}},
        "registered_country": {"iso_code": "US"},
    }


def write_table(
    path: Path, networks: Mapping[str, str] = NETWORKS, *, record: Any = maxmind, ip_version: int = 6
) -> Path:
    """Write a table in MaxMind's DB format; `record` makes what stands at a network from its country."""
    writer = MMDBWriter(ip_version, "Test-Country", ipv4_compatible=ip_version == 6)
    for network, code in networks.items():
        if ip_version == 6 or ":" not in network:
            writer.insert_network(IPSet([network]), record(code))
    made = path.with_name(f"{path.name}.new")
    writer.to_db_file(str(made))
    made.replace(path)
    return path
