"""The kinds of jobs: what their requests, their results and their names are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from candor.contracts import explanation_jobs, reports
from candor.contracts.errors import ErrorCode
from candor.contracts.explanation_jobs import (
    CreateExplanationJobRequest,
    ExplanationJob,
    ExplanationJobProgress,
    ExplanationJobResult,
    ListExplanationJobsResponse,
)
from candor.contracts.reports import (
    CreateReportRequest,
    ListReportsResponse,
    Report,
    ReportProgress,
    ReportResult,
    ReportState,
)

RequestT = TypeVar("RequestT", CreateReportRequest, CreateExplanationJobRequest)
JobT = TypeVar("JobT", Report, ExplanationJob)
PageT = TypeVar("PageT", ListReportsResponse, ListExplanationJobsResponse)
JobRequest = CreateReportRequest | CreateExplanationJobRequest
Progress = ReportProgress | ExplanationJobProgress
Result = ReportResult | ExplanationJobResult


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind(Generic[RequestT, JobT, PageT]):
    """One kind of job, stored beside the others.

    Attributes:
        name: in the column ``kind``.
        prefix: of the names that clients know.
        request, resource, progress, result: messages of the contract.
        page: makes the response of a list from jobs and the token of the next page.
        not_found: the error for a name that no job has.
        unread: fields of a request of another version that this one's contract would reject.
    """

    name: Literal["report", "explanation"]
    prefix: str
    request: type[RequestT]
    resource: type[JobT]
    progress: type[ReportProgress] | type[ExplanationJobProgress]
    result: type[ReportResult] | type[ExplanationJobResult]
    page: Callable[[tuple[JobT, ...], str], PageT]
    not_found: ErrorCode
    unread: Mapping[str, Any] = field(default_factory=dict)


REPORTS = JobKind(
    name="report",
    prefix=reports.NAME_PREFIX,
    request=CreateReportRequest,
    resource=Report,
    progress=ReportProgress,
    result=ReportResult,
    page=lambda jobs, token: ListReportsResponse(reports=jobs, next_page_token=token),
    not_found=ErrorCode.REPORT_NOT_FOUND,
    unread={"attacks": ()},
)
EXPLANATIONS = JobKind(
    name="explanation",
    prefix=explanation_jobs.NAME_PREFIX,
    request=CreateExplanationJobRequest,
    resource=ExplanationJob,
    progress=ExplanationJobProgress,
    result=ExplanationJobResult,
    page=lambda jobs, token: ListExplanationJobsResponse(jobs=jobs, next_page_token=token),
    not_found=ErrorCode.JOB_NOT_FOUND,
    unread={"target": None},
)
AnyKind = (
    JobKind[CreateReportRequest, Report, ListReportsResponse]
    | JobKind[CreateExplanationJobRequest, ExplanationJob, ListExplanationJobsResponse]
)
KINDS: Mapping[str, AnyKind] = {REPORTS.name: REPORTS, EXPLANATIONS.name: EXPLANATIONS}


def final_state(result: Result) -> ReportState:
    """The state of a job with a result; a report in which an attack failed is not complete."""
    is_whole = isinstance(result, ExplanationJobResult) or not result.not_tried
    return ReportState.SUCCEEDED if is_whole else ReportState.INCOMPLETE
