"""Addresses as senders write them, and what becomes of a context."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_ingest.location import address_of, located, networks_in

PLACES = {
    "203.0.113.7": "203.0.113.7",
    " 203.0.113.7 ": "203.0.113.7",
    "203.0.113.7, 10.0.0.1": "203.0.113.7",
    "203.0.113.7,198.51.100.9": "203.0.113.7",
    "203.0.113.7:49152": "203.0.113.7",
    "::ffff:203.0.113.7": "203.0.113.7",
    "[::ffff:203.0.113.7]:443": "203.0.113.7",
    "2001:DB8::1": "2001:db8::1",
    "[2001:db8::1]:443": "2001:db8::1",
    "[2001:db8::1]": "2001:db8::1",
    "2001:db8::1%eth0": "2001:db8::1",
    "[2001:db8::1%25eth0]:443, 10.0.0.1": "2001:db8::1",
    "2001:db8::1," + "10.0.0.1," * 10_000: "2001:db8::1",
}

NOWHERE: list[Any] = [
    "", " ", ",", "a, b", "unknown", "203.0.113", "203.0.113.256", "203.0.113.007", "0x7f.1", "3405803783", ":", "::1:",
    "[", "[]", "[]:80", "%eth0", "2001:db8:::1", "x" * 100_000, "\ud800", "\x00", "٢٠٣.٠.١١٣.٧",
    "0.0.0.0", "10.1.2.3", "127.0.0.1", "100.64.0.1", "169.254.1.1", "172.16.0.1", "192.168.1.1", "224.0.0.1",
    "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1",
    "::ffff:10.0.0.1", "::ffff:127.0.0.1",
    "10.0.0.1, 203.0.113.7",
    None, True, 7, 3405803783, 1.5, ["203.0.113.7"], {"ip": "203.0.113.7"},
]  # fmt: skip


@pytest.mark.parametrize("said", PLACES)
def test_an_address_as_senders_write_it(said: str) -> None:
    assert str(address_of(said)) == PLACES[said]


@pytest.mark.parametrize("said", NOWHERE, ids=lambda said: repr(said)[:30])
def test_what_is_no_public_address_is_nowhere(said: Any) -> None:
    assert address_of(said) is None


def country_of(said: Any) -> str:
    """A table of one address."""
    return "DE" if said == "203.0.113.7" else ""


@pytest.mark.parametrize(
    ("context", "of_request", "location"),
    [
        ({"ip": "203.0.113.7"}, "", {"country": "DE"}),
        ({"ip": "203.0.113.7", "location": None}, "", {"country": "DE"}),
        ({"ip": "203.0.113.7", "location": {}}, "", {"country": "DE"}),
        ({"ip": "203.0.113.7", "location": {"city": "Ulm"}}, "", {"city": "Ulm", "country": "DE"}),
        ({"ip": "203.0.113.7", "location": {"country": None}}, "", {"country": "DE"}),
        ({"ip": "203.0.113.7", "location": {"country": " "}}, "", {"country": "DE"}),
        ({"ip": "203.0.113.7"}, "FR", {"country": "DE"}),
        ({"ip": None, "locale": "de"}, "FR", {"country": "FR"}),
        ({"ip": ""}, "FR", {"country": "FR"}),
        ({"locale": "de"}, "FR", {"country": "FR"}),
        ({}, "FR", {"country": "FR"}),
    ],
)
def test_the_country_of_the_address_becomes_the_location(
    context: dict[str, Any], of_request: str, location: dict[str, Any]
) -> None:
    text = json.dumps(context, indent=1).encode() if context else b""
    assert json.loads(located(context, text, country_of, of_request)) == {**context, "location": location}


@pytest.mark.parametrize(
    ("context", "of_request"),
    [
        ({"ip": "203.0.113.7", "location": {"country": "AT"}}, "FR"),
        ({"ip": "203.0.113.7", "location": {"country": "Austria"}}, ""),
        ({"ip": "203.0.113.7", "location": {"country": 7}}, ""),
        ({"ip": "203.0.113.7", "location": "Ulm"}, ""),
        ({"ip": "203.0.113.7", "location": []}, ""),
        ({"ip": "192.0.2.1"}, ""),
        ({"ip": "0.0.0.0"}, "FR"),  # Segment's way to say: do not use my address
        ({"ip": 7}, "FR"),
        ({"locale": "de"}, ""),
        ({}, ""),
    ],
)
def test_what_says_its_country_or_has_none_stays_byte_by_byte(context: dict[str, Any], of_request: str) -> None:
    text = json.dumps(context, indent=1).encode() if context else b""
    assert located(context, text, country_of, of_request) == text


def test_a_long_context_is_not_written_anew() -> None:
    text = b' \n{ "ip": "203.0.113.7", "n": 1.50, "s": "\\u0041" }'
    assert located(json.loads(text), text, country_of, "") == (
        b' \n{"location":{"country":"DE"}, "ip": "203.0.113.7", "n": 1.50, "s": "\\u0041" }'
    )


def test_lists_of_networks() -> None:
    assert networks_in("") == networks_in(" , ") == []
    assert networks_in("10.0.0.0/8, 2001:db8::/32,192.0.2.1") == ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]
    for wrong in ("10.0.0.1/8", "proxy.example", "*", "10.0.0.0/33"):
        with pytest.raises(ValueError, match=r"does not appear|has host bits"):
            networks_in(wrong)
