"""Proxies that the environment names: what stays on this machine goes through none of them.

A proxy cannot reach our loopback, so a connection through it would fail or end at another service.
Other hosts keep the proxy, as ``http_proxy``, ``grpc_proxy`` and ``no_proxy`` say.
"""

import re
import urllib.request
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote

from candor.contracts.addresses import is_loopback, is_unspecified

_HOST = re.compile(r"(?:[^/@]*@)?(?:\[(?P<v6>[^\]]*)\]|(?P<name>[^:/?#,]*))")


def is_local(target: str) -> bool:
    """Whether a URL, ``HOST:PORT`` or a target of gRPC is on this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    match = _HOST.match(unquote(_without_scheme(target)))
    host = (match["v6"] or match["name"] or "" if match else "").lower().rstrip(".")
    return is_loopback(host) or (host != "" and is_unspecified(host))  # which connects to loopback


def channel_options(target: str) -> tuple[tuple[str, int], ...]:
    """Options of a gRPC channel to ``target``, to add to others."""
    return (("grpc.enable_http_proxy", 0),) if is_local(target) else ()


def opener(
    url: str, *handlers: urllib.request.BaseHandler | type[urllib.request.BaseHandler]
) -> urllib.request.OpenerDirector:
    """Opens ``url`` and others on the same host, with ``handlers`` in place of the usual ones."""
    without_proxy = [urllib.request.ProxyHandler({})] if is_local(url) else []
    return urllib.request.build_opener(*without_proxy, *handlers)


def open_url(
    request: str | urllib.request.Request,
    *handlers: urllib.request.BaseHandler | type[urllib.request.BaseHandler],
    seconds: float,
) -> Any:
    """The response to a request, as `urllib.request.urlopen` returns it.

    Raises:
        OSError: no response in ``seconds``, or one that says that the request failed.
    """
    url = request if isinstance(request, str) else request.full_url
    try:
        return opener(url, *handlers).open(request, timeout=seconds)
    except HTTPError as err:
        err.close()  # it is a response, too, with a connection
        raise


def _without_scheme(target: str) -> str:
    """``dns:///HOST:PORT``, ``ipv6:[::1]:1`` and ``http://HOST/PATH`` without what comes first."""
    if "://" in target:
        scheme, _, rest = target.partition("://")
        is_web = scheme in ("http", "https")
        return rest if is_web or not rest.partition("/")[2] else rest.partition("/")[2]
    return re.sub(r"^(?:ipv[46]|dns):", "", target)
