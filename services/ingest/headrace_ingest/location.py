"""Where an event came from: its IP address as senders write it, and the country that its context says. Pure functions.

An address is looked at for its country and no more: nothing here keeps one, and none goes into a log, span or metric.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import msgspec

Address = IPv4Address | IPv6Address
CountryOf = Callable[[Any], str]
"""The country of an IP address as somebody wrote it, in two letters of ISO 3166-1; "" when nobody knows."""

MOST = 128
"""Characters of an address that are looked at: an IPv6 address with a zone and a port has fewer."""

# Not `is_global`: it also leaves out networks that a table may well hold, such as those for documentation.
_NOWHERE_4: tuple[IPv4Network, ...] = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "224.0.0.0/3",
        ),
    )
)
_NOWHERE_6: tuple[IPv6Network, ...] = tuple(map(IPv6Network, ("::/127", "fc00::/7", "fe80::/10", "ff00::/8")))

_encode = msgspec.json.Encoder().encode


def address_of(said: Any) -> Address | None:
    """The public address in what a sender wrote as one; None when there is none.

    Of a list, as proxies write it, the first counts: the client. A port, brackets and a zone (`%eth0`) are passed
    over, and an IPv4 address that is written as IPv6 (`::ffff:...`) is one of IPv4. Private, loopback, link-local,
    multicast and unspecified addresses are nowhere.

    Args:
        said: What `context.ip` holds, or whom a connection came from; anything.
    """
    if not isinstance(said, str):
        return None
    text = said[:MOST].partition(",")[0].strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    if isinstance(address, IPv4Address):
        return None if any(address in network for network in _NOWHERE_4) else address
    return None if any(address in network for network in _NOWHERE_6) else address


def located(context: dict[str, Any], text: bytes, country_of: CountryOf, of_request: str) -> bytes:
    """A context with the country of its IP address as `location.country`, unless it says a country itself.

    Args:
        context: The context.
        text: The same as JSON; b"" for an empty one.
        country_of: Finds the country of an address.
        of_request: The country of the request's own address, for a context without one; "" for none.

    Returns:
        The context as JSON: as it was, byte by byte, when there is no country to add.
    """
    location = context.get("location") if context else None
    if location is not None and (not isinstance(location, dict) or _says(location.get("country"))):
        return text
    said = context.get("ip") if context else None
    country = country_of(said) if _says(said) else of_request
    if not country:
        return text
    if context and "location" not in context:
        # Between the first brace and the rest: to write the whole anew would cost more than to look the country up.
        start = text.index(b"{") + 1
        return b'%s"location":{"country":"%s"},%s' % (text[:start], country.encode(), text[start:])
    return _encode({**context, "location": {**(location or {}), "country": country}})


def networks_in(text: str) -> list[str]:
    """The addresses and networks of a list with commas, checked.

    Raises:
        ValueError: One of them is neither.
    """
    networks = [part.strip() for part in text.split(",") if part.strip()]
    for network in networks:
        ip_network(network)
    return networks


def _says(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())
