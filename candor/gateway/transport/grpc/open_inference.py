"""`inference.GRPCInferenceService`, the Open Inference Protocol over gRPC."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from google.protobuf.message import Message
from grpc import aio

from candor.contracts.errors import FieldViolation, ServiceError, invalid_input
from candor.gateway.access.request_context import RequestContext, request_context_of
from candor.gateway.observability import request_log
from candor.gateway.observability.request_log import RequestLog
from candor.gateway.service.open_inference import (
    EXTENSIONS,
    SERVER_NAME,
    InferRequest,
    OpenInference,
    Tensor,
    tensor_of,
)
from candor.gateway.transport.grpc.call import REQUEST_ID_KEY, abort, seconds_left, text_metadata
from candor.rpc import convert
from candor.rpc.pb.openinference import inference_pb2 as pb
from candor.rpc.pb.openinference import inference_pb2_grpc

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_CONTENTS = {"BYTES": "bytes_contents", "FP32": "fp32_contents", "INT64": "int64_contents"}
Context: TypeAlias = aio.ServicerContext


class OpenInferenceServicer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The standard's service over one `OpenInference`."""

    def __init__(
        self,
        protocol: OpenInference,
        observer: RequestLog,
        is_ready: Callable[[], bool],
        build_version: str,
    ) -> None:
        self._protocol = protocol
        self._request_log = observer
        self._is_ready = is_ready
        self._build_version = build_version

    async def ServerLive(self, request: Message, context: Context) -> Message:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Message, context: Context) -> Message:
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def ServerMetadata(self, request: Message, context: Context) -> Message:
        return pb.ServerMetadataResponse(
            name=SERVER_NAME, version=self._build_version, extensions=EXTENSIONS
        )

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> Message:
        async def ready(request_context: RequestContext) -> Message:
            self._protocol.details(request.name, request.version)
            return pb.ModelReadyResponse(ready=self._is_ready())

        return await self._watched("get_model", request.name, context, ready)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> Message:
        async def tell(request_context: RequestContext) -> Message:
            told = self._protocol.metadata(request.name, request.version)
            return convert.to_message(told, pb.ModelMetadataResponse())

        return await self._watched("get_model", request.name, context, tell)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> Message:
        async def infer(request_context: RequestContext) -> Message:
            asked = InferRequest(
                model=request.model_name,
                version=request.model_version,
                top_k=_parameter(request, "top_k"),
                inputs=_tensors(request),
                outputs=[output.name for output in request.outputs],
            )
            answer = await self._protocol.infer(asked, request_context)
            response = pb.ModelInferResponse(
                model_name=answer.model.name,
                model_version=answer.model.version,
                id=request.id or request_context.request_id,
            )
            _add_outputs(response, answer.outputs, is_raw=bool(request.raw_input_contents))
            return response

        return await self._watched("predict_many", request.model_name, context, infer)

    async def _watched(
        self,
        verb: str,
        model: str,
        context: Context,
        serve: Callable[[RequestContext], Awaitable[Message]],
    ) -> Message:
        metadata = text_metadata(context.invocation_metadata())
        request_id = request_log.request_id(metadata.get(REQUEST_ID_KEY))
        try:
            with self._request_log.watch(request_log.Call(verb, request_id, model), metadata):
                response = await serve(
                    request_context_of(request_id, metadata, seconds_left(context))
                )
        except ServiceError as err:
            await abort(context, err, request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        return response


def _parameter(request: pb.ModelInferRequest, name: str) -> Any:
    if name not in request.parameters:
        return None
    choice = request.parameters[name]
    field = choice.WhichOneof("parameter_choice")
    return None if field is None else getattr(choice, field)


def _tensors(request: pb.ModelInferRequest) -> list[Tensor]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        description = f"got {len(raw)} for {len(request.inputs)} inputs, allowed as many or none"
        raise invalid_input([FieldViolation("raw_input_contents", description)])
    tensors = []
    for place, one in enumerate(request.inputs):
        field = _CONTENTS.get(one.datatype, "bytes_contents")
        data = raw[place] if raw else getattr(one.contents, field)
        tensors.append(tensor_of(one.name, one.datatype, tuple(one.shape), data, f"inputs.{place}"))
    return tensors


def _add_outputs(
    response: pb.ModelInferResponse, outputs: Sequence[Tensor], *, is_raw: bool
) -> None:
    for one in outputs:
        tensor = response.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
        if is_raw:
            response.raw_output_contents.append(one.raw())
        else:
            getattr(tensor.contents, _CONTENTS[one.datatype]).extend(one.values)
