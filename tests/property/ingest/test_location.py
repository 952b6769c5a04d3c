"""IP addresses against anything: whatever senders write, an answer, and the rest of the context as it was."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from headrace_ingest.location import address_of, located
from headrace_ingest.messages import Arrival, read_message
from hypothesis import given
from hypothesis import strategies as st

_addresses = st.ip_addresses()
_zones = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8)
_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=("Cs", "Cc"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["country", "city", "x"]), inner),
    max_leaves=6,
)
_alphabet = st.text("0123456789abcdefABCDEF.:%[], \tx", max_size=60)


@given(_alphabet | st.text(st.characters(exclude_categories=()), max_size=300))
def test_any_text_is_an_address_or_none(text: str) -> None:
    found = address_of(text)
    assert found is None or not (found.is_loopback or found.is_link_local or found.is_multicast)


@given(_addresses, st.integers(0, 65535), st.lists(_alphabet | _addresses.map(str), max_size=3), _zones)
def test_every_way_to_write_an_address_is_the_same(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, others: list[str], zone: str
) -> None:
    plain = address_of(str(address))
    ways = [f" {address} ", ",".join([str(address), *others])]
    if isinstance(address, ipaddress.IPv4Address):
        ways += [f"{address}:{port}", f"::ffff:{address}", f"[::ffff:{address}]:{port}"]
    else:
        ways += [f"[{address}]", f"[{address}]:{port}", f"{address}%{zone}", address.exploded.upper()]
    assert [address_of(way) for way in ways] == [plain] * len(ways)


@given(
    st.dictionaries(st.sampled_from(["ip", "location", "locale", "page"]), _anything, max_size=4),
    st.sampled_from(["", "FR"]),
    st.sampled_from([None, 1]),
)
def test_a_context_gains_a_country_and_nothing_else(
    context: dict[str, Any], of_request: str, indent: int | None
) -> None:
    text = json.dumps(context, indent=indent).encode() if context else b""
    found = located(context, text, lambda said: "DE" if isinstance(said, str) and said[:1] == "1" else "", of_request)
    if found == text:
        return
    after = json.loads(found)
    country = after["location"].pop("country")
    assert country in {"DE", "FR"}
    before = context.get("location") or {}
    assert after["location"] == {key: value for key, value in before.items() if key != "country"}
    assert {k: v for k, v in after.items() if k != "location"} == {k: v for k, v in context.items() if k != "location"}


@given(_anything, _anything)
def test_no_address_costs_an_event(said: Any, location: Any) -> None:
    message = {"type": "track", "userId": "u", "event": "A", "context": {"ip": said, "location": location}}
    arrival = Arrival("shop", "web", 1_767_225_600_000_000, country_of=lambda said: "DE" if address_of(said) else "")
    context = json.loads(read_message(json.dumps(message).encode(), arrival).context)
    assert context["ip"] == said
