"""Which host names and addresses refer to the machine that resolves them."""

import ipaddress
import socket

NAMES = ("localhost", "localhost.localdomain")


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, without port or brackets) is a loopback address."""
    name = host.rstrip(".").lower()
    if name in NAMES or name.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def is_of_this_machine(host: str) -> bool:
    """Whether `host` is a loopback address, or the unspecified one (0.0.0.0, ::), which connects to
    the same machine.
    """
    address = _address(host)
    return is_loopback(host) or (address is not None and address.is_unspecified)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address; None for a name. Resolvers also accept short forms such as `127.1`."""
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
