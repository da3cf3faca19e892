"""Names that requests carry beside their body: HTTP headers, and metadata keys of gRPC."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

AUTHORIZATION: Final = "authorization"
REQUEST_ID: Final = "x-request-id"
TENANT: Final = "x-candor-tenant"
PRIORITY: Final = "x-candor-priority"
TIMEOUT: Final = "x-candor-timeout"
HEADER_LENGTH: Final = "inference-header-content-length"  # of the JSON before binary tensors

# Those that mean nothing certain where a request has several of them.
ONCE: Final = (AUTHORIZATION, TENANT, PRIORITY, TIMEOUT)

# Those that shape how a request is served, as the API documentation describes them.
DESCRIPTIONS: Final = {
    TENANT: "The tenant that shares the workers fairly with others; a key's own tenant wins.",
    PRIORITY: "`report` yields to interactive requests.",
    TIMEOUT: "Seconds the request may take, like `timeout_seconds`.",
}

_OURS = "x-candor-"


def wrong_names(names: Iterable[str]) -> tuple[str, str] | None:
    """The first name that a request has wrongly, in lower case, and what was expected; or None.

    A name of ours that means nothing, or one of two that contradict each other, would be ignored.
    """
    counts = Counter(names)
    for name in ONCE:
        if counts[name] > 1:
            return name, "expected once, got twice"
    for name in counts:
        if name.startswith(_OURS) and name not in DESCRIPTIONS:
            return name[:60], f"expected one of {', '.join(DESCRIPTIONS)}, got another name"
    return None
