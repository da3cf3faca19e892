"""The metrics of the gateway for Prometheus.

Ours begin with `candor_`, units are seconds and RMSE on the [0, 1] pixel scale, and every label
comes from a set that is known at start: a client's text never becomes a label.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from http.server import HTTPServer
from types import MappingProxyType
from typing import Final, Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from candor.contracts.api import EngineName, ModelRef, Precision
from candor.contracts.errors import ErrorCode
from candor.contracts.names import versioned
from candor.contracts.reports import ReportState
from candor.gateway.workers.protocol import Role
from candor.terms import Goal, SearchStatus

OTHER: Final = "other"
# Verbs that concern one model, and those that do not; a new verb has to be added here.
MODEL_VERBS: Final = (
    "predict",
    "predict_many",
    "explain",
    "explain_many",
    "explain_stream",
    "probe",
    "compare",
    "get_model",
)
PLAIN_VERBS: Final = (
    "list_models",
    "annotations_next",
    "annotations_answer",
    "annotations_undo",
    "flips_next",
    "flips_answer",
    "flips_undo",
    "annotation_page",
    "create_report",
    "get_report",
    "list_reports",
    "cancel_report",
    "download_report",
    "create_explanation_job",
    "get_explanation_job",
    "list_explanation_jobs",
    "cancel_explanation_job",
    "download_explanation_job",
    "refused",  # rejected before its content was read
)
VERBS: Final = MODEL_VERBS + PLAIN_VERBS
OUTCOMES: Final = ("OK", "CANCELLED", *(code.value for code in ErrorCode))
CACHE_RESULTS: Final = ("hit", "shared", "miss")
ROLES: Final[tuple[Role, ...]] = get_args(Role)
ENGINES: Final[tuple[EngineName, ...]] = get_args(EngineName)
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
WORKER_ERRORS: Final = ("died", "unavailable", "fault")
JobName = Literal["report", "explanation"]
ShadowVerb = Literal["predict", "explain", "probe"]
ShadowOutcome = Literal["agree", "disagree", "failed", "skipped"]
ShadowMeasure = Literal["confidence", "gain", "rmse", "cosine", "radius_ratio"]
# The duration within which 99 of 100 requests of each verb shall end.  An edge of the histogram
# lies on each, so that the share within the objective is counted and not interpolated.
OBJECTIVE_SECONDS: Final[Mapping[str, float]] = {
    "predict": 0.25,
    "explain": 30.0,
    "explain_stream": 30.0,
    "probe": 30.0,
    "compare": 30.0,
}
FIRST_PROGRESS_OBJECTIVE_SECONDS: Final = 1.0

_REQUEST_EDGES = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 120.0, 240.0, 480.0, 600.0),
)
_CHUNK_EDGES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0)
_COUNT_EDGES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_RMSE_EDGES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# Metrics by their name without the prefix: help text, labels and, of a histogram, the edges.
_COUNTERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    # The names have no `_total`, which the library adds.
    "requests": ("Requests that ended.", ("verb", "model", "outcome")),
    "searches": ("Searches that ended.", ("model", "goal", "status")),
    "partial_searches": ("Responses with the best of an unfinished search.", ("model",)),
    "cancelled_searches": ("Searches that no client waited for any more.", ("model",)),
    "cache_requests": ("Look-ups in the cache.", ("model", "result")),
    "compute_seconds": ("Compute time, by tenant.", ("tenant",)),
    "worker_errors": ("Calls to workers without a response.", ("model", "role", "kind")),
    "shadow": ("Responses compared with another version's.", ("model", "verb", "outcome")),
}
_GAUGES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "active_searches": ("Searches that have begun.", ("model",)),
    "waiting_searches": ("Searches before their first chunk.", ("model",)),
    "pending_compute_seconds": ("Compute time that admitted searches still need.", ("model",)),
    "report_jobs": ("Robustness reports by state.", ("state",)),
    "explanation_jobs": ("Jobs that explain many images, by state.", ("state",)),
    "ready": ("1 if every model passed the last check.", ()),
    "shared_up": ("1 if the memory that gateways share answered last.", ()),
    "model_info": ("1 for the model in service.", ("model", "version", "weights_digest")),
    "engine": ("1 for what searches run on now.", ("model", "engine", "precision")),
}
HISTOGRAMS: Final[Mapping[str, tuple[str, tuple[str, ...], tuple[float, ...]]]] = {
    "request_seconds": ("From arrival to response.", ("verb", "model"), _REQUEST_EDGES),
    "queue_seconds": ("A search's wait for its first chunk.", ("model",), _REQUEST_EDGES),
    "first_progress_seconds": (
        "From a search's admission to the end of its first chunk.",
        ("model",),
        _REQUEST_EDGES,
    ),
    "chunk_seconds": ("One call that advances searches.", ("model",), _CHUNK_EDGES),
    "chunk_searches": ("Searches advanced by one call.", ("model",), _COUNT_EDGES),
    "search_steps": ("Steps a search took.", ("model",), _COUNT_EDGES),
    "search_rmse": ("RMSE of a search's image.", ("model", "goal"), _RMSE_EDGES),
    "shadow_confidence_difference": (
        "Largest change of a class's confidence in a prediction.",
        ("model",),
        (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    ),
    "shadow_gain_difference": (
        "Change of the confidence an explanation gains for its target.",
        ("model",),
        (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0),
    ),
    "shadow_rmse_difference": ("Change of an explanation's RMSE.", ("model",), _RMSE_EDGES),
    "shadow_cosine": (
        "Cosine of the perturbations of two versions.",
        ("model",),
        (-0.5, 0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0),
    ),
    "shadow_radius_ratio": (
        "A probe's radius over the primary's.",
        ("model",),
        (0.1, 0.25, 0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 2.0, 4.0, 10.0),
    ),
}
_SHADOW_HISTOGRAMS: Final[Mapping[ShadowMeasure, str]] = {
    "confidence": "shadow_confidence_difference",
    "gain": "shadow_gain_difference",
    "rmse": "shadow_rmse_difference",
    "cosine": "shadow_cosine",
    "radius_ratio": "shadow_radius_ratio",
}


class Metrics:
    """All metrics of one gateway, in a registry of their own.

    Args:
        models: names of the models, the default first; any other is counted as "other".
        tenants: tenants whose compute seconds are counted apart; any other counts as "other".
        primaries: the versioned name that a request without a version counts for.
    """

    def __init__(
        self,
        models: Sequence[str],
        tenants: Collection[str] = (),
        primaries: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._models = tuple(models)
        self._tenants = frozenset(tenants)
        self._primaries = {"": self._models[0], **primaries}
        self._counters = {
            name: Counter(f"candor_{name}", text, labels, registry=self.registry)
            for name, (text, labels) in _COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(f"candor_{name}", text, labels, registry=self.registry)
            for name, (text, labels) in _GAUGES.items()
        }
        self._histograms = {
            name: Histogram(f"candor_{name}", text, labels, registry=self.registry, buckets=edges)
            for name, (text, labels, edges) in HISTOGRAMS.items()
        }
        self._build = Info("candor_build", "This gateway.", registry=self.registry)
        self._known: dict[str, tuple[str, str, str]] = {}
        self._start_at_zero()

    def request_ended(self, verb: str, model: str, outcome: str, seconds: float) -> None:
        """One request: ``model`` empty for the default, ``outcome`` OK, CANCELLED or an error."""
        name = self._model(self._primaries.get(model, model)) if verb in MODEL_VERBS else ""
        verb = _closed(verb, VERBS)
        self._counters["requests"].labels(verb, name, _closed(outcome, OUTCOMES)).inc()
        self._histograms["request_seconds"].labels(verb, name).observe(seconds)

    def chunk_ended(self, model: str, search_count: int, seconds: float) -> None:
        """One call to a worker that advanced so many searches."""
        name = self._model(model)
        self._histograms["chunk_seconds"].labels(name).observe(seconds)
        self._histograms["chunk_searches"].labels(name).observe(search_count)

    def search_started(self, model: str, queue_seconds: float) -> None:
        """A search's first chunk begins now."""
        self._histograms["queue_seconds"].labels(self._model(model)).observe(queue_seconds)

    def search_progressed(self, model: str, seconds: float) -> None:
        """A search's first chunk ended, so long after its admission."""
        self._histograms["first_progress_seconds"].labels(self._model(model)).observe(seconds)

    def search_ended(
        self, model: str, goal: Goal, status: SearchStatus, *, steps: int, rmse: float
    ) -> None:
        """One search with its verified end, or with the best it had when time was up."""
        name = self._model(model)
        self._counters["searches"].labels(name, goal.value, status.value).inc()
        self._histograms["search_steps"].labels(name).observe(steps)
        self._histograms["search_rmse"].labels(name, goal.value).observe(rmse)

    def search_cut(self, model: str) -> None:
        """One search, counted by `search_ended` too, that had steps left."""
        self._counters["partial_searches"].labels(self._model(model)).inc()

    def search_cancelled(self, model: str) -> None:
        self._counters["cancelled_searches"].labels(self._model(model)).inc()

    def set_load(self, model: str, *, active: int, waiting: int, pending_seconds: float) -> None:
        """The load of a scheduler now; ``pending_seconds`` is its own estimate."""
        name = self._model(model)
        self._gauges["active_searches"].labels(name).set(active)
        self._gauges["waiting_searches"].labels(name).set(waiting)
        self._gauges["pending_compute_seconds"].labels(name).set(pending_seconds)

    def cache_asked(self, model: str, result: Literal["hit", "shared", "miss"]) -> None:
        """``shared``: not there yet, but being computed for another request."""
        self._counters["cache_requests"].labels(self._model(model), result).inc()

    def worker_failed(
        self, model: str, role: Role, kind: Literal["died", "unavailable", "fault"]
    ) -> None:
        self._counters["worker_errors"].labels(self._model(model), role, kind).inc()

    def computed(self, tenant: str, seconds: float) -> None:
        """The compute time of a search, for the tenant that requested it."""
        self._counters["compute_seconds"].labels(_closed(tenant, self._tenants)).inc(seconds)

    def shadow_ended(self, model: str, verb: ShadowVerb, outcome: ShadowOutcome) -> None:
        """One response that was, or was not, compared with that of ``model``, the shadow."""
        self._counters["shadow"].labels(self._model(model), verb, outcome).inc()

    def shadow_differs(self, model: str, measure: ShadowMeasure, value: float) -> None:
        """One difference between the response of a shadow and that of the primary."""
        self._histograms[_SHADOW_HISTOGRAMS[measure]].labels(self._model(model)).observe(value)

    def set_jobs(self, kind: JobName, counts: Mapping[ReportState, int]) -> None:
        """Jobs of a kind by state; a state left out has none."""
        for state in ReportState:
            self._gauges[f"{kind}_jobs"].labels(state.value).set(counts.get(state, 0))

    def set_ready(self, is_ready: bool) -> None:
        self._gauges["ready"].set(int(is_ready))

    def set_shared(self, is_there: bool) -> None:
        """Whether the memory that gateways share answers; 0 from the start."""
        self._gauges["shared_up"].set(int(is_there))

    def set_build(self, version: str) -> None:
        self._build.info({"version": version})

    def set_model(self, model: ModelRef) -> None:
        """The version now in service replaces the one before it."""
        served = versioned(model.name, model.version)
        name = served if served in self._models else self._model(model.name)
        labels = (name, model.version, model.weights_digest)
        known = self._known.get(name)
        if known not in (None, labels):
            self._gauges["model_info"].remove(*known)
        self._known[name] = labels
        self._gauges["model_info"].labels(*labels).set(1)

    def set_engine(self, model: str, engine: EngineName, precision: Precision) -> None:
        """What the searches of the model run on now."""
        name = self._model(model)
        for one in itertools.product(ENGINES, PRECISIONS):
            self._gauges["engine"].labels(name, *one).set(int(one == (engine, precision)))

    def _start_at_zero(self) -> None:
        """Series that exist before the first event, so that a rate sees the first one."""
        for verb, outcome in itertools.product(PLAIN_VERBS, OUTCOMES):
            self._counters["requests"].labels(verb, "", outcome)
        for verb in PLAIN_VERBS:
            self._histograms["request_seconds"].labels(verb, "")
        for model in self._models:
            self._start_model_at_zero(model)
        for tenant in (*self._tenants, OTHER):
            self._counters["compute_seconds"].labels(tenant)
        for kind in get_args(JobName):
            self.set_jobs(kind, {})

    def _start_model_at_zero(self, model: str) -> None:
        self.set_load(model, active=0, waiting=0, pending_seconds=0.0)
        for verb, outcome in itertools.product(MODEL_VERBS, OUTCOMES):
            self._counters["requests"].labels(verb, model, outcome)
        for verb in MODEL_VERBS:
            self._histograms["request_seconds"].labels(verb, model)
        for counter in ("partial_searches", "cancelled_searches"):
            self._counters[counter].labels(model)
        for name, (_, labels, _) in HISTOGRAMS.items():
            if labels == ("model",):
                self._histograms[name].labels(model)
        for goal, status in itertools.product(Goal, SearchStatus):
            self._counters["searches"].labels(model, goal.value, status.value)
        for goal in Goal:
            self._histograms["search_rmse"].labels(model, goal.value)
        for verb, outcome in itertools.product(get_args(ShadowVerb), get_args(ShadowOutcome)):
            self._counters["shadow"].labels(model, verb, outcome)
        for result in CACHE_RESULTS:
            self._counters["cache_requests"].labels(model, result)
        for one in itertools.product(ENGINES, PRECISIONS):
            self._gauges["engine"].labels(model, *one)
        for role, kind in itertools.product(ROLES, WORKER_ERRORS):
            self._counters["worker_errors"].labels(model, role, kind)

    def _model(self, name: str) -> str:
        return _closed(name, self._models)


def start_exposition(metrics: Metrics, host: str, port: int) -> HTTPServer:
    """Serves /metrics from a thread; `shutdown` and `server_close` end it.

    Raises:
        OSError: the port is taken.
    """
    # They would be a second series beside each, which is not used.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    server, _ = start_http_server(port, host, registry=metrics.registry)
    return server


def _closed(value: str, allowed: Collection[str]) -> str:
    return value if value in allowed else OTHER
