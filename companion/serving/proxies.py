"""Who is asking, seen from behind proxies: which part of ``X-Forwarded-For`` may be believed.

Anybody can send the header, so by itself it proves nothing: a limit or a log that believes it is
talked past with one line of curl. Each proxy *appends* the address that it was asked from. So the
header is read from the right, beginning with the peer of the connection: as long as an address
belongs to a proxy of ours, what that proxy wrote before it is true. The first that does not is the
client; what stands left of it is only what that client said.

Sources: RFC 7239 (section 8.1 on forgery); MDN, *X-Forwarded-For*, "Selecting an IP address".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.types import Scope

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HEADER = b"x-forwarded-for"
_UNKNOWN = "unknown"
_OWN_PREFIX = 64
"""Bits of an IPv6 address that name a customer; the rest is the customer's to choose."""


class TrustedProxies:
    """The networks that our own proxies ask from, such as ``["10.0.0.0/8", "2001:db8::1"]``.

    Args:
        networks: addresses or networks; none of them, and no header is ever believed.
        unix_socket: whether a peer without an address, on a Unix socket, is a proxy of ours.

    Raises:
        ValueError: something that is neither an address nor a network.
    """

    def __init__(self, networks: Iterable[str] = (), *, unix_socket: bool = False) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        self._unix_socket = unix_socket

    def client_of(self, scope: Scope) -> Address | None:
        """The address that a request comes from, ``None`` if that cannot be known.

        It is the connection's peer, unless that is a proxy of ours; then it is the last address in
        ``X-Forwarded-For`` that is none. A header that cannot be read is believed as far as it can.
        """
        peer = scope.get("client")
        client = _parse(peer[0]) if peer else None
        if not (self._unix_socket if peer is None else self._trusts(client)):
            return client
        for hop in reversed(_hops(scope)):
            address = _parse(hop)
            if address is None:
                return client
            client = address
            if not self._trusts(client):
                return client
        return client

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def address_key(address: Address | None) -> str:
    """One name for all addresses that one customer may choose from: an IPv6 network of 64 bits.

    Who is given a /64 has 2⁶⁴ addresses, and would have as many limits.
    """
    if address is None:
        return _UNKNOWN
    if address.version == 6:
        return str(ipaddress.ip_network((address, _OWN_PREFIX), strict=False))
    return str(address)


def _hops(scope: Scope) -> list[str]:
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER]
    return [hop for line in lines for hop in line.split(",")]


def _parse(text: str) -> Address | None:
    """``203.0.113.9``, ``203.0.113.9:4711``, ``2001:db8::1`` or ``[2001:db8::1]:4711``."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
