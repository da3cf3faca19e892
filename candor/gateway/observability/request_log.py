"""One JSON log line, one count and one span per request; internal errors become fixed messages."""

import asyncio
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

from candor import tracing
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.json_text import json_text
from candor.contracts.secrets import without_secrets
from candor.gateway.access.request_context import client_address, report_model
from candor.gateway.observability.metrics import VERBS, Metrics
from candor.gateway.observability.open_calls import OpenCalls
from candor.rpc import status
from candor.store.engine import is_away
from candor.tracing import NO_TRACING, Tracing

MAX_REQUEST_ID_CHARS = 128
_STORE_RETRY_SECONDS = 5.0
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
_OUR_FAULTS = {code.value for code, number in status.HTTP_STATUS.items() if number >= 500}
_requests = logging.getLogger("gateway.requests")
_faults = logging.getLogger("gateway.faults")


def usable_request_id(sent: str | None) -> str:
    """The client's own id, cut to 128 printable characters; a new one if nothing is left."""
    cleaned = _UNPRINTABLE.sub("", sent or "")[:MAX_REQUEST_ID_CHARS]
    return cleaned or uuid.uuid4().hex


class JsonLines(logging.Formatter):
    """Every record as one JSON object on one line; ``extra={"fields": ...}`` adds to it.

    Secrets are hidden in what it says, also in what a library wrote.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = without_secrets(self.formatException(record.exc_info))
        return json_text(line)


@dataclass(slots=True)
class LogEntry:
    """What the log line of one request says; filled in as it becomes known.

    Attributes:
        verb: one of `candor.gateway.observability.metrics.VERBS`.
        model: the requested model; later the one that serves the request.
        cached_count: explanations or probes that came from the cache.
        partial_count: those that the deadline cut short.
    """

    verb: str
    request_id: str
    model: str = ""
    cached_count: int = 0
    partial_count: int = 0

    def __post_init__(self) -> None:
        assert self.verb in VERBS, f"verb: expected one of {VERBS}, got {self.verb!r}"

    def set_model(self, name: str) -> None:
        self.model = name

    def note(self, response: BaseModel) -> None:
        """Counts the parts of a response, or of the result that an event of a stream carries."""
        whole = getattr(response, "result", response)
        parts = getattr(whole, "explanations", getattr(whole, "results", ()))
        self.cached_count = sum(part.from_cache for part in parts)
        self.partial_count = sum(part.is_partial for part in parts)


class RequestLog:
    """Logs, counts and traces the requests of all transports.

    Args:
        metrics: counts the requests.
        tracing: makes a span of each request, below the client's own.
    Attributes:
        open_calls: the requests in progress.
    """

    def __init__(self, metrics: Metrics, tracing: Tracing = NO_TRACING) -> None:
        self._metrics = metrics
        self._tracer = tracing.tracer
        self.open_calls = OpenCalls()

    @contextmanager
    def watch(self, entry: LogEntry, headers: Mapping[str, str]) -> Iterator[None]:
        """Logs the request when it ends; every exception leaves as a ServiceError.

        For an unexpected exception the client gets a fixed message with the request id, and the
        log gets the traceback.

        Args:
            headers: or metadata, keys in lower case.
        """
        started, code = time.perf_counter(), "OK"
        span = self._tracer.start_span(
            entry.verb, context=tracing.received(headers), kind=SpanKind.SERVER
        )
        # Never detached: a request has a task of its own, and a stream may be closed in another.
        context.attach(trace.set_span_in_context(span))
        report_model.set(entry.set_model)
        try:
            with self.open_calls.running():
                yield
        except ServiceError as err:
            code = err.code.value
            raise
        except (asyncio.CancelledError, GeneratorExit):  # the latter ends a stream
            code = "CANCELLED"
            raise
        except Exception as err:
            _log_fault(entry)
            known = _known_error(err, entry.request_id)
            code = known.code.value
            raise known from err
        finally:
            self._ended(entry, code, time.perf_counter() - started, span)

    def rejected(self, request_id: str, headers: Mapping[str, str], error: ServiceError) -> None:
        """Logs a request that was rejected before its content was read."""
        with suppress(ServiceError), self.watch(LogEntry("refused", request_id), headers):
            raise error

    def _ended(self, entry: LogEntry, code: str, seconds: float, span: Span) -> None:
        self._metrics.request_ended(entry.verb, entry.model, code, seconds)
        line: dict[str, str | int | float] = {
            "request_id": entry.request_id,
            "verb": entry.verb,
            # The requested name is the client's text: cut it, JSON escapes the rest.
            "model": entry.model[:64],
            "code": code,
            "seconds": round(seconds, 6),
            "cached": entry.cached_count,
            "partial": entry.partial_count,
        }
        _end_span(span, line)
        line["client"] = client_address.get()
        if span.get_span_context().is_valid:
            line["trace_id"] = trace.format_trace_id(span.get_span_context().trace_id)
        _requests.info("request", extra={"fields": line})


def _known_error(error: Exception, request_id: str) -> ServiceError:
    """What the client learns of an unexpected exception: nothing that a library wrote."""
    if is_away(error):  # the disk is full or the database down: both may pass
        return ServiceError(
            ErrorCode.MODEL_NOT_READY,
            "store: does not answer or is full; nothing was changed",
            retry_seconds=_STORE_RETRY_SECONDS,
        )
    message = f"internal error, see the log for request {request_id}"
    return ServiceError(ErrorCode.INTERNAL, message)


def _log_fault(entry: LogEntry) -> None:
    fields = {"request_id": entry.request_id}
    _faults.exception("request %s", entry.request_id, extra={"fields": fields})


def _end_span(span: Span, line: Mapping[str, str | int | float]) -> None:
    span.set_attributes({f"candor.{key}": value for key, value in line.items() if key != "seconds"})
    if line["code"] in _OUR_FAULTS:
        span.set_status(StatusCode.ERROR, str(line["code"]))
    span.end()
