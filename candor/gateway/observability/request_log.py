"""One JSON log line, one count and one span a request; what a caller hears of our own mistakes."""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError

from candor import tracing
from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.access.request_context import report_model
from candor.gateway.observability.metrics import VERBS, Metrics
from candor.rpc import status
from candor.tracing import NO_TRACING, Tracing

MAX_REQUEST_ID_CHARS = 128
_STORE_RETRY_SECONDS = 5.0
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
_OUR_FAULTS = {code.value for code, number in status.HTTP_STATUS.items() if number >= 500}
_requests = logging.getLogger("gateway.requests")
_faults = logging.getLogger("gateway.faults")


def request_id(sent: str | None) -> str:
    """The caller's own id, cut to 128 printable characters; a new one where nothing is left."""
    cleaned = _UNPRINTABLE.sub("", sent or "")[:MAX_REQUEST_ID_CHARS]
    return cleaned or uuid.uuid4().hex


class JsonLines(logging.Formatter):
    """Every record as one JSON object on one line; ``extra={"fields": ...}`` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


@dataclass(slots=True)
class Call:
    """One request as its log line tells it; filled in as things become known.

    Attributes:
        verb: one of `candor.gateway.observability.metrics.VERBS`.
        model: what was asked for, and from when it is known what works on it.
        cached_count: explanations or probes that the cache answered.
        partial_count: those that the deadline cut short.
    """

    verb: str
    request_id: str
    model: str = ""
    cached_count: int = 0
    partial_count: int = 0

    def __post_init__(self) -> None:
        assert self.verb in VERBS, f"verb: got {self.verb!r}, allowed {VERBS}"

    def set_model(self, name: str) -> None:
        self.model = name

    def note(self, answer: BaseModel) -> None:
        """What the log line tells of an answer."""
        parts = getattr(answer, "explanations", getattr(answer, "results", ()))
        self.cached_count = sum(part.from_cache for part in parts)
        self.partial_count = sum(part.is_partial for part in parts)


class RequestLog:
    """Watches the requests of all doors.

    Args:
        metrics: counts them.
        tracing: makes a span of each, below the caller's own.
    """

    def __init__(self, metrics: Metrics, tracing: Tracing = NO_TRACING) -> None:
        self._metrics = metrics
        self._tracer = tracing.tracer

    @contextmanager
    def watch(self, call: Call, headers: Mapping[str, str]) -> Iterator[None]:
        """Tells of the call when it ends; every exception leaves as a ServiceError.

        Of an exception nobody expected the caller hears a fixed sentence and the request id, the
        log the traceback.

        Args:
            headers: or metadata, keys in lower case.
        """
        started, code = time.perf_counter(), "OK"
        span = self._tracer.start_span(
            call.verb, context=tracing.received(headers), kind=SpanKind.SERVER
        )
        # Never detached: a request has a task of its own, and a stream may be closed in another.
        context.attach(trace.set_span_in_context(span))
        report_model.set(call.set_model)
        try:
            yield
        except ServiceError as err:
            code = err.code.value
            raise
        except (asyncio.CancelledError, GeneratorExit):  # the latter ends a stream
            code = "CANCELLED"
            raise
        except OperationalError as err:  # its disk is full or the database away: both may pass
            code = ErrorCode.MODEL_NOT_READY.value
            _tell_fault(call)
            raise ServiceError(
                ErrorCode.MODEL_NOT_READY,
                "store: does not answer or is full; nothing was changed",
                retry_seconds=_STORE_RETRY_SECONDS,
            ) from err
        except Exception as err:
            code = ErrorCode.INTERNAL.value
            _tell_fault(call)
            message = f"internal error, see the log for request {call.request_id}"
            raise ServiceError(ErrorCode.INTERNAL, message) from err
        finally:
            self._ended(call, code, time.perf_counter() - started, span)

    def refused(self, request_id: str, headers: Mapping[str, str], error: ServiceError) -> None:
        """Tells of a request that was turned away before anything looked into it."""
        with suppress(ServiceError), self.watch(Call("refused", request_id), headers):
            raise error

    def _ended(self, call: Call, code: str, seconds: float, span: Span) -> None:
        self._metrics.request_ended(call.verb, call.model, code, seconds)
        line: dict[str, str | int | float] = {
            "request_id": call.request_id,
            "verb": call.verb,
            # The requested name is the caller's text: cut it, JSON escapes the rest.
            "model": call.model[:64],
            "code": code,
            "seconds": round(seconds, 6),
            "cached": call.cached_count,
            "partial": call.partial_count,
        }
        _end_span(span, line)
        if span.get_span_context().is_valid:
            line["trace_id"] = trace.format_trace_id(span.get_span_context().trace_id)
        _requests.info("request", extra={"fields": line})


def _tell_fault(call: Call) -> None:
    fields = {"request_id": call.request_id}
    _faults.exception("request %s", call.request_id, extra={"fields": fields})


def _end_span(span: Span, line: Mapping[str, str | int | float]) -> None:
    span.set_attributes({f"candor.{key}": value for key, value in line.items() if key != "seconds"})
    if line["code"] in _OUR_FAULTS:
        span.set_status(StatusCode.ERROR, str(line["code"]))
    span.end()
