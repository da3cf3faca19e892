"""One JSON log line a request, request ids, and what a caller hears of our own mistakes.

Imports contracts only.
"""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import BaseModel

from candor.contracts.errors import ErrorCode, ServiceError

MAX_REQUEST_ID_CHARS = 128
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
_requests = logging.getLogger("gateway.requests")
_faults = logging.getLogger("gateway.faults")


def request_id(sent: str | None) -> str:
    """The caller's own id, cut to 128 printable characters; a new one where nothing is left."""
    cleaned = _UNPRINTABLE.sub("", sent or "")[:MAX_REQUEST_ID_CHARS]
    return cleaned or uuid.uuid4().hex


@dataclass(slots=True)
class Call:
    """One request as its log line tells it; filled in as things become known.

    Attributes:
        cached_count: explanations or probes that the cache answered.
        partial_count: those that the deadline cut short.
    """

    verb: str
    request_id: str
    model: str = ""
    cached_count: int = 0
    partial_count: int = 0

    def note(self, answer: BaseModel) -> None:
        """What the log line tells of an answer."""
        parts = getattr(answer, "explanations", getattr(answer, "results", ()))
        self.cached_count = sum(part.from_cache for part in parts)
        self.partial_count = sum(part.is_partial for part in parts)


@contextmanager
def observed(call: Call) -> Iterator[None]:
    """Logs the call when it ends; every exception leaves as a ServiceError.

    Of an exception nobody expected the caller hears a fixed sentence and the request id, the log
    the traceback.
    """
    started, code = time.perf_counter(), "OK"
    try:
        yield
    except ServiceError as err:
        code = err.code.value
        raise
    except (asyncio.CancelledError, GeneratorExit):  # the latter ends a stream
        code = "CANCELLED"
        raise
    except Exception as err:
        code = ErrorCode.INTERNAL.value
        _faults.exception("request %s", call.request_id)
        message = f"internal error, see the log for request {call.request_id}"
        raise ServiceError(ErrorCode.INTERNAL, message) from err
    finally:
        _log(call, code, time.perf_counter() - started)


def refused(call: Call, error: ServiceError) -> None:
    """Logs a request that was turned away before anything looked into it."""
    _log(call, error.code.value, 0.0)


def _log(call: Call, code: str, seconds: float) -> None:
    # The requested name is the caller's text: cut it, JSON escapes the rest.
    line = {
        "request_id": call.request_id,
        "verb": call.verb,
        "model": call.model[:64],
        "code": code,
        "seconds": round(seconds, 6),
        "cached": call.cached_count,
        "partial": call.partial_count,
    }
    _requests.info(json.dumps(line))
