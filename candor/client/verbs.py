"""The methods of the gRPC API as one table, which serves both clients."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message
from pydantic import BaseModel

from candor.contracts import api, explanation_jobs, reports
from candor.contracts.errors import ErrorCode, ServiceError
from candor.rpc import convert
from candor.rpc.pb.candor.v1 import candor_pb2, explanation_jobs_pb2, reports_pb2

ResponseT_co = TypeVar("ResponseT_co", bound=BaseModel, covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class Verb(Generic[ResponseT_co]):
    """One method of a service.

    Attributes:
        path: ``/SERVICE/METHOD``.
        sent, received: the messages on the wire.
        response: the model that a client returns for a received message.
    """

    path: str
    sent: type[Message]
    received: type[Message]
    response: type[ResponseT_co]

    def encode(self, fields: Mapping[str, Any]) -> Message:
        """The message to send; fields that are None or unknown to it are left out."""
        return convert.to_message(fields, self.sent())

    def decode(self, message: Message) -> ResponseT_co:
        """The model of a received message."""
        return self.response.model_validate(convert.all_fields(message))

    def bound_to(self, make_call: Callable[..., Any]) -> Any:
        """The method on a channel; ``make_call`` is its ``unary_unary`` or ``unary_stream``."""
        return make_call(
            self.path,
            request_serializer=self.sent.SerializeToString,
            response_deserializer=self.received.FromString,
        )


def _verb(file: Any, service: str, method: str, response: type[ResponseT_co]) -> Verb[ResponseT_co]:
    described = file.DESCRIPTOR.services_by_name[service].methods_by_name[method]
    return Verb(
        f"/{described.containing_service.full_name}/{method}",
        getattr(file, described.input_type.name),
        getattr(file, described.output_type.name),
        response,
    )


PREDICT: Final = _verb(candor_pb2, "CandorService", "Predict", api.PredictResponse)
EXPLAIN: Final = _verb(candor_pb2, "CandorService", "Explain", api.ExplainResponse)
EXPLAIN_STREAM: Final = _verb(
    candor_pb2, "CandorService", "ExplainStream", api.ExplainStreamResponse
)
PROBE: Final = _verb(candor_pb2, "CandorService", "Probe", api.ProbeResponse)
COMPARE: Final = _verb(candor_pb2, "CandorService", "Compare", api.CompareResponse)
LIST_MODELS: Final = _verb(candor_pb2, "CandorService", "ListModels", api.ModelList)
GET_MODEL: Final = _verb(candor_pb2, "CandorService", "GetModel", api.ModelDetails)

CREATE_REPORT: Final = _verb(reports_pb2, "ReportService", "CreateReport", reports.Report)
GET_REPORT: Final = _verb(reports_pb2, "ReportService", "GetReport", reports.Report)
LIST_REPORTS: Final = _verb(
    reports_pb2, "ReportService", "ListReports", reports.ListReportsResponse
)
CANCEL_REPORT: Final = _verb(reports_pb2, "ReportService", "CancelReport", reports.Report)
# Its messages are chunks of a file, which `Download` puts together; the first one describes it.
DOWNLOAD_REPORT: Final = _verb(reports_pb2, "ReportService", "DownloadReport", reports.ReportFile)

_JOBS: Final = (explanation_jobs_pb2, "ExplanationJobService")
CREATE_EXPLANATION_JOB: Final = _verb(
    *_JOBS, "CreateExplanationJob", explanation_jobs.ExplanationJob
)
GET_EXPLANATION_JOB: Final = _verb(*_JOBS, "GetExplanationJob", explanation_jobs.ExplanationJob)
LIST_EXPLANATION_JOBS: Final = _verb(
    *_JOBS, "ListExplanationJobs", explanation_jobs.ListExplanationJobsResponse
)
CANCEL_EXPLANATION_JOB: Final = _verb(
    *_JOBS, "CancelExplanationJob", explanation_jobs.ExplanationJob
)
DOWNLOAD_EXPLANATION_JOB: Final = _verb(*_JOBS, "DownloadExplanationJob", reports.ReportFile)

UNARY: Final[tuple[Verb[BaseModel], ...]] = (
    *(PREDICT, EXPLAIN, PROBE, COMPARE, LIST_MODELS, GET_MODEL),
    *(CREATE_REPORT, GET_REPORT, LIST_REPORTS, CANCEL_REPORT),
    *(CREATE_EXPLANATION_JOB, GET_EXPLANATION_JOB, LIST_EXPLANATION_JOBS, CANCEL_EXPLANATION_JOB),
)
STREAMING: Final[tuple[Verb[BaseModel], ...]] = (
    *(EXPLAIN_STREAM, DOWNLOAD_REPORT, DOWNLOAD_EXPLANATION_JOB),
)


class Download:
    """Checks a downloaded file against the digest that its first message names."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._expected = ""

    def chunk(self, part: Any) -> bytes:
        """The bytes of a message, none for the first."""
        self._expected = self._expected or part.file.sha256
        self._sha256.update(part.chunk)
        return bytes(part.chunk)

    def check(self) -> None:
        """Raises: ServiceError: INTERNAL: the file does not have its digest."""
        if self._sha256.hexdigest() != self._expected:
            message = f"file: expected the digest of {self._file} in the job, got another one"
            raise ServiceError(ErrorCode.INTERNAL, message)
