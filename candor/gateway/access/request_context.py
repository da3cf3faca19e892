"""What the transport knows of a request: tenant, priority, deadline."""

import math
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum

from candor.contracts import headers as names
from candor.contracts import limits
from candor.contracts.errors import FieldViolation, invalid_input
from candor.contracts.names import tenant_name

# Set by the authorizer for the rest of a request's task; None in a gateway that needs no keys.
tenant_of_key: ContextVar[str | None] = ContextVar("tenant_of_key", default=None)
# Set by the request log for the rest of a request's task; called with the name of the model that
# serves the request once that is decided.
report_model: ContextVar[Callable[[str], None]] = ContextVar(
    "report_model", default=lambda name: None
)
# Set by the transport for the rest of a request's task, behind trusted proxies the client's own.
client_address: ContextVar[str] = ContextVar("client_address", default="")
_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?")


class Priority(IntEnum):
    """Classes of searches, the most urgent first; predictions have workers of their own."""

    EXPLAIN = 0
    PROBE = 1
    REPORT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """What the transport knows of a request.

    Attributes:
        tenant: shares the workers fairly with others; the empty name is a tenant like any other.
        is_report: background work, for which no person waits.
        deadline: `time.monotonic` after which the client no longer waits; inf without one.
        arrived: `time.monotonic` of the request's arrival.
    """

    request_id: str
    tenant: str = ""
    is_report: bool = False
    deadline: float = math.inf
    arrived: float = field(default_factory=time.monotonic)

    def priority(self, usual: Priority) -> Priority:
        return Priority.REPORT if self.is_report else usual


def request_context_of(
    request_id: str, headers: dict[str, str], seconds_left: float | None
) -> RequestContext:
    """The context of a request with these headers or metadata, keys in lower case.

    The tenant is that of the client's key; the headers name it only where no keys are needed.

    Args:
        seconds_left: until the deadline that the transport itself carries, None without one.
    Raises:
        ServiceError: INVALID_INPUT.
    """
    given = [_timeout(headers[names.TIMEOUT])] if names.TIMEOUT in headers else []
    if seconds_left is not None:
        given.append(seconds_left)
    priority = headers.get(names.PRIORITY, "")
    if priority not in ("", "report"):
        raise invalid_input(
            [FieldViolation(names.PRIORITY, f"expected report, got {priority[:60]!r}")]
        )
    arrived = time.monotonic()
    tenant = tenant_of_key.get()
    return RequestContext(
        request_id=request_id,
        tenant=named_tenant(headers) if tenant is None else tenant,
        is_report=priority == "report",
        deadline=arrived + min(given, default=math.inf),
        arrived=arrived,
    )


def named_tenant(headers: Mapping[str, str]) -> str:
    """The tenant that a request names; HTTP carries its UTF-8 as if it were Latin-1."""
    sent = headers.get(names.TENANT, "")
    with suppress(UnicodeError):
        sent = sent.encode("latin-1").decode()
    return tenant_name(sent)


def _timeout(value: str) -> float:
    # As JSON writes a number: Python would also read "1_0", blanks and other digits.
    seconds = float(value) if _NUMBER.fullmatch(value) else math.nan
    if not 0.0 < seconds <= limits.MAX_TIMEOUT_SECONDS:
        expected = f"seconds in (0, {limits.MAX_TIMEOUT_SECONDS:g}]"
        description = f"expected {expected}, got {value[:60]!r}"
        raise invalid_input([FieldViolation(names.TIMEOUT, description)])
    return seconds
