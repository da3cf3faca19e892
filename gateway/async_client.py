"""The client of `gateway.client` for asyncio.  Imports contracts and gateway parts.

async with AsyncCandorClient("127.0.0.1:8500") as client:
    answer = await client.predict(PredictRequest(image=ImageInput(encoded=png)))
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self, TypeVar

from google.protobuf.message import Message
from grpc import aio
from pydantic import BaseModel

from candor.contracts import api
from gateway import convert
from gateway.connection import OPTIONS, Connection, service_error
from gateway.pb.candor.v1 import candor_pb2, candor_pb2_grpc

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
