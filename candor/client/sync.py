"""A typed, synchronous client of the gRPC door; `async_client` has its twin.

with CandorClient("127.0.0.1:8500") as client:
    print(client.predict(PredictRequest(image=ImageInput(encoded=png))).predictions[0].name)
"""

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message
from pydantic import BaseModel

from candor.client.connection import OPTIONS, Connection, service_error
from candor.contracts import api, reports
from candor.contracts.errors import ErrorCode, ServiceError
from candor.rpc import convert
from candor.rpc.pb.candor.v1 import candor_pb2, candor_pb2_grpc, reports_pb2, reports_pb2_grpc

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class CandorClient:
    """One connection; safe to share between threads.

    A call is repeated while the gateway says that this may help, within its deadline.

    Args:
        options: of `Connection`: key, tls, timeout_seconds, tenant, max_attempts.
    """

    def __init__(self, address: str, **options: Any) -> None:
        self._connection = Connection(**options)
        tls = self._connection.tls
        self._channel = (
            grpc.insecure_channel(address, options=OPTIONS)
            if tls is None
            else grpc.secure_channel(address, tls.credentials(), options=OPTIONS)
        )
        self._stub = candor_pb2_grpc.CandorServiceStub(self._channel)
        self._reports = reports_pb2_grpc.ReportServiceStub(self._channel)

    def predict(
        self, request: api.PredictRequest, *, request_id: str | None = None
    ) -> api.PredictResponse:
        message = candor_pb2.PredictRequest()
        return self._call(self._stub.Predict, request, message, api.PredictResponse, request_id)

    def explain(
        self, request: api.ExplainRequest, *, request_id: str | None = None
    ) -> api.ExplainResponse:
        message = candor_pb2.ExplainRequest()
        return self._call(self._stub.Explain, request, message, api.ExplainResponse, request_id)

    def explain_stream(
        self, request: api.ExplainRequest, *, request_id: str | None = None
    ) -> Iterator[api.ExplainStreamResponse]:
        """Progress as it comes; the last message has the result.  Closing it ends the work."""
        message = convert.to_message(request.model_dump(), candor_pb2.ExplainRequest())
        events = self._stub.ExplainStream(
            message,
            timeout=self._connection.timeout_seconds,
            metadata=self._connection.metadata(request_id),
        )
        try:
            for event in events:
                yield api.ExplainStreamResponse.model_validate(convert.all_fields(event))
        except grpc.RpcError as err:
            raise service_error(err) from err
        finally:
            events.cancel()

    def probe(
        self, request: api.ProbeRequest, *, request_id: str | None = None
    ) -> api.ProbeResponse:
        message = candor_pb2.ProbeRequest()
        return self._call(self._stub.Probe, request, message, api.ProbeResponse, request_id)

    def compare(
        self, request: api.CompareRequest, *, request_id: str | None = None
    ) -> api.CompareResponse:
        message = candor_pb2.CompareRequest()
        return self._call(self._stub.Compare, request, message, api.CompareResponse, request_id)

    def list_models(self) -> api.ModelList:
        message = candor_pb2.ListModelsRequest()
        return self._call(self._stub.ListModels, None, message, api.ModelList, None)

    def get_model(self, name: str = "") -> api.ModelDetails:
        """``name``: empty for the default model."""
        message = candor_pb2.GetModelRequest(model=name)
        return self._call(self._stub.GetModel, None, message, api.ModelDetails, None)

    def create_report(self, request: reports.CreateReportRequest) -> reports.Report:
        """The queued job, or the one its idempotency key already stands for."""
        message = reports_pb2.CreateReportRequest()
        keyed = request.keyed()
        return self._call(self._reports.CreateReport, keyed, message, reports.Report, None)

    def get_report(self, name: str) -> reports.Report:
        """``name``: "reports/ID"."""
        message = reports_pb2.GetReportRequest(name=name)
        return self._call(self._reports.GetReport, None, message, reports.Report, None)

    def list_reports(
        self, request: reports.ListReportsRequest | None = None
    ) -> reports.ListReportsResponse:
        """One page, the newest first."""
        message, answer = reports_pb2.ListReportsRequest(), reports.ListReportsResponse
        return self._call(self._reports.ListReports, request, message, answer, None)

    def cancel_report(self, name: str) -> reports.Report:
        """A job that has ended stays as it is."""
        message = reports_pb2.CancelReportRequest(name=name)
        return self._call(self._reports.CancelReport, None, message, reports.Report, None)

    def download_report(self, name: str, file: str) -> Iterator[bytes]:
        """One file of a report that succeeded, chunk by chunk.

        Raises:
            ServiceError: REPORT_NOT_FOUND; INTERNAL at the end, where it is not what the report's
                digest says.
        """
        message = reports_pb2.DownloadReportRequest(name=name, file=file)
        stream = self._reports.DownloadReport(
            message,
            timeout=self._connection.timeout_seconds,
            metadata=self._connection.metadata(None),
        )
        sha256 = hashlib.sha256()
        try:
            expected = next(stream).file.sha256
            for part in stream:
                sha256.update(part.chunk)
                yield part.chunk
        except grpc.RpcError as err:
            raise service_error(err) from err
        finally:
            stream.cancel()
        if sha256.hexdigest() != expected:
            raise ServiceError(ErrorCode.INTERNAL, f"file: {file} is not what its digest says")

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _call(
        self,
        call: Callable[..., Message],
        request: BaseModel | None,
        message: Message,
        kind: type[AnswerT],
        request_id: str | None,
    ) -> AnswerT:
        if request is not None:
            convert.to_message(request.model_dump(), message)
        metadata, deadline = self._connection.metadata(request_id), self._connection.deadline()
        for attempt in itertools.count(2):
            try:
                answer = call(message, timeout=deadline - time.monotonic(), metadata=metadata)
                return kind.model_validate(convert.all_fields(answer))
            except grpc.RpcError as err:
                error = service_error(err)
            time.sleep(self._connection.pause_before(attempt, error, deadline))
        raise AssertionError("attempts never end")
