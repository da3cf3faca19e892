"""Requests and responses of `ExplanationJobService`: explanations of many images as jobs.

The descriptions of the messages and of their fields, with units and ranges, are the comments of
``proto/candor/v1/explanation_jobs.proto``.
"""

import unicodedata
import uuid
from pathlib import PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from candor import terms
from candor.contracts import limits
from candor.contracts.api import (
    ClassRef,
    Flag,
    Number,
    Probability,
    Rho,
    Rmse,
    Seed,
    Solver,
    Steps,
    explain_steps,
)
from candor.contracts.messages import Message, one_of
from candor.contracts.reports import (
    IdempotencyKey,
    PageSize,
    ReportBatch,
    ReportFailure,
    ReportFile,
    ReportState,
)

NAME_PREFIX = "explanation-jobs/"


def _folder(text: str) -> str:
    """A relative path without steps upwards, whose characters people see."""
    parts = PurePosixPath(text).parts
    is_seen = all(unicodedata.category(char)[0] != "C" for char in text)
    is_plain = is_seen and "/".join(parts) == text and parts and parts[0] != "/"
    if not is_plain or any(part.startswith(".") for part in parts):
        raise ValueError(
            "expected the name of a folder, like a or a/b, of which no part starts with '.', "
            f"got {text[:60]!r}"
        )
    return text


Count = Annotated[int, Field(strict=True, ge=0)]
Folder = Annotated[
    str, StringConstraints(max_length=limits.MAX_FOLDER_CHARS), AfterValidator(_folder)
]


class ExplanationOptions(BaseModel):
    """What decides the explanations of many images, whoever computes them.

    Attributes:
        target: None for the runner-up of each image.
        rho: None for the model's recommended one.
    """

    target: ClassRef | None = None
    rho: Rho | None = None
    norm: terms.Norm = terms.Norm.L2
    solver: Annotated[Solver, AfterValidator(one_of(terms.SOLVERS))] = terms.DEFAULT_SOLVER
    steps: Steps = Field(default_factory=explain_steps)
    seed: Seed = 0
    measure_radius: Flag = False
    batch_size: ReportBatch = limits.DEFAULT_REPORT_BATCH


class CreateExplanationJobRequest(ExplanationOptions, Message):
    model: str = ""
    folder: Folder
    idempotency_key: IdempotencyKey = ""

    def keyed(self) -> Self:
        """The request with an idempotency key, so that a repeated call creates one job."""
        if self.idempotency_key:
            return self
        return self.model_copy(update={"idempotency_key": uuid.uuid4().hex})


class ExplanationJobProgress(Message):
    fraction: Probability
    stage: str
    images_done: Count
    image_count: Count
    seconds_left: Number | None


class ExplanationJobResult(Message):
    files: tuple[ReportFile, ...]
    image_count: Annotated[int, Field(strict=True, ge=1)]
    error_count: Count
    flip_count: Count
    median_radius: Rmse | None


class ExplanationJob(Message):
    name: str
    state: ReportState
    done: Flag
    cancel_requested: Flag
    request: CreateExplanationJobRequest
    progress: ExplanationJobProgress | None
    error: ReportFailure | None
    response: ExplanationJobResult | None
    create_time: Number
    start_time: Number | None
    end_time: Number | None


class ListExplanationJobsRequest(Message):
    page_size: PageSize = limits.DEFAULT_PAGE_SIZE
    page_token: str = ""
    state: ReportState | None = None


class ListExplanationJobsResponse(Message):
    jobs: tuple[ExplanationJob, ...]
    next_page_token: str
