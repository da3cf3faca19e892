"""``python -m candor.gateway.probe``: exit code 0 where the gateway of this machine is ready.

It reads the gateway's settings from the environment and asks ``/healthz/ready`` where they say that
it listens, never through a proxy.  That is the health port if there is one, else REST, over TLS
where the gateway has a certificate.
"""

import ssl
import sys
from urllib.request import HTTPSHandler, ProxyHandler

from candor.contracts.addresses import url
from candor.contracts.proxies import open_url
from candor.contracts.secrets import without_secrets
from candor.gateway.config.settings import Settings, read_settings
from candor.gateway.sockets import reachable_host

_TIMEOUT_SECONDS = 4.0


def main() -> int:
    """Exit code 0 where it is ready, else 1 and the reason."""
    # The certificate names the service and not this loopback; the probe sends nothing secret.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    handlers = (ProxyHandler({}), HTTPSHandler(context=context))
    try:
        open_url(_address(read_settings()), *handlers, seconds=_TIMEOUT_SECONDS).close()
    except (OSError, ValueError) as err:  # the latter: settings, and hosts that are no names
        print(f"candor.gateway.probe: {_reason(err)}", file=sys.stderr)
        return 1
    return 0


def _reason(err: OSError | ValueError) -> str:
    """In one line, without what the library makes of it."""
    if isinstance(err, UnicodeError):
        return "host: expected the name of a host, got another text"
    cause = getattr(err, "reason", err)
    return without_secrets(getattr(cause, "strerror", None) or str(cause))


def _address(settings: Settings) -> str:
    is_tls = bool(settings.tls_cert) and settings.health_port is None
    port = settings.rest_port if settings.health_port is None else settings.health_port
    server = url("https" if is_tls else "http", reachable_host(settings.host), port)
    return f"{server}/healthz/ready"


if __name__ == "__main__":
    sys.exit(main())
