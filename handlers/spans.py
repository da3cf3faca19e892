"""The span of one TorchServe batch."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from opentelemetry.trace import Span

from candor.tracing import (
    ENDPOINT_VARIABLE,
    TRACE_KEY,
    Tracing,
    received,
    shared_span,
    start_tracing,
)


def start_worker_tracing() -> Tracing:
    """Spans go to the collector that the environment names; without one there are none."""
    return start_tracing("candor-worker", os.environ.get(ENDPOINT_VARIABLE, ""))


def batch_span(
    tracing: Tracing, role: str, rows: Sequence[Mapping[str, Any]]
) -> AbstractContextManager[Span]:
    """The span of a batch: a child of the span of the first row, linked to those of the others."""
    carriers = [{TRACE_KEY: bytes(row.get(TRACE_KEY, b"")).decode("latin-1")} for row in rows]
    parents = [received(carrier) for carrier in carriers]
    return shared_span(tracing.tracer, role, parents, {"candor.rows": len(rows)})
