"""The worker backend over TorchServe's gRPC inference API."""

from grpc import StatusCode, aio

from candor import tracing
from candor.contracts import wire
from candor.contracts.names import runtime_name
from candor.contracts.proxies import channel_options
from candor.gateway.workers.protocol import (
    MAX_CALL_BYTES,
    Role,
    WorkerDied,
    WorkerFault,
    WorkerUnavailable,
)
from candor.rpc.pb.torchserve import inference_pb2, inference_pb2_grpc

# TorchServe returns RESOURCE_EXHAUSTED "Worker died." for a killed worker, INTERNAL for a model it
# does not know yet or a full queue, CANCELLED for a broken stream.  These here are faults of the
# gateway or the handler, which a repeated call would meet again.
_PERMANENT = (StatusCode.INVALID_ARGUMENT, StatusCode.UNIMPLEMENTED, StatusCode.UNAUTHENTICATED)
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
        self._stub = inference_pb2_grpc.InferenceAPIsServiceStub(self._channel)
        self._call_seconds = call_seconds

    async def call(self, model: str, role: Role, items: list[bytes]) -> list[bytes]:
        """See `WorkerBackend.call`."""
        # Metadata does not reach a handler, the input map does.
        trace = {key: value.encode() for key, value in tracing.to_send().items()}
        request = inference_pb2.PredictionsRequest(
            model_name=runtime_name(model, role),
            input={"items": wire.pack_list(items), **trace},
        )
        try:
            response = await self._stub.Predictions(request, timeout=self._call_seconds)
        except aio.AioRpcError as err:
            raise _worker_error(err) from err
        except aio.UsageError as err:  # it was closed before the call
            raise WorkerUnavailable("connection closed") from err
        return _answers(response.prediction, len(items))

    async def close(self) -> None:
        """Closes the channel; calls in flight fail."""
        await self._channel.close()


def _worker_error(err: aio.AioRpcError) -> Exception:
    """In our words, which clients read; the library's, with addresses, is the cause."""
    reason = _REASONS.get(err.code(), f"its worker failed ({err.code().name})")
    if err.code() in _PERMANENT:
        return WorkerFault(reason)
    if err.code() in _DEATHS:
        return WorkerDied(reason)
    return WorkerUnavailable(reason)


def _answers(prediction: bytes, count: int) -> list[bytes]:
    try:
        answers = wire.unpack_list(prediction)
    except wire.WireError as err:
        # TorchServe returns its own error texts as predictions with status OK.
        raise WorkerFault(f"expected a list of answers, got {prediction[:100]!r}") from err
    if len(answers) != count:
        raise WorkerFault(f"expected {count} answers, got {len(answers)}")
    return answers
