"""`inference.GRPCInferenceService`, the Open Inference Protocol over gRPC."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from candor.contracts.errors import FieldViolation, invalid_input
from candor.gateway.access.keys import Scope
from candor.gateway.access.request_context import RequestContext
from candor.gateway.access.rules import Access, requires
from candor.gateway.observability.request_log import RequestLog
from candor.gateway.pools import BODIES, run_if_large
from candor.gateway.service.open_inference import (
    EXTENSIONS,
    SERVER_NAME,
    InferRequest,
    OpenInference,
    check_names,
)
from candor.gateway.service.tensor_parameters import GivenParameters, InputParameters
from candor.gateway.service.tensors import Tensor, check_datatype, tensor_of
from candor.gateway.service.validation import parsed_loosely
from candor.gateway.transport.grpc.call import Context, Servicer, unary
from candor.rpc.pb.openinference import inference_pb2 as pb
from candor.rpc.pb.openinference import inference_pb2_grpc

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_CONTENTS = {"BYTES": "bytes_contents", "FP32": "fp32_contents", "INT64": "int64_contents"}


class OpenInferenceServicer(Servicer, inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The service of the standard over one `OpenInference`."""

    def __init__(
        self,
        protocol: OpenInference,
        request_log: RequestLog,
        is_ready: Callable[[], bool],
        build_version: str,
    ) -> None:
        super().__init__(request_log)
        self._protocol = protocol
        self._is_ready = is_ready
        self._build_version = build_version

    @requires(Access.PUBLIC)
    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    @requires(Access.PUBLIC)
    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._is_ready())

    @requires(Access.ANY_KEY)
    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(
            name=SERVER_NAME, version=self._build_version, extensions=EXTENSIONS
        )

    @unary("get_model", Access.ANY_KEY, pb.ModelReadyResponse, model_field="name")
    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: RequestContext
    ) -> Mapping[str, Any]:
        self._protocol.details(request.name, request.version)
        return {"ready": self._is_ready()}

    @unary("get_model", Access.ANY_KEY, pb.ModelMetadataResponse, model_field="name")
    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: RequestContext
    ) -> Mapping[str, Any]:
        return self._protocol.metadata(request.name, request.version)

    @unary("predict_many", Scope.PREDICT, pb.ModelInferResponse, model_field="model_name")
    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: RequestContext
    ) -> pb.ModelInferResponse:
        size = request.ByteSize()
        wanted = await run_if_large(BODIES, size, _infer_request, request)
        inferred = await self._protocol.infer(wanted, context)
        response = pb.ModelInferResponse(
            model_name=inferred.model.name,
            model_version=inferred.model.version,
            id=request.id or context.request_id,
        )
        for name, value in inferred.parameters.items():
            response.parameters[name].bool_param = value
        _add_outputs(response, inferred.outputs, is_raw=bool(request.raw_input_contents))
        return response


def _infer_request(request: pb.ModelInferRequest) -> InferRequest:
    given = parsed_loosely(
        GivenParameters,
        {
            "parameters": _parameters(request),
            "inputs": [{"parameters": _parameters(one)} for one in request.inputs],
            "outputs": [{"parameters": _parameters(one)} for one in request.outputs],
        },
    )
    return InferRequest(
        model=request.model_name,
        version=request.model_version,
        top_k=given.parameters.top_k,
        inputs=_tensors(request, [one.parameters for one in given.inputs]),
        outputs=[output.name for output in request.outputs],
    )


def _parameters(part: Any) -> dict[str, Any]:
    """Those of a request, an input or an output; None for one without a value."""
    chosen = {name: one.WhichOneof("parameter_choice") for name, one in part.parameters.items()}
    return {
        name: None if field is None else getattr(part.parameters[name], field)
        for name, field in chosen.items()
    }


def _tensors(request: pb.ModelInferRequest, parameters: Sequence[InputParameters]) -> list[Tensor]:
    raw = request.raw_input_contents
    check_names([one.name for one in request.inputs])
    if raw and len(raw) != len(request.inputs):
        expected = f"none or one for each of {len(request.inputs)} inputs"
        description = f"expected {expected}, got {len(raw)}"
        raise invalid_input([FieldViolation("raw_input_contents", description)])
    tensors = []
    for index, one in enumerate(request.inputs):
        place = f"inputs.{index}"
        check_datatype(one.datatype, place)
        field = _CONTENTS[one.datatype]
        _check_contents(one, field, f"{place}.contents", is_raw=bool(raw))
        _check_size(parameters[index], raw[index] if raw else b"", place)
        data = raw[index] if raw else getattr(one.contents, field)
        tensors.append(tensor_of(one.name, one.datatype, tuple(one.shape), data, place))
    return tensors


def _check_size(parameters: InputParameters, raw: bytes, place: str) -> None:
    """KServe's clients send the size of raw contents as over REST."""
    size = parameters.binary_data_size
    if parameters.is_binary and size != len(raw):
        description = f"expected {len(raw)}, as raw_input_contents has, got {size}"
        raise invalid_input([FieldViolation(f"{place}.parameters.binary_data_size", description)])


def _check_contents(one: Any, wanted: str, path: str, *, is_raw: bool) -> None:
    """The values of a tensor stand in one place, the one that its datatype says."""
    given = [field.name for field, _ in one.contents.ListFields()]
    expected = "none beside raw_input_contents" if is_raw else wanted
    others = given if is_raw else [name for name in given if name != wanted]
    if others:
        raise invalid_input([FieldViolation(path, f"expected {expected}, got {others[0]}")])


def _add_outputs(
    response: pb.ModelInferResponse, outputs: Sequence[Tensor], *, is_raw: bool
) -> None:
    for output in outputs:
        tensor = response.outputs.add(
            name=output.name, datatype=output.datatype, shape=output.shape
        )
        if is_raw:
            response.raw_output_contents.append(output.raw())
        else:
            getattr(tensor.contents, _CONTENTS[output.datatype]).extend(output.values)
