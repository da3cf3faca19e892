"""Names that requests carry beside their body: HTTP headers, and metadata keys of gRPC."""

from typing import Final

AUTHORIZATION: Final = "authorization"
REQUEST_ID: Final = "x-request-id"
TENANT: Final = "x-candor-tenant"
PRIORITY: Final = "x-candor-priority"
TIMEOUT: Final = "x-candor-timeout"

# Those that shape how a request is served, as the API documentation describes them.
DESCRIPTIONS: Final = {
    TENANT: "The tenant that shares the workers fairly with others; a key's own tenant wins.",
    PRIORITY: "`report` yields to interactive requests.",
    TIMEOUT: "Seconds the request may take, like `timeout_seconds`.",
}
