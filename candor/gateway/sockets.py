"""The addresses on which the service listens, IPv4 and IPv6."""

import socket

from candor.contracts.addresses import bare_host, is_unspecified

IPV4_LOOPBACK, IPV6_LOOPBACK = "127.0.0.1", "::1"
_IPV4_ANY, _IPV6_ANY = "0.0.0.0", "::"


def loopback() -> str:
    """127.0.0.1, or ::1 on a machine whose loopback has IPv6 alone."""
    return IPV4_LOOPBACK if _can_bind(socket.AF_INET, IPV4_LOOPBACK) else IPV6_LOOPBACK


def reachable_host(host: str) -> str:
    """Where this machine reaches a server that listens on ``host``."""
    bare = bare_host(host)
    return loopback() if is_unspecified(bare) else bare


def listening_host(host: str) -> str:
    """The numeric address to listen on, so that every server of a process takes the same one.

    ``::`` stands for every address of both families, on a machine without IPv6 for those of IPv4.
    Of a name's addresses the first of IPv4 is taken, else the first.

    Raises:
        OSError: the name has no address.
        ValueError: see `bare_host`; or no name at all.
    """
    bare = bare_host(host)
    if bare in ("", _IPV6_ANY):
        return _IPV6_ANY if _can_bind(socket.AF_INET6, _IPV6_ANY) else _IPV4_ANY
    try:
        found = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as err:  # a part of the name is empty or too long
        raise ValueError(f"host: expected the name of a host, got {host[:60]!r}") from err
    first = min(found, key=lambda info: info[0] != socket.AF_INET)
    return str(first[4][0])


def bound(host: str, port: int) -> socket.socket:
    """A TCP socket that does not listen yet; on ``::`` it takes clients of both families.

    Raises:
        OSError: the address is not one of this machine, or the port is taken.
        ValueError: see `bare_host`.
    """
    address = listening_host(host)
    ((family, _, _, _, where),) = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(where)
    except OSError:
        server.close()
        raise
    return server


def _can_bind(family: socket.AddressFamily, host: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind((host, 0))
    except OSError:
        return False
    return True
