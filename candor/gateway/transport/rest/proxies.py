"""Who the client is and how it came, where proxies stand between it and the gateway.

``Forwarded`` (RFC 7239), `X-Forwarded-For` and `X-Forwarded-Proto` are claims of whoever sent them;
only those that a trusted proxy added count.  `X-Forwarded-Host` is never used: every address that
the gateway sends is relative.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from candor.gateway.access.request_context import client_address

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_PAIR = re.compile(r'\s*([A-Za-z]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,\s"]*)\s*')
_SCHEMES = ("http", "https")


class TrustedProxies:
    """Sets the scope's client and scheme from what trusted proxies say.

    Args:
        networks: addresses of trusted proxies, ``ADDRESS`` or ``ADDRESS/BITS`` each.
    """

    def __init__(self, app: ASGIApp, networks: Iterable[str]) -> None:
        self._app = app
        self._networks = [ipaddress.ip_network(one, strict=False) for one in networks]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        peer = (scope.get("client") or ("", 0))[0]
        if self._trusts(_address(peer)):
            scope = {**scope, **self._forwarded(peer, scope)}
        client_address.set((scope.get("client") or ("", 0))[0])
        return await self._app(scope, receive, send)

    def _forwarded(self, peer: str, scope: Scope) -> dict[str, object]:
        headers = Headers(scope=scope)
        hops = _standard(headers.getlist("forwarded")) or _usual(headers)
        client, scheme = peer, scope["scheme"]
        # The last hop was added by the nearest proxy; what an untrusted one claims ends the walk.
        for said, said_scheme in reversed(hops):
            address = _address(said)
            scheme = said_scheme if said_scheme in _SCHEMES else scheme
            if address is None:
                break
            client = str(address)
            if not self._trusts(address):
                break
        return {"client": (client, 0), "scheme": scheme}

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def _usual(headers: Headers) -> Sequence[tuple[str, str]]:
    """`X-Forwarded-For` and `-Proto`: one scheme for all hops, or one for each."""
    hosts = _listed(headers.getlist("x-forwarded-for"))
    schemes = [one.lower() for one in _listed(headers.getlist("x-forwarded-proto"))]
    if not hosts:
        return [("", schemes[-1])] if schemes else []
    if len(schemes) != len(hosts):
        schemes = [schemes[-1] if schemes else ""] * len(hosts)
    return list(zip(hosts, schemes, strict=True))


def _standard(values: Sequence[str]) -> Sequence[tuple[str, str]]:
    """``for`` and ``proto`` of every element of ``Forwarded``."""
    hops = []
    for element in _listed(values):
        pairs = {name.lower(): text.strip('"') for name, text in _PAIR.findall(element)}
        hops.append((pairs.get("for", ""), pairs.get("proto", "").lower()))
    return hops


def _listed(values: Sequence[str]) -> list[str]:
    return [one.strip() for value in values for one in value.split(",") if one.strip()]


def _address(text: str) -> Address | None:
    """The address of ``1.2.3.4``, ``1.2.3.4:80``, ``::1`` or ``[::1]:80``; None for other text."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
