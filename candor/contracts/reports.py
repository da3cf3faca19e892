"""Requests and responses of `ReportService`: robustness reports as jobs.

The descriptions of the messages and of their fields, with units and ranges, are the comments of
``proto/candor/v1/reports.proto``.
"""

import uuid
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from candor import terms
from candor.contracts import limits
from candor.contracts.api import Flag, Number, Probability, Rmse, Seed, Steps
from candor.contracts.card import MetricCard
from candor.contracts.messages import Message, described, one_of

NAME_PREFIX = "reports/"


DataSet = Annotated[
    str,
    AfterValidator(one_of(limits.DATA_SETS)),
    WithJsonSchema({"type": "string", "enum": list(limits.DATA_SETS)}),
]
Attack = Annotated[
    str,
    AfterValidator(one_of(limits.ATTACKS)),
    WithJsonSchema({"type": "string", "enum": list(limits.ATTACKS)}),
]
BudgetName = Annotated[
    str,
    AfterValidator(one_of(limits.BUDGETS)),
    WithJsonSchema({"type": "string", "enum": list(limits.BUDGETS)}),
]
IdempotencyKey = Annotated[
    str, StringConstraints(max_length=limits.MAX_KEY_CHARS, pattern=r"^[\x21-\x7e]*$")
]
ReportImages = Annotated[
    int, Field(strict=True, ge=limits.MIN_REPORT_IMAGES, le=limits.MAX_REPORT_IMAGES)
]
PageSize = Annotated[int, Field(strict=True, ge=1, le=limits.MAX_PAGE_SIZE)]
ReportBatch = Annotated[int, Field(strict=True, ge=1, le=limits.MAX_REPORT_BATCH)]


def _default_budget(validated: Mapping[str, object]) -> str:
    """The budget where the field is not set; `quick` is validated first."""
    return "quick" if validated.get("quick") else limits.DEFAULT_BUDGET


@described()
class ReportState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"

    @property
    def is_final(self) -> bool:
        """Whether the job no longer changes."""
        return self not in (ReportState.QUEUED, ReportState.RUNNING)


class CreateReportRequest(Message):
    model: str = ""
    data: DataSet = "cifar10"
    image_count: ReportImages = limits.DEFAULT_REPORT_IMAGES
    attacks: Annotated[tuple[Attack, ...], Field(max_length=len(limits.ATTACKS))] = ()
    attacks_only: Flag = False
    quick: Flag = False
    seed: Seed = 0
    steps: Steps | None = None
    batch_size: ReportBatch = limits.DEFAULT_REPORT_BATCH
    independent: str = ""
    undefended: str = ""
    compare: str = ""
    idempotency_key: IdempotencyKey = ""
    budget: BudgetName = Field(default_factory=_default_budget)

    def keyed(self) -> Self:
        """The request with an idempotency key, so that a repeated call creates one job."""
        if self.idempotency_key:
            return self
        return self.model_copy(update={"idempotency_key": uuid.uuid4().hex})

    @model_validator(mode="after")
    def _has_one_budget(self) -> Self:
        if self.quick and self.budget != "quick":
            raise ValueError(f"budget: expected quick, as `quick` says, got {self.budget}")
        return self

    @model_validator(mode="after")
    def _has_a_solver(self) -> Self:
        if self.attacks and not set(self.attacks) & set(terms.SOLVERS):
            solvers = " or ".join(terms.SOLVERS)
            got = ", ".join(self.attacks)
            raise ValueError(f"attacks: expected {solvers} among them, got {got}")
        return self


class ReportProgress(Message):
    fraction: Probability
    stage: str
    images_done: Annotated[int, Field(strict=True, ge=0)]
    image_count: Annotated[int, Field(strict=True, ge=0)]
    attack_ara: Rmse | None
    seconds_left: Number | None


class ReportFile(Message):
    name: str
    byte_count: Annotated[int, Field(strict=True, ge=0)]
    sha256: str


class NotTried(Message):
    attack: str
    image_count: Annotated[int, Field(strict=True, ge=1)]
    planned_count: Annotated[int, Field(strict=True, ge=1)]
    reasons: tuple[str, ...]


class ReportResult(Message):
    files: tuple[ReportFile, ...]
    metrics: tuple[MetricCard, ...]
    warnings: tuple[str, ...]
    not_tried: tuple[NotTried, ...] = ()


class ReportFailure(Message):
    message: str


class Report(Message):
    name: str
    state: ReportState
    done: Flag
    cancel_requested: Flag
    request: CreateReportRequest
    progress: ReportProgress | None
    error: ReportFailure | None
    response: ReportResult | None
    create_time: Number
    start_time: Number | None
    end_time: Number | None


class ListReportsRequest(Message):
    page_size: PageSize = limits.DEFAULT_PAGE_SIZE
    page_token: str = ""
    state: ReportState | None = None


class ListReportsResponse(Message):
    reports: tuple[Report, ...]
    next_page_token: str
