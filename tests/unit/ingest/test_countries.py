"""Tables of countries: their forms, files that are none, and files that are replaced under the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from headrace_ingest.countries import Countries, UnreadableTable, read_table

from tests.support.countries import NETWORKS, maxmind, write_table

PLACES = {
    "203.0.113.7": "DE",
    "203.0.113.200": "FR",
    "::ffff:203.0.113.200": "FR",
    "198.51.100.1": "IN",
    "192.0.2.1": "",
    "2001:db8:de::7": "DE",
    "2001:db8:de::7%eth0": "DE",
    "2001:db8:1:ffff::1": "FR",
    "2001:db8:2::1": "",
    "10.1.2.3": "",
    "garbage": "",
}


def places(countries: Countries) -> dict[str, str]:
    return {said: countries.country_of(said) for said in PLACES}


@pytest.mark.parametrize("record", [maxmind, lambda code: {"country_code": code, "country": "Land"}])
def test_the_forms_of_records(tmp_path: Path, record: Any) -> None:
    countries = Countries(write_table(tmp_path / "t.mmdb", record=record), every_s=1)
    assert places(countries) == PLACES
    assert countries.country_of("x" * 1_000_000 + "203.0.113.7") == countries.country_of(None) == ""
    assert countries.built_s > 1_700_000_000


def test_a_table_of_ipv4_only(tmp_path: Path) -> None:
    countries = Countries(write_table(tmp_path / "t.mmdb", ip_version=4), every_s=1)
    assert places(countries) == {said: "" if said[:9] == "2001:db8:" else code for said, code in PLACES.items()}


def test_codes_that_are_no_countries(tmp_path: Path) -> None:
    networks = {"203.0.113.0/25": "ZZ", "203.0.113.128/25": "EU", "198.51.100.0/24": "Germany", "192.0.2.0/24": "DE"}
    countries = Countries(write_table(tmp_path / "t.mmdb", networks), every_s=1)
    found = [countries.country_of(said) for said in ("203.0.113.7", "203.0.113.200", "198.51.100.1", "192.0.2.1")]
    assert found == ["", "", "", "DE"]


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    whole = write_table(tmp_path / "whole.mmdb").read_bytes()
    (tmp_path / "cut.mmdb").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mmdb").write_text("203.0.113.0/24,DE\n")
    (tmp_path / "empty.mmdb").write_bytes(b"")
    (tmp_path / "folder.mmdb").mkdir()
    write_table(tmp_path / "asn.mmdb", record=lambda _: {"autonomous_system_number": 64496})
    for name, why in {
        "none.mmdb": "cannot be read: No such file or directory",
        "folder.mmdb": "cannot be read: Is a directory",
        "cut.mmdb": "is no file in MaxMind's DB format, or not a whole one",
        "text.mmdb": "is no file in MaxMind's DB format, or not a whole one",
        "empty.mmdb": "is no file in MaxMind's DB format, or not a whole one",
        "asn.mmdb": "names no countries: a table of another kind?",
    }.items():
        with pytest.raises(UnreadableTable) as failed:
            read_table(tmp_path / name)
        assert str(failed.value) == f"{tmp_path / name} {why}"


async def test_a_replaced_file_is_taken_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.mmdb")
    countries = Countries(path, every_s=1)
    assert countries.country_of("203.0.113.7") == "DE"
    await countries.look()
    assert countries.country_of("203.0.113.7") == "DE"

    write_table(path, {**NETWORKS, "203.0.113.0/25": "AT"})
    await countries.look()
    assert countries.country_of("203.0.113.7") == "AT", "also what was asked before"

    path.write_bytes(path.read_bytes()[:-100])
    await countries.look()
    assert countries.country_of("203.0.113.7") == "AT"
    path.unlink()
    await countries.look()
    assert countries.country_of("203.0.113.8") == "AT"

    write_table(path)
    await countries.look()
    assert countries.country_of("203.0.113.7") == "DE"


def test_a_file_that_is_written_over_does_not_touch_the_table_in_use(tmp_path: Path) -> None:
    """A mapping of the file itself would end the process, by a bus error, or answer from half of another table."""
    path = write_table(tmp_path / "t.mmdb")
    countries = Countries(path, every_s=1)
    with path.open("r+b") as file:
        file.write(b"\xff" * 1_000)
        file.truncate(10)
    assert places(countries) == PLACES
