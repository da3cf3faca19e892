"""A typed, synchronous client of the gRPC server; `candor.client.aio` has its twin.

For example::

    with CandorClient("127.0.0.1:8500") as client:
        print(client.predict(PredictRequest(image=ImageInput(encoded=png))).predictions[0].name)
"""

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import grpc
from pydantic import BaseModel

from candor.client import verbs
from candor.client.connection import Connection, service_error
from candor.client.verbs import Download, Verb
from candor.contracts import api, explanation_jobs, reports
from candor.contracts.addresses import checked_target
from candor.contracts.proxies import channel_options

ResponseT = TypeVar("ResponseT", bound=BaseModel)


class CandorClient:
    """One connection; safe to share between threads.

    A call is repeated, within its deadline, while the gateway says that a retry may help.

    Args:
        address: HOST:PORT, an IPv6 host in brackets; see `checked_target`.
        options: of `Connection`: key, tls, timeout_seconds, tenant, max_attempts,
            keepalive_seconds.
    Raises:
        ValueError: ``address`` is none.
    """

    def __init__(self, address: str, **options: Any) -> None:
        self._connection = Connection(**options)
        target, tls = checked_target(address), self._connection.tls
        channel = [*self._connection.channel_options(), *channel_options(target)]
        self._channel = (
            grpc.insecure_channel(target, options=channel)
            if tls is None
            else grpc.secure_channel(target, tls.credentials(), options=channel)
        )
        self._methods = {
            **{verb.path: verb.bound_to(self._channel.unary_unary) for verb in verbs.UNARY},
            **{verb.path: verb.bound_to(self._channel.unary_stream) for verb in verbs.STREAMING},
        }

    def predict(
        self, request: api.PredictRequest, *, request_id: str | None = None
    ) -> api.PredictResponse:
        return self._call(verbs.PREDICT, request.model_dump(), request_id)

    def explain(
        self, request: api.ExplainRequest, *, request_id: str | None = None
    ) -> api.ExplainResponse:
        return self._call(verbs.EXPLAIN, request.model_dump(), request_id)

    def explain_stream(
        self, request: api.ExplainRequest, *, request_id: str | None = None
    ) -> Iterator[api.ExplainStreamResponse]:
        """Progress as it comes; the last message has the result.  Closing it ends the work."""
        with self._streamed(verbs.EXPLAIN_STREAM, request.model_dump(), request_id) as events:
            for event in events:
                yield verbs.EXPLAIN_STREAM.decode(event)

    def probe(
        self, request: api.ProbeRequest, *, request_id: str | None = None
    ) -> api.ProbeResponse:
        return self._call(verbs.PROBE, request.model_dump(), request_id)

    def compare(
        self, request: api.CompareRequest, *, request_id: str | None = None
    ) -> api.CompareResponse:
        return self._call(verbs.COMPARE, request.model_dump(), request_id)

    def list_models(self) -> api.ModelList:
        return self._call(verbs.LIST_MODELS, {})

    def get_model(self, name: str = "") -> api.ModelDetails:
        """``name``: empty for the default model."""
        return self._call(verbs.GET_MODEL, {"model": name})

    def create_report(self, request: reports.CreateReportRequest) -> reports.Report:
        """The queued job, or the one its idempotency key already stands for."""
        return self._call(verbs.CREATE_REPORT, request.keyed().model_dump())

    def get_report(self, name: str) -> reports.Report:
        """``name``: "reports/ID"."""
        return self._call(verbs.GET_REPORT, {"name": name})

    def list_reports(
        self, request: reports.ListReportsRequest | None = None
    ) -> reports.ListReportsResponse:
        """One page, the newest first."""
        return self._call(verbs.LIST_REPORTS, {} if request is None else request.model_dump())

    def cancel_report(self, name: str) -> reports.Report:
        """A job that has ended stays as it is."""
        return self._call(verbs.CANCEL_REPORT, {"name": name})

    def download_report(self, name: str, file: str) -> Iterator[bytes]:
        """One file of a finished report, chunk by chunk.

        Raises:
            ServiceError: REPORT_NOT_FOUND; INTERNAL at the end, if the file does not have the
                digest in the report.
        """
        yield from self._downloaded(verbs.DOWNLOAD_REPORT, name, file)

    def create_explanation_job(
        self, request: explanation_jobs.CreateExplanationJobRequest
    ) -> explanation_jobs.ExplanationJob:
        """The queued job, or the one its idempotency key already stands for."""
        return self._call(verbs.CREATE_EXPLANATION_JOB, request.keyed().model_dump())

    def get_explanation_job(self, name: str) -> explanation_jobs.ExplanationJob:
        """``name``: "explanation-jobs/ID"."""
        return self._call(verbs.GET_EXPLANATION_JOB, {"name": name})

    def list_explanation_jobs(
        self, request: explanation_jobs.ListExplanationJobsRequest | None = None
    ) -> explanation_jobs.ListExplanationJobsResponse:
        """One page, the newest first."""
        fields = {} if request is None else request.model_dump()
        return self._call(verbs.LIST_EXPLANATION_JOBS, fields)

    def cancel_explanation_job(self, name: str) -> explanation_jobs.ExplanationJob:
        """A job that has ended stays as it is."""
        return self._call(verbs.CANCEL_EXPLANATION_JOB, {"name": name})

    def download_explanation_job(self, name: str, file: str) -> Iterator[bytes]:
        """One file of a finished job, chunk by chunk.

        Raises:
            ServiceError: JOB_NOT_FOUND; INTERNAL at the end, if the file does not have the digest
                in the job.
        """
        yield from self._downloaded(verbs.DOWNLOAD_EXPLANATION_JOB, name, file)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _downloaded(self, verb: Verb[Any], name: str, file: str) -> Iterator[bytes]:
        download, fields = Download(file), {"name": name, "file": file}
        with self._streamed(verb, fields) as parts:
            yield from filter(None, map(download.chunk, parts))
        download.check()

    def _call(
        self, verb: Verb[ResponseT], fields: Mapping[str, Any], request_id: str | None = None
    ) -> ResponseT:
        method, message = self._methods[verb.path], verb.encode(fields)
        metadata, deadline = self._connection.metadata(request_id), self._connection.deadline()
        for attempt in itertools.count(2):
            try:
                left = deadline - time.monotonic()
                return verb.decode(method(message, timeout=left, metadata=metadata))
            except grpc.RpcError as err:
                error = service_error(err)
            time.sleep(self._connection.pause_before(attempt, error, deadline))
        raise AssertionError("attempts never end")

    @contextmanager
    def _streamed(
        self, verb: Verb[BaseModel], fields: Mapping[str, Any], request_id: str | None = None
    ) -> Iterator[Any]:
        """The messages of a stream, which ends with the block."""
        messages = self._methods[verb.path](
            verb.encode(fields),
            timeout=self._connection.timeout_seconds,
            metadata=self._connection.metadata(request_id),
        )
        try:
            yield messages
        except grpc.RpcError as err:
            raise service_error(err) from err
        finally:
            messages.cancel()
