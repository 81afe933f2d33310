"""Who may connect: addresses, networks and host names, as the options --listen and --allow give
them.

Nothing listens beyond this computer unless its user names the peers.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: tuple[Network, ...] = (
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv6Network("::1/128"),
)
"""This computer alone: the peers that are allowed where none are named."""

_MAPPED_BITS = 96  # an IPv4 address within IPv6 stands behind ::ffff:
# The resolver would take 10.1 for 10.0.0.1, and 0x7f000001 for 127.0.0.1.
_SHORT_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]*))*", re.IGNORECASE)


def parse_allowed(texts: Sequence[str]) -> list[Network]:
    """Networks of the peers named, in order, each once; a single address is a network of one.

    texts: addresses (10.20.0.5, fd00::5), networks (10.20.0.0/24) and host names, which are
    looked up now and not again. ValueError, in one line, for anything else.
    """
    networks: dict[Network, None] = {}
    for text in texts:
        networks |= dict.fromkeys(_networks_of(text.strip()))
    return list(networks)


def check_listen(address: str, allowed: Sequence[Network]) -> str:
    """The numeric address to listen on; that of a host name is looked up, IPv4 preferred.

    ValueError, in one line, when it is none, or when it can be reached from other computers
    (``*`` stands for all addresses, as in ZeroMQ) and no peers are allowed.
    """
    address = address.strip()
    addresses = [ipaddress.IPv4Address(0)] if address == "*" else _addresses_of(address)
    found = min(addresses, key=lambda candidate: candidate.version)
    if not found.is_loopback and not allowed:
        raise ValueError(
            f"listening on {address} would let every computer of the network connect: "
            "name those that may, such as --allow 10.20.0.5"
        )
    return str(found)


def to_core(networks: Sequence[Network]) -> list[tuple[bytes, int]]:
    """Networks as the compiled core takes them: 16 bytes of IPv6 (an IPv4 address behind
    ::ffff:) and the prefix length, 0 to 128."""
    return [_ipv6_form(network) for network in networks]


def _ipv6_form(network: Network) -> tuple[bytes, int]:
    packed = network.network_address.packed
    if network.version == 6:
        return packed, network.prefixlen
    return bytes(10) + b"\xff\xff" + packed, network.prefixlen + _MAPPED_BITS


def _networks_of(text: str) -> list[Network]:
    if "/" not in text:
        return [ipaddress.ip_network(address) for address in _addresses_of(text)]
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"found {text!r}, expected a network such as 10.20.0.0/24 or fd00::/64"
        ) from None
    if network.network_address != ipaddress.ip_address(text.partition("/")[0]):
        raise ValueError(
            f"{text} names an address within a network: give {network} for the whole network, "
            f"or {text.partition('/')[0]} for that address alone"
        )
    return [_unmapped_network(network)]


def _unmapped_network(network: Network) -> Network:
    """The IPv4 network that stands behind ::ffff:, where it is one."""
    first = _unmapped(network.network_address)
    if first.version == network.version or network.prefixlen < _MAPPED_BITS:
        return network
    return ipaddress.ip_network(f"{first}/{network.prefixlen - _MAPPED_BITS}")


def _unmapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _addresses_of(text: str) -> list[Address]:
    """The address written, or all of a host name. ValueError where there is none."""
    try:
        return [_unmapped(ipaddress.ip_address(text))]
    except ValueError:
        pass
    if not text or ":" in text or _SHORT_NUMBER.fullmatch(text):
        raise ValueError(
            f"found {text!r}, expected an address such as 10.20.0.5 or fd00::5, "
            "or the name of a host; without a port"
        )
    try:
        found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no legal name"
        raise ValueError(
            f"host {text!r} is not known ({reason}): check the name, or give its address"
        ) from None
    names = [str(entry[4][0]).partition("%")[0] for entry in found]
    return [_unmapped(ipaddress.ip_address(name)) for name in names]
