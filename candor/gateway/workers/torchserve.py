"""The worker backend over TorchServe's gRPC inference API."""

from collections.abc import Mapping

from google.protobuf.message import DecodeError
from grpc import StatusCode, aio

from candor import tracing
from candor.contracts import wire
from candor.contracts.names import runtime_name
from candor.contracts.proxies import channel_options
from candor.gateway.pools import CHUNKS, run_if_large
from candor.gateway.workers.protocol import (
    MAX_CALL_BYTES,
    Role,
    WorkerDied,
    WorkerFault,
    WorkerUnavailable,
)
from candor.rpc.pb.torchserve import inference_pb2

# TorchServe returns RESOURCE_EXHAUSTED "Worker died." for a killed worker, INTERNAL for a model it
# does not know yet or a full queue, CANCELLED for a broken stream.  These here are faults of the
# gateway or the handler, which a repeated call would meet again.
_PERMANENT = (StatusCode.INVALID_ARGUMENT, StatusCode.UNIMPLEMENTED, StatusCode.UNAUTHENTICATED)
_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceAPIsService"].full_name
_PREDICTIONS = f"/{_SERVICE}/Predictions"
# The call was under way when the worker was killed, or it took longer than a call may.
_REASONS = {
    StatusCode.CANCELLED: "the connection to its worker ended",
    StatusCode.DEADLINE_EXCEEDED: "its worker took too long",
    StatusCode.INTERNAL: "its worker is not loaded or has a full queue",
    StatusCode.RESOURCE_EXHAUSTED: "its worker died or got too much at once",
    StatusCode.UNAVAILABLE: "its worker cannot be reached",
}
_DEATHS = (StatusCode.RESOURCE_EXHAUSTED, StatusCode.DEADLINE_EXCEEDED)


class TorchServeBackend:
    """One channel to one TorchServe; make it inside the event loop that uses it.

    Args:
        address: HOST:PORT of its gRPC inference API.
        call_seconds: how long one call may take.
    """

    def __init__(self, address: str, call_seconds: float) -> None:
        options = [
            ("grpc.max_send_message_length", MAX_CALL_BYTES),
            ("grpc.max_receive_message_length", MAX_CALL_BYTES),
            # The default back-off grows to two minutes, far longer than a restart takes.
            ("grpc.max_reconnect_backoff_ms", 1000),
            *channel_options(address),
        ]
        self._channel = aio.insecure_channel(address, options=options)
        # Of bytes: the library would write and read messages on the event loop.
        self._predictions: aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            _PREDICTIONS
        )
        self._call_seconds = call_seconds

    async def call(self, model: str, role: Role, items: list[bytes]) -> list[bytes]:
        """See `WorkerBackend.call`."""
        # Metadata does not reach a handler, the input map does.
        trace = {key: value.encode() for key, value in tracing.to_send().items()}
        size = sum(map(len, items))
        name = runtime_name(model, role)
        request = await run_if_large(CHUNKS, size, _request, name, items, trace)
        try:
            response = await self._predictions(request, timeout=self._call_seconds)
        except aio.AioRpcError as err:
            raise _worker_error(err) from err
        except aio.UsageError as err:  # it was closed before the call
            raise WorkerUnavailable("connection closed") from err
        return await run_if_large(CHUNKS, len(response), _answers, response, len(items))

    async def close(self) -> None:
        """Closes the channel; calls in flight fail."""
        await self._channel.close()


def _request(name: str, items: list[bytes], trace: Mapping[str, bytes]) -> bytes:
    fields = {"items": wire.pack_list(items), **trace}
    return inference_pb2.PredictionsRequest(model_name=name, input=fields).SerializeToString()


def _worker_error(err: aio.AioRpcError) -> Exception:
    """In our words, which clients read; the library's, with addresses, is the cause."""
    reason = _REASONS.get(err.code(), f"its worker failed ({err.code().name})")
    if err.code() in _PERMANENT:
        return WorkerFault(reason)
    if err.code() in _DEATHS:
        return WorkerDied(reason)
    return WorkerUnavailable(reason)


def _answers(response: bytes, count: int) -> list[bytes]:
    try:
        prediction = inference_pb2.PredictionResponse.FromString(response).prediction
    except DecodeError as err:
        raise WorkerFault("expected a message of TorchServe, got other bytes") from err
    try:
        answers = wire.unpack_list(prediction)
    except wire.WireError as err:
        # TorchServe returns its own error texts as predictions with status OK.
        raise WorkerFault(f"expected a list of answers, got {prediction[:100]!r}") from err
    if len(answers) != count:
        raise WorkerFault(f"expected {count} answers, got {len(answers)}")
    return answers
