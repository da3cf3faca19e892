"""What both transports serve."""

from collections.abc import Callable
from dataclasses import dataclass

from candor.gateway.access.authorizer import Authorizer
from candor.gateway.config.settings import Settings
from candor.gateway.observability.request_log import RequestLog
from candor.gateway.service.candor_service import CandorService
from candor.gateway.service.jobs import ExplanationJobService
from candor.gateway.service.open_inference import OpenInference
from candor.gateway.service.reports import ReportService
from candor.store.annotations import Annotations
from candor.store.flips import Flips


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a gateway behind its transports.

    Attributes:
        authorizer: decides about every request.
        is_ready: whether every model served a real request at the last check.
        reports, explanation_jobs, annotations, flips: None for a gateway without a store.
    """

    settings: Settings
    service: CandorService
    open_inference: OpenInference
    authorizer: Authorizer
    request_log: RequestLog
    is_ready: Callable[[], bool]
    reports: ReportService | None = None
    explanation_jobs: ExplanationJobService | None = None
    annotations: Annotations | None = None
    flips: Flips | None = None
