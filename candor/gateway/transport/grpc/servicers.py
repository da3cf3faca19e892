"""The services of the contract over gRPC: convert, await the service."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from google.protobuf.message import Message

from candor.contracts import api, explanation_jobs, reports
from candor.contracts.reports import ReportFile
from candor.gateway.access.keys import Scope
from candor.gateway.access.request_context import RequestContext
from candor.gateway.access.rules import Access
from candor.gateway.observability.request_log import RequestLog
from candor.gateway.pools import FILES
from candor.gateway.service.candor_service import CandorService
from candor.gateway.service.jobs import ExplanationJobService
from candor.gateway.service.reports import ReportService
from candor.gateway.transport.grpc.call import Response, Servicer, streaming, unary
from candor.gateway.transport.heartbeats import with_heartbeats
from candor.rpc.convert import given_fields
from candor.rpc.pb.candor.v1 import (
    candor_pb2,
    candor_pb2_grpc,
    explanation_jobs_pb2,
    explanation_jobs_pb2_grpc,
    reports_pb2,
    reports_pb2_grpc,
)

SERVICE_NAME = candor_pb2.DESCRIPTOR.services_by_name["CandorService"].full_name
REPORTS_NAME = reports_pb2.DESCRIPTOR.services_by_name["ReportService"].full_name
EXPLANATION_JOBS_NAME = explanation_jobs_pb2.DESCRIPTOR.services_by_name[
    "ExplanationJobService"
].full_name
_CHUNK_BYTES = 256 * 1024  # of a file; messages stay far below the 4 MB that clients accept


class CandorServicer(Servicer, candor_pb2_grpc.CandorServiceServicer):
    """The public contract over one `CandorService`.

    Args:
        heartbeat_seconds: the longest silence of a stream after its first message.
    """

    def __init__(
        self, service: CandorService, request_log: RequestLog, heartbeat_seconds: float
    ) -> None:
        super().__init__(request_log)
        self._service = service
        self._heartbeat_seconds = heartbeat_seconds

    @unary("predict", Scope.PREDICT, candor_pb2.PredictResponse)
    async def Predict(self, request: Message, context: RequestContext) -> api.PredictResponse:
        return await self._service.predict(given_fields(request), context)

    @unary("explain", Scope.EXPLAIN, candor_pb2.ExplainResponse)
    async def Explain(self, request: Message, context: RequestContext) -> api.ExplainResponse:
        return await self._service.explain(given_fields(request), context)

    @streaming("explain_stream", Scope.EXPLAIN, candor_pb2.ExplainStreamResponse)
    async def ExplainStream(
        self, request: Message, context: RequestContext
    ) -> AsyncGenerator[api.ExplainStreamResponse, None]:
        events = self._service.explain_stream(given_fields(request), context)
        latest: api.ExplainStreamResponse | None = None
        async with aclosing(with_heartbeats(events, self._heartbeat_seconds)) as passed:
            async for event in passed:
                latest = event or latest
                if latest is not None:  # in silence the latest progress once more
                    yield latest

    @unary("probe", Scope.EXPLAIN, candor_pb2.ProbeResponse)
    async def Probe(self, request: Message, context: RequestContext) -> api.ProbeResponse:
        return await self._service.probe(given_fields(request), context)

    @unary("compare", Scope.EXPLAIN, candor_pb2.CompareResponse)
    async def Compare(self, request: Message, context: RequestContext) -> api.CompareResponse:
        return await self._service.compare(given_fields(request), context)

    @unary("list_models", Access.ANY_KEY, candor_pb2.ListModelsResponse)
    async def ListModels(self, request: Message, context: RequestContext) -> api.ModelList:
        return self._service.list_models()

    @unary("get_model", Access.ANY_KEY, candor_pb2.GetModelResponse)
    async def GetModel(
        self, request: candor_pb2.GetModelRequest, context: RequestContext
    ) -> api.ModelDetails:
        return self._service.get_model(request.model)


class ReportServicer(Servicer, reports_pb2_grpc.ReportServiceServicer):
    """The public contract of report jobs over one `ReportService`."""

    def __init__(self, report_service: ReportService, request_log: RequestLog) -> None:
        super().__init__(request_log)
        self._reports = report_service

    @unary("create_report", Scope.REPORT, reports_pb2.Report)
    async def CreateReport(self, request: Message, context: RequestContext) -> reports.Report:
        return await self._reports.create(given_fields(request), context)

    @unary("get_report", Scope.REPORT, reports_pb2.Report)
    async def GetReport(
        self, request: reports_pb2.GetReportRequest, context: RequestContext
    ) -> reports.Report:
        return await self._reports.get(request.name, context)

    @unary("list_reports", Scope.REPORT, reports_pb2.ListReportsResponse)
    async def ListReports(
        self, request: Message, context: RequestContext
    ) -> reports.ListReportsResponse:
        return await self._reports.list(given_fields(request), context)

    @unary("cancel_report", Scope.REPORT, reports_pb2.Report)
    async def CancelReport(
        self, request: reports_pb2.CancelReportRequest, context: RequestContext
    ) -> reports.Report:
        return await self._reports.cancel(request.name, context)

    @streaming("download_report", Scope.REPORT, reports_pb2.DownloadReportResponse)
    async def DownloadReport(
        self, request: reports_pb2.DownloadReportRequest, context: RequestContext
    ) -> AsyncGenerator[Response, None]:
        async for part in _parts(*await self._reports.file(request.name, request.file, context)):
            yield part


class ExplanationJobServicer(Servicer, explanation_jobs_pb2_grpc.ExplanationJobServiceServicer):
    """The public contract of jobs over many images over one `ExplanationJobService`."""

    def __init__(self, jobs: ExplanationJobService, request_log: RequestLog) -> None:
        super().__init__(request_log)
        self._jobs = jobs

    @unary("create_explanation_job", Scope.REPORT, explanation_jobs_pb2.ExplanationJob)
    async def CreateExplanationJob(
        self, request: Message, context: RequestContext
    ) -> explanation_jobs.ExplanationJob:
        return await self._jobs.create(given_fields(request), context)

    @unary("get_explanation_job", Scope.REPORT, explanation_jobs_pb2.ExplanationJob)
    async def GetExplanationJob(
        self, request: explanation_jobs_pb2.GetExplanationJobRequest, context: RequestContext
    ) -> explanation_jobs.ExplanationJob:
        return await self._jobs.get(request.name, context)

    @unary("list_explanation_jobs", Scope.REPORT, explanation_jobs_pb2.ListExplanationJobsResponse)
    async def ListExplanationJobs(
        self, request: Message, context: RequestContext
    ) -> explanation_jobs.ListExplanationJobsResponse:
        return await self._jobs.list(given_fields(request), context)

    @unary("cancel_explanation_job", Scope.REPORT, explanation_jobs_pb2.ExplanationJob)
    async def CancelExplanationJob(
        self, request: explanation_jobs_pb2.CancelExplanationJobRequest, context: RequestContext
    ) -> explanation_jobs.ExplanationJob:
        return await self._jobs.cancel(request.name, context)

    @streaming(
        "download_explanation_job",
        Scope.REPORT,
        explanation_jobs_pb2.DownloadExplanationJobResponse,
    )
    async def DownloadExplanationJob(
        self, request: explanation_jobs_pb2.DownloadExplanationJobRequest, context: RequestContext
    ) -> AsyncGenerator[Response, None]:
        async for part in _parts(*await self._jobs.file(request.name, request.file, context)):
            yield part


async def _parts(file: ReportFile, path: Path) -> AsyncGenerator[Response, None]:
    """The messages of a download: what the file is, then its content."""
    yield {"file": file.model_dump()}
    with await FILES.run(path.open, "rb") as stream:
        while chunk := await FILES.run(stream.read, _CHUNK_BYTES):
            yield {"chunk": chunk}
