"""Errors of the service, independent of the transport."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """What kind of error it is; `candor.rpc.status` maps each to gRPC and to HTTP."""

    INVALID_INPUT = "INVALID_INPUT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    REPORT_NOT_FOUND = "REPORT_NOT_FOUND"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    CONFLICT = "CONFLICT"
    SEARCH_FAILED = "SEARCH_FAILED"
    OVERLOADED = "OVERLOADED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    MODEL_NOT_READY = "MODEL_NOT_READY"
    TIMEOUT = "TIMEOUT"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One invalid field of a request.

    Attributes:
        field: dotted path of the field.
        description: what was expected and what was got.
    """

    field: str
    description: str


class ServiceError(Exception):
    """An error that is reported to the client, as a gRPC status or as an HTTP response.

    Attributes:
        code: kind of the error.
        message: text for people; it names field, value and permitted range where there is one.
        violations: every invalid field of the request.
        retry_seconds: seconds after which a retry can help; None if it cannot.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        violations: Sequence[FieldViolation] = (),
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.violations = tuple(violations)
        self.retry_seconds = retry_seconds


def invalid_input(violations: Sequence[FieldViolation]) -> ServiceError:
    """An INVALID_INPUT error that lists every invalid field."""
    message = "; ".join(f"{item.field}: {item.description}" for item in violations)
    return ServiceError(ErrorCode.INVALID_INPUT, message, violations=violations)
