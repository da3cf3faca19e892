"""Who asks and how long they wait."""

import math
import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum

from candor.contracts import limits
from candor.contracts.errors import FieldViolation, invalid_input

TENANT_KEY = "x-candor-tenant"
PRIORITY_KEY = "x-candor-priority"
TIMEOUT_KEY = "x-candor-timeout"
HEADERS = {
    TENANT_KEY: "Who shares the workers fairly with others; a key's own tenant goes before it.",
    PRIORITY_KEY: "`report` steps behind interactive requests.",
    TIMEOUT_KEY: "Seconds the request may take, like `timeout_seconds`.",
}
MAX_TENANT_CHARS = 64
# Set by the guard for the rest of a request's task; None where nobody needs a key.
tenant_of_key: ContextVar[str | None] = ContextVar("tenant_of_key", default=None)
# Set by whoever watches a request; told the name of the model that works on it.
report_model: ContextVar[Callable[[str], None]] = ContextVar(
    "tell_model", default=lambda name: None
)
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")


class Priority(IntEnum):
    """Classes of searches, the most urgent first; predictions have workers of their own."""

    EXPLAIN = 0
    PROBE = 1
    REPORT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """What the transport knows of a request.

    Attributes:
        tenant: who shares fairly with others; empty is a tenant like any other.
        is_report: work nobody sits in front of.
        deadline: `time.monotonic` at which nobody waits any more; inf without one.
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
    """The caller of a request with these headers or metadata, keys in lower case.

    The tenant is that of the key it came with; only where nobody needs one the headers name it.

    Args:
        seconds_left: of a deadline that the transport itself carries, None without one.
    Raises:
        ServiceError: INVALID_INPUT.
    """
    given = [_timeout(headers[TIMEOUT_KEY])] if TIMEOUT_KEY in headers else []
    if seconds_left is not None:
        given.append(seconds_left)
    priority = headers.get(PRIORITY_KEY, "")
    if priority not in ("", "report"):
        raise invalid_input(
            [FieldViolation(PRIORITY_KEY, f"got {priority[:60]!r}, allowed report")]
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
    return _UNPRINTABLE.sub("", headers.get(TENANT_KEY, ""))[:MAX_TENANT_CHARS]


def _timeout(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds <= limits.MAX_TIMEOUT_SECONDS:
        allowed = f"seconds in (0, {limits.MAX_TIMEOUT_SECONDS:g}]"
        raise invalid_input([FieldViolation(TIMEOUT_KEY, f"got {value[:60]!r}, allowed {allowed}")])
    return seconds
