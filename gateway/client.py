"""A typed, synchronous client of the gRPC door.  Imports contracts and gateway parts.

with CandorClient("127.0.0.1:8500") as client:
    print(client.predict(PredictRequest(image=ImageInput(encoded=png))).predictions[0].name)
"""

from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message
from pydantic import BaseModel

from candor.contracts import api
from candor.contracts.errors import ServiceError
from gateway import convert, status
from gateway.caller import TENANT_KEY
from gateway.pb.candor.v1 import candor_pb2, candor_pb2_grpc

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_MAX_ANSWER_BYTES = 256 * 1024 * 1024  # 64 explanations of a large picture with their tensors
_MAX_METADATA_BYTES = 64 * 1024  # error details travel as metadata


class CandorClient:
    """One connection; safe to share between threads.

    Args:
        timeout_seconds: the deadline of every call; an explanation may come back partial at it.
        tenant: who shares the workers fairly with others.
    """

    def __init__(self, address: str, *, timeout_seconds: float = 600.0, tenant: str = "") -> None:
        options = [
            ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
            ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ]
        self._channel = grpc.insecure_channel(address, options=options)
        self._stub = candor_pb2_grpc.CandorServiceStub(self._channel)
        self._timeout_seconds = timeout_seconds
        self._tenant = tenant

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
            message, timeout=self._timeout_seconds, metadata=self._metadata(request_id)
        )
        try:
            for event in events:
                yield api.ExplainStreamResponse.model_validate(convert.all_fields(event))
        except grpc.RpcError as err:
            raise _service_error(err) from err
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
        metadata = self._metadata(request_id)
        try:
            answer = call(message, timeout=self._timeout_seconds, metadata=metadata)
        except grpc.RpcError as err:
            raise _service_error(err) from err
        return kind.model_validate(convert.all_fields(answer))

    def _metadata(self, request_id: str | None) -> tuple[tuple[str, str], ...]:
        sent = (("x-request-id", request_id), (TENANT_KEY, self._tenant))
        return tuple((key, value) for key, value in sent if value)


def _service_error(err: Any) -> ServiceError:
    trailing = dict(err.trailing_metadata() or ())
    return status.from_rpc_status(err.code(), err.details() or "", trailing.get(status.DETAILS_KEY))
