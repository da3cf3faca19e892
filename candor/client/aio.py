"""The client of `candor.client.sync` for asyncio.

async with AsyncCandorClient("127.0.0.1:8500") as client:
    answer = await client.predict(PredictRequest(image=ImageInput(encoded=png)))
"""

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self, TypeVar

from google.protobuf.message import Message
from grpc import aio
from pydantic import BaseModel

from candor.client.connection import OPTIONS, Connection, service_error
from candor.contracts import api, reports
from candor.contracts.errors import ErrorCode, ServiceError
from candor.rpc import convert
from candor.rpc.pb.candor.v1 import candor_pb2, candor_pb2_grpc, reports_pb2, reports_pb2_grpc

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class AsyncCandorClient:
    """One connection; make and use it inside one event loop.

    A call is repeated while the gateway says that this may help, within its deadline.  To cancel
    the task that awaits a call ends the work at the gateway too.

    Args:
        options: of `Connection`: key, tls, timeout_seconds, tenant, max_attempts.
    """

    def __init__(self, address: str, **options: Any) -> None:
        self._connection = Connection(**options)
        tls = self._connection.tls
        self._channel = (
            aio.insecure_channel(address, options=OPTIONS)
            if tls is None
            else aio.secure_channel(address, tls.credentials(), options=OPTIONS)
        )
        self._stub = candor_pb2_grpc.CandorServiceStub(self._channel)
        self._reports = reports_pb2_grpc.ReportServiceStub(self._channel)

    async def predict(
        self, request: api.PredictRequest, *, request_id: str | None = None
    ) -> api.PredictResponse:
        message = _message(request, candor_pb2.PredictRequest())
        return await self._call(self._stub.Predict, message, api.PredictResponse, request_id)

    async def explain(
        self, request: api.ExplainRequest, *, request_id: str | None = None
    ) -> api.ExplainResponse:
        message = _message(request, candor_pb2.ExplainRequest())
        return await self._call(self._stub.Explain, message, api.ExplainResponse, request_id)

    async def explain_stream(
        self, request: api.ExplainRequest, *, request_id: str | None = None
    ) -> AsyncIterator[api.ExplainStreamResponse]:
        """Progress as it comes; the last message has the result.  Closing it ends the work."""
        events = self._stub.ExplainStream(
            _message(request, candor_pb2.ExplainRequest()),
            timeout=self._connection.timeout_seconds,
            metadata=self._connection.metadata(request_id),
        )
        try:
            async for event in events:
                yield api.ExplainStreamResponse.model_validate(convert.all_fields(event))
        except aio.AioRpcError as err:
            raise service_error(err) from err
        finally:
            events.cancel()

    async def probe(
        self, request: api.ProbeRequest, *, request_id: str | None = None
    ) -> api.ProbeResponse:
        message = _message(request, candor_pb2.ProbeRequest())
        return await self._call(self._stub.Probe, message, api.ProbeResponse, request_id)

    async def compare(
        self, request: api.CompareRequest, *, request_id: str | None = None
    ) -> api.CompareResponse:
        message = _message(request, candor_pb2.CompareRequest())
        return await self._call(self._stub.Compare, message, api.CompareResponse, request_id)

    async def list_models(self) -> api.ModelList:
        message = candor_pb2.ListModelsRequest()
        return await self._call(self._stub.ListModels, message, api.ModelList, None)

    async def get_model(self, name: str = "") -> api.ModelDetails:
        """``name``: empty for the default model."""
        message = candor_pb2.GetModelRequest(model=name)
        return await self._call(self._stub.GetModel, message, api.ModelDetails, None)

    async def create_report(self, request: reports.CreateReportRequest) -> reports.Report:
        """The queued job, or the one its idempotency key already stands for."""
        message = _message(request.keyed(), reports_pb2.CreateReportRequest())
        return await self._call(self._reports.CreateReport, message, reports.Report, None)

    async def get_report(self, name: str) -> reports.Report:
        """``name``: "reports/ID"."""
        message = reports_pb2.GetReportRequest(name=name)
        return await self._call(self._reports.GetReport, message, reports.Report, None)

    async def list_reports(
        self, request: reports.ListReportsRequest | None = None
    ) -> reports.ListReportsResponse:
        """One page, the newest first."""
        asked = request or reports.ListReportsRequest()
        message = _message(asked, reports_pb2.ListReportsRequest())
        return await self._call(
            self._reports.ListReports, message, reports.ListReportsResponse, None
        )

    async def cancel_report(self, name: str) -> reports.Report:
        """A job that has ended stays as it is."""
        message = reports_pb2.CancelReportRequest(name=name)
        return await self._call(self._reports.CancelReport, message, reports.Report, None)

    async def download_report(self, name: str, file: str) -> AsyncIterator[bytes]:
        """One file of a report that succeeded, chunk by chunk.

        Raises:
            ServiceError: REPORT_NOT_FOUND; INTERNAL at the end, where it is not what the report's
                digest says.
        """
        stream = self._reports.DownloadReport(
            reports_pb2.DownloadReportRequest(name=name, file=file),
            timeout=self._connection.timeout_seconds,
            metadata=self._connection.metadata(None),
        )
        sha256, expected = hashlib.sha256(), ""
        try:
            async for part in stream:
                expected = expected or part.file.sha256
                sha256.update(part.chunk)
                if part.chunk:
                    yield part.chunk
        except aio.AioRpcError as err:
            raise service_error(err) from err
        finally:
            stream.cancel()
        if sha256.hexdigest() != expected:
            raise ServiceError(ErrorCode.INTERNAL, f"file: {file} is not what its digest says")

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _call(
        self,
        call: Callable[..., Awaitable[Message]],
        message: Message,
        kind: type[AnswerT],
        request_id: str | None,
    ) -> AnswerT:
        metadata, deadline = self._connection.metadata(request_id), self._connection.deadline()
        for attempt in itertools.count(2):
            try:
                answer = await call(message, timeout=deadline - time.monotonic(), metadata=metadata)
                return kind.model_validate(convert.all_fields(answer))
            except aio.AioRpcError as err:
                error = service_error(err)
            await asyncio.sleep(self._connection.pause_before(attempt, error, deadline))
        raise AssertionError("attempts never end")


def _message(request: BaseModel, message: Message) -> Message:
    return convert.to_message(request.model_dump(), message)
