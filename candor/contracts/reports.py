"""Robustness reports as jobs: what `ReportService` is asked and answers.

Fields mean what ``proto/candor/v1/reports.proto`` says of them.
"""

import uuid
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from candor import terms
from candor.contracts import limits
from candor.contracts.api import Probability, Rmse, Seed, Steps
from candor.contracts.card import MetricCard

NAME_PREFIX = "reports/"


def _one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"got {value[:60]!r}, allowed {', '.join(names)}")
        return value

    return check


DataSet = Annotated[
    str,
    AfterValidator(_one_of(limits.DATA_SETS)),
    WithJsonSchema({"type": "string", "enum": list(limits.DATA_SETS)}),
]
Attack = Annotated[
    str,
    AfterValidator(_one_of(limits.ATTACKS)),
    WithJsonSchema({"type": "string", "enum": list(limits.ATTACKS)}),
]
IdempotencyKey = Annotated[
    str, StringConstraints(max_length=limits.MAX_KEY_CHARS, pattern=r"^[\x21-\x7e]*$")
]
ReportImages = Annotated[int, Field(ge=limits.MIN_REPORT_IMAGES, le=limits.MAX_REPORT_IMAGES)]
ReportBatch = Annotated[int, Field(ge=1, le=limits.MAX_REPORT_BATCH)]


class ReportState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self not in (ReportState.QUEUED, ReportState.RUNNING)


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class CreateReportRequest(_Message):
    model: str = ""
    data: DataSet = "cifar10"
    image_count: ReportImages = limits.DEFAULT_REPORT_IMAGES
    attacks: Annotated[tuple[Attack, ...], Field(max_length=len(limits.ATTACKS))] = ()
    attacks_only: bool = False
    quick: bool = False
    seed: Seed = 0
    steps: Steps | None = None
    batch_size: ReportBatch = limits.DEFAULT_REPORT_BATCH
    independent: str = ""
    undefended: str = ""
    compare: str = ""
    idempotency_key: IdempotencyKey = ""

    def keyed(self) -> Self:
        """The same with a key where it has none, so that a call repeated makes one job."""
        if self.idempotency_key:
            return self
        return self.model_copy(update={"idempotency_key": uuid.uuid4().hex})

    @model_validator(mode="after")
    def _has_a_solver(self) -> Self:
        if self.attacks and not set(self.attacks) & set(terms.SOLVERS):
            allowed = ", ".join(terms.SOLVERS)
            got = ", ".join(self.attacks)
            raise ValueError(f"attacks: got {got}, allowed with at least one of {allowed}")
        return self


class ReportProgress(_Message):
    fraction: Probability
    stage: str
    images_done: int
    image_count: int
    attack_ara: Rmse | None
    seconds_left: float | None


class ReportFile(_Message):
    name: str
    byte_count: int
    sha256: str


class ReportResult(_Message):
    files: tuple[ReportFile, ...]
    metrics: tuple[MetricCard, ...]
    warnings: tuple[str, ...]


class ReportFailure(_Message):
    message: str


class Report(_Message):
    """A job; ``error`` or ``response`` once it is done, neither where it was cancelled."""

    name: str
    state: ReportState
    done: bool
    cancel_requested: bool
    request: CreateReportRequest
    progress: ReportProgress | None
    error: ReportFailure | None
    response: ReportResult | None
    create_time: float
    start_time: float | None
    end_time: float | None


class ListReportsRequest(_Message):
    page_size: Annotated[int, Field(ge=1, le=limits.MAX_PAGE_SIZE)] = limits.DEFAULT_PAGE_SIZE
    page_token: str = ""
    state: ReportState | None = None


class ListReportsResponse(_Message):
    reports: tuple[Report, ...]
    next_page_token: str
