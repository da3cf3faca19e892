"""Metrics, spans and charges of one model's jobs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from opentelemetry.util.types import AttributeValue

from candor.gateway.observability.metrics import Metrics
from candor.gateway.scheduling.jobs import Job, Search
from candor.gateway.scheduling.policy import JobQueue
from candor.gateway.workers.codec import SearchOutcome
from candor.tracing import Tracing, shared_span

OnCharge = Callable[[str, float], None]  # tenant, seconds of computing


class Telemetry:
    """Reports what happens to the jobs of one model.

    Args:
        on_charge: called with every tenant's seconds of computing.
    """

    def __init__(self, model: str, metrics: Metrics, tracing: Tracing, on_charge: OnCharge) -> None:
        self._model = model
        self._metrics = metrics
        self._tracer = tracing.tracer
        self._on_charge = on_charge

    def load(self, queue: JobQueue, backlog_seconds: float) -> None:
        """Jobs that have started and that wait, and the computing they still need."""
        active = sum(job.is_started for job in queue)
        self._metrics.set_load(
            self._model,
            active=active,
            waiting=len(queue) - active,
            pending_seconds=backlog_seconds,
        )

    def search_started(self, search: Search, now: float) -> None:
        """A search is sent for the first time."""
        self._metrics.search_started(self._model, now - search.admitted)

    def search_ended(self, search: Search, outcome: SearchOutcome) -> None:
        """A search has an outcome, whole or partial."""
        end = outcome.end
        self._metrics.search_ended(
            self._model, search.item.goal, end.status, steps=end.steps, rmse=end.rmse
        )
        if outcome.is_partial:
            self._metrics.search_cut(self._model)

    def search_cancelled(self) -> None:
        """A search was ended because no request waits for it."""
        self._metrics.search_cancelled(self._model)

    def chunk_ended(self, search_count: int, seconds: float) -> None:
        """A chunk of searches is back after ``seconds``."""
        self._metrics.chunk_ended(self._model, search_count, seconds)

    def search_progressed(self, search: Job, now: float) -> None:
        """A search has taken its first steps."""
        self._metrics.search_progressed(self._model, now - search.admitted)

    def charge(self, job: Job, seconds: float) -> None:
        """A job has cost its tenant ``seconds`` of computing."""
        self._metrics.computed(job.tenant, seconds)
        self._on_charge(job.tenant, seconds)

    def span(self, batch: Sequence[Job], steps: int) -> AbstractContextManager[object]:
        """The span of one call for ``batch``."""
        attributes: dict[str, AttributeValue] = {
            "candor.model": self._model,
            "candor.searches": len(batch),
            "candor.steps": steps,
        }
        return shared_span(self._tracer, "chunk", [job.trace for job in batch], attributes)
