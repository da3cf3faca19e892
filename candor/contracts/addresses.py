"""Network addresses as text: an IPv6 host stands in brackets wherever a port follows it."""

import ipaddress
import re
from contextlib import suppress

# Of the targets that gRPC takes; others are a host and a port.
_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:", "vsock:")
_MAX_PORT = 65535


def endpoint(host: str, port: int) -> str:
    """``HOST:PORT``, an IPv6 host in brackets: ``[::1]:8500``."""
    bare = bare_host(host)
    return f"[{bare}]:{port}" if is_ipv6(bare) else f"{bare}:{port}"


def url(scheme: str, host: str, port: int) -> str:
    """``SCHEME://HOST:PORT`` without a slash at the end."""
    return f"{scheme}://{endpoint(host, port)}"


def bare_host(host: str) -> str:
    """The host without brackets, as sockets take it.

    Raises:
        ValueError: it is no name and no address; a port is the usual reason.
    """
    is_bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if is_bracketed else host
    if ("/" in bare or ":" in bare or is_bracketed) and not is_ipv6(bare):
        raise ValueError(f"host: expected a name or an address without a port, got {host!r}")
    return bare


def is_ipv6(host: str) -> bool:
    """Whether this is an IPv6 address without brackets, with or without a zone."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).version == 6
    return False


def is_unspecified(host: str) -> bool:
    """Whether this stands for every address of the machine."""
    with suppress(ValueError):
        return _numeric(host).is_unspecified
    return host == ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it; of names ``localhost`` and those below it."""
    with suppress(ValueError):
        return _numeric(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def checked_target(target: str) -> str:
    """The address of a gRPC server: HOST:PORT or a target with a scheme, ``dns:///HOST:PORT``.

    Raises:
        ValueError: an IPv6 host without brackets, whose port cannot be told from it, no port from
            1 to 65535, or a URL.
    """
    port = port_of(target)
    has_port = port is not None and 1 <= port <= _MAX_PORT
    is_place = has_port and not target.startswith(_SCHEMES) and _is_host(target.rpartition(":")[0])
    is_scheme = target.startswith(_SCHEMES) and (has_port or port is None)
    if not (is_place or is_scheme):
        raise ValueError(
            "address: expected HOST:PORT, an IPv6 host in brackets as in [::1]:8500, "
            f"got {target!r}"
        )
    return target


def _is_host(text: str) -> bool:
    with suppress(ValueError):
        return bare_host(text) != "" and not (is_ipv6(text) or "@" in text)
    return False


def port_of(target: str) -> int | None:
    """The port of the address of a gRPC server; None without one, -1 where it is no number."""
    place = re.sub(r"^(?:unix(?:-abstract)?:.*|(?:dns|ipv[46]):(?://[^/]*/)?)", "", target)
    _, has_port, port = place.rpartition("]" if place.endswith("]") else ":")
    if not has_port or place.endswith("]"):
        return None
    return int(port) if re.fullmatch("[0-9]{1,9}", port) else -1


def _numeric(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address, of IPv4 where IPv6 only wraps one.  Raises: ValueError: a name."""
    address = ipaddress.ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address
