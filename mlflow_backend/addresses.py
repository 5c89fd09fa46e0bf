"""Which addresses mean this machine, wherever they are read."""

import ipaddress
import socket

NAMES = ("localhost", "localhost.localdomain")


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, without port or brackets) is this machine's alone."""
    name = host.rstrip(".").lower()
    if name in NAMES or name.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def is_of_this_machine(host: str) -> bool:
    """`is_loopback`, or the address of a server that listens on every one: who connects to it means
    this machine.
    """
    address = _address(host)
    return is_loopback(host) or (address is not None and address.is_unspecified)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None for a name. `127.1` is an address too, as resolvers read it."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        if not text.replace(".", "").isdigit():
            return None
        try:
            return ipaddress.IPv4Address(socket.inet_aton(text))
        except (OSError, ValueError):
            return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
