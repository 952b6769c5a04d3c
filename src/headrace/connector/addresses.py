"""Which addresses are on the public internet, and which hosts of URLs everybody reads in the same way."""

from __future__ import annotations

import ipaddress
import re

_NAME = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """True when an IP address is on the public internet, also through IPv6 forms that carry an IPv4 address.

    Raises:
        ValueError: It is no IP address.
    """
    ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:  # withdrawn by RFC 3879, and still routed inside of some networks
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def check_host(host: str) -> None:
    """Refuse a URL's host that is no plain name and no IP address in its usual form.

    Clients turn other forms into addresses in their own ways: full-width digits and dots into ASCII ones (UTS 46),
    octal, hexadecimal and shortened numbers into IPv4 addresses (as in the host parser of the WHATWG URL standard,
    where a host whose last label is a number is an IPv4 address), so that what is judged would not be what is
    connected to.

    Args:
        host: A name or an address, an IPv6 address without brackets.

    Raises:
        ValueError: With a sentence that says what is wrong with it.
    """
    if ":" in host:
        if "%" in host:
            raise ValueError("the host must be an address without a zone")
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("the host is no IPv6 address") from None
        return
    if not host.isascii():
        raise ValueError("the host must be ASCII: write names of other letters as xn--...")
    if not _NAME.fullmatch(host):
        raise ValueError("the host is no name of letters, digits, hyphens and dots")
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError("the host must be an IPv4 address of four decimal numbers, or a name") from None
