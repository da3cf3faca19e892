"""Error codes as gRPC status codes and HTTP status codes."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError

DOMAIN = "candor"
DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"

GRPC_CODES = {
    ErrorCode.INVALID_INPUT: StatusCode.INVALID_ARGUMENT,
    ErrorCode.UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
    ErrorCode.PERMISSION_DENIED: StatusCode.PERMISSION_DENIED,
    ErrorCode.CONFLICT: StatusCode.ALREADY_EXISTS,
    ErrorCode.MODEL_NOT_FOUND: StatusCode.NOT_FOUND,
    ErrorCode.REPORT_NOT_FOUND: StatusCode.NOT_FOUND,
    ErrorCode.JOB_NOT_FOUND: StatusCode.NOT_FOUND,
    ErrorCode.SEARCH_FAILED: StatusCode.FAILED_PRECONDITION,
    ErrorCode.OVERLOADED: StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.QUOTA_EXCEEDED: StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.MODEL_NOT_READY: StatusCode.UNAVAILABLE,
    ErrorCode.TIMEOUT: StatusCode.DEADLINE_EXCEEDED,
    ErrorCode.INTERNAL: StatusCode.INTERNAL,
}
HTTP_STATUS = {
    ErrorCode.INVALID_INPUT: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.CONFLICT: 409,
    ErrorCode.MODEL_NOT_FOUND: 404,
    ErrorCode.REPORT_NOT_FOUND: 404,
    ErrorCode.JOB_NOT_FOUND: 404,
    ErrorCode.SEARCH_FAILED: 422,
    ErrorCode.OVERLOADED: 429,
    ErrorCode.QUOTA_EXCEEDED: 429,
    ErrorCode.MODEL_NOT_READY: 503,
    ErrorCode.TIMEOUT: 504,
    ErrorCode.INTERNAL: 500,
}
# What a connection that breaks off leaves to a client that did not cancel its call: the library of
# a server that stops resets calls that it has not read yet.  They may be repeated.
_BROKEN_OFF = (StatusCode.CANCELLED,)
# gRPC clients refuse trailing metadata above 8 KiB by default, base64 adds a third, and the
# message travels twice.
_MAX_MESSAGE_CHARS = 400
_MAX_VIOLATION_BYTES = 3000


def to_rpc_status(error: ServiceError, request_id: str) -> status_pb2.Status:
    """The google.rpc.Status that carries all of ``error`` to a gRPC client."""
    status = status_pb2.Status(code=GRPC_CODES[error.code].value[0], message=short_message(error))
    for detail in _details(error, request_id):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def short_message(error: ServiceError) -> str:
    """The message, cut to what fits into trailing metadata."""
    if len(error.message) <= _MAX_MESSAGE_CHARS:
        return error.message
    return error.message[: _MAX_MESSAGE_CHARS - 3] + "..."


def _details(error: ServiceError, request_id: str) -> Iterator[Message]:
    yield error_details_pb2.ErrorInfo(reason=error.code.value, domain=DOMAIN)
    yield error_details_pb2.RequestInfo(request_id=request_id)
    if error.code is ErrorCode.QUOTA_EXCEEDED:
        yield _quota_failure(error.violations)
    elif error.violations:
        yield _bad_request(error.violations)
    if error.retry_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_seconds * 1e9))
        yield error_details_pb2.RetryInfo(retry_delay=delay)


def _bad_request(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    detail = error_details_pb2.BadRequest()
    for position, violation in enumerate(violations):
        detail.field_violations.add(field=violation.field, description=violation.description)
        if detail.ByteSize() > _MAX_VIOLATION_BYTES and position + 1 < len(violations):
            left = len(violations) - position - 1
            detail.field_violations.add(field="request", description=f"and {left} more")
            break
    return detail


def _quota_failure(violations: Sequence[FieldViolation]) -> error_details_pb2.QuotaFailure:
    kind = error_details_pb2.QuotaFailure
    return kind(
        violations=[kind.Violation(subject=v.field, description=v.description) for v in violations]
    )


def pushback(error: ServiceError) -> tuple[tuple[str, str], ...]:
    """Trailing metadata by which a gRPC library's own retries wait as long as RetryInfo says.

    https://github.com/grpc/proposal/blob/master/A6-client-retries.md
    """
    if error.retry_seconds is None:
        return ()
    return ((PUSHBACK_KEY, str(math.ceil(1000.0 * error.retry_seconds))),)


def from_rpc_status(code: StatusCode, message: str, details: bytes | None) -> ServiceError:
    """The error that a gRPC status represents; without details its code alone decides."""
    status = status_pb2.Status.FromString(details) if details else status_pb2.Status()
    info = _detail(status, error_details_pb2.ErrorInfo())
    retry = _detail(status, error_details_pb2.RetryInfo())
    return ServiceError(
        ErrorCode(info.reason) if info else _code_of(code),
        message,
        violations=_violations(status),
        retry_seconds=retry.retry_delay.ToNanoseconds() / 1e9 if retry else None,
    )


def _violations(status: status_pb2.Status) -> list[FieldViolation]:
    bad = _detail(status, error_details_pb2.BadRequest()) or error_details_pb2.BadRequest()
    quota = _detail(status, error_details_pb2.QuotaFailure()) or error_details_pb2.QuotaFailure()
    return [
        *(FieldViolation(v.field, v.description) for v in bad.field_violations),
        *(FieldViolation(v.subject, v.description) for v in quota.violations),
    ]


def _detail(status: status_pb2.Status, kind: Any) -> Any:
    return next((kind for packed in status.details if packed.Unpack(kind)), None)


def _code_of(code: StatusCode) -> ErrorCode:
    """The first error code with this gRPC code; only the service itself sends the others."""
    if code in _BROKEN_OFF:
        return ErrorCode.MODEL_NOT_READY
    return next((ours for ours, known in GRPC_CODES.items() if known is code), ErrorCode.INTERNAL)


def to_json_body(error: ServiceError, request_id: str) -> dict[str, Any]:
    """The body of a REST error response."""
    violations = [{"field": v.field, "description": v.description} for v in error.violations]
    return {
        "error": {
            "code": error.code.value,
            "message": error.message,
            "violations": violations,
            "retry_seconds": error.retry_seconds,
            "request_id": request_id,
        }
    }


def retry_after(error: ServiceError) -> dict[str, str]:
    """The Retry-After header in whole seconds, rounded up; empty if a retry cannot help."""
    if error.retry_seconds is None:
        return {}
    return {"retry-after": str(math.ceil(error.retry_seconds))}
