"""Errors of the service, free of any transport."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    INVALID_INPUT = "INVALID_INPUT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    REPORT_NOT_FOUND = "REPORT_NOT_FOUND"
    CONFLICT = "CONFLICT"
    SEARCH_FAILED = "SEARCH_FAILED"
    OVERLOADED = "OVERLOADED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    MODEL_NOT_READY = "MODEL_NOT_READY"
    TIMEOUT = "TIMEOUT"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field: dotted path, and what was got and what is allowed."""

    field: str
    description: str


class ServiceError(Exception):
    """What a caller is told.  Adapters turn it into a gRPC status or an HTTP answer.

    Attributes:
        code: see `ErrorCode`.
        message: for people; names field, value and allowed range where there is one.
        violations: every bad field of the request.
        retry_seconds: when a retry may help, after how long; None where it will not.
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
    """INVALID_INPUT that lists every bad field."""
    message = "; ".join(f"{item.field}: {item.description}" for item in violations)
    return ServiceError(ErrorCode.INVALID_INPUT, message, violations=violations)
