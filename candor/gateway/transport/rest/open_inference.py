"""`/v2` (Open Inference Protocol) and KServe's `/v1/models/{model}:predict` and `:explain`.

Tensors travel as JSON, or as bytes behind it (the extension ``binary_tensor_data``); then the
header ``Inference-Header-Content-Length`` says where the bytes begin.
"""

import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from candor.contracts import limits
from candor.contracts.api import from_base64
from candor.contracts.errors import FieldViolation, invalid_input
from candor.contracts.headers import HEADER_LENGTH
from candor.contracts.json_text import json_text
from candor.contracts.violations import shown
from candor.gateway.access.keys import Scope
from candor.gateway.access.rules import Access, Rule
from candor.gateway.pools import BODIES
from candor.gateway.service import validation
from candor.gateway.service.open_inference import (
    EXTENSIONS,
    SERVER_NAME,
    InferRequest,
    InferResponse,
    Tensor,
    check_datatype,
    check_names,
    flattened,
    tensor_of,
)
from candor.gateway.service.tensor_parameters import InputPart, OutputPart, RequestParameters
from candor.gateway.transport.parts import Parts
from candor.gateway.transport.rest.call import RestCall, RestCalls
from candor.gateway.transport.rest.health import not_ready_response
from candor.gateway.transport.rest.openapi import add_operation, reference, request_body
from candor.gateway.transport.rest.request_body import parse_json


class InferInput(InputPart):
    """One input tensor; ``data`` of BYTES are base64 texts."""

    name: str
    shape: tuple[Annotated[int, Field(strict=True)], ...]
    datatype: str
    data: list[Any] | None = None


class InferOutput(OutputPart):
    """One requested output."""

    name: str


class InferBody(BaseModel):
    """`POST /v2/models/{model}/infer`.

    Some clients repeat the path's model; another one than in the path is an error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    parameters: RequestParameters = RequestParameters()
    model_name: str = ""
    model_version: str = ""

    id: str = ""
    inputs: tuple[InferInput, ...] = Field(min_length=1, max_length=8)
    outputs: tuple[InferOutput, ...] = Field(default=(), max_length=8)


class InstancesBody(BaseModel):
    """`POST /v1/models/{model}:predict` or `:explain`: fields of a request each, or ``b64``."""

    instances: list[dict[str, Any]] = Field(min_length=1, max_length=limits.MAX_INSTANCES)


def add_open_inference(app: FastAPI, parts: Parts, calls: RestCalls) -> None:
    """Adds the paths of both protocols."""
    endpoints = _Endpoints(parts, calls)
    gets: tuple[tuple[str, Callable[..., Any], Rule], ...] = (
        ("/v2", endpoints.server, Access.ANY_KEY),
        ("/v2/health/live", endpoints.live, Access.PUBLIC),
        ("/v2/health/ready", endpoints.ready, Access.PUBLIC),
        ("/v2/models/{model}", endpoints.model, Access.ANY_KEY),
        ("/v2/models/{model}/ready", endpoints.model_ready, Access.ANY_KEY),
        ("/v2/models/{model}/versions/{version}", endpoints.model, Access.ANY_KEY),
        ("/v2/models/{model}/versions/{version}/ready", endpoints.model_ready, Access.ANY_KEY),
    )
    for path, endpoint, rule in gets:
        add_operation(app, "GET", path, endpoint, rule)
    infer, instances = reference(app, InferBody), reference(app, InstancesBody)
    posts: tuple[tuple[str, Callable[..., Any], Rule, dict[str, Any]], ...] = (
        ("/v2/models/{model}/infer", endpoints.infer, Scope.PREDICT, infer),
        ("/v2/models/{model}/versions/{version}/infer", endpoints.infer, Scope.PREDICT, infer),
        ("/v1/models/{model}:predict", endpoints.predict, Scope.PREDICT, instances),
        ("/v1/models/{model}:explain", endpoints.explain, Scope.EXPLAIN, instances),
    )
    for path, endpoint, rule, schema in posts:
        body = {"requestBody": request_body({"application/json": schema})}
        add_operation(app, "POST", path, endpoint, rule, openapi_extra=body)


class _Endpoints:
    def __init__(self, parts: Parts, calls: RestCalls) -> None:
        self._protocol = parts.open_inference
        self._calls = calls
        self._is_ready = parts.is_ready
        self._version = parts.settings.build_version

    async def server(self) -> dict[str, Any]:
        """Name, version and extensions of this server."""
        return {"name": SERVER_NAME, "version": self._version, "extensions": EXTENSIONS}

    async def live(self) -> dict[str, bool]:
        """The process is running."""
        return {"live": True}

    async def ready(self, request: Request) -> Response:
        """Every model has just made a real prediction and a real search step."""
        return self._readiness(request, {"ready": True})

    async def model(self, request: Request, model: str) -> Response:
        """Inputs and outputs of a model."""
        version = _version(request)

        async def metadata(call: RestCall) -> Mapping[str, Any]:
            return self._protocol.metadata(model, version)

        return await self._calls.respond("get_model", request, metadata, model=model)

    async def model_ready(self, request: Request, model: str) -> Response:
        """The model has just served a real request."""
        version = _version(request)

        async def readiness(call: RestCall) -> Response:
            self._protocol.details(model, version)
            return self._readiness(request, {"name": model, "ready": True})

        return await self._calls.respond("get_model", request, readiness, model=model)

    async def infer(self, request: Request, model: str) -> Response:
        """The strongest classes of every image."""
        version = _version(request)

        async def infer(call: RestCall) -> Response:
            content = await call.body()
            length = _header_length(request, len(content))
            body = await BODIES.run(_parsed_body, content[:length])
            _check_same("model_name", body.model_name, model)
            if version:
                _check_same("model_version", body.model_version, version)
            tensors = await BODIES.run(_tensors, body.inputs, content[length:])
            wanted = _infer_request(model, version or body.model_version, body, tensors)
            inferred = await call.unless_gone(self._protocol.infer(wanted, call.context))
            return _infer_response(body, inferred, call.context.request_id)

        return await self._calls.respond("predict_many", request, infer, model=model)

    async def predict(self, request: Request, model: str) -> Response:
        """KServe v1: the strongest classes of every instance."""
        work = self._instances(model, self._protocol.predict)
        return await self._calls.respond("predict_many", request, work, model=model)

    async def explain(self, request: Request, model: str) -> Response:
        """KServe v1: explanations of every instance."""
        work = self._instances(model, self._protocol.explain)
        return await self._calls.respond("explain_many", request, work, model=model)

    def _instances(
        self, model: str, serve: Callable[..., Coroutine[Any, Any, dict[str, Any]]]
    ) -> Callable[[RestCall], Awaitable[Mapping[str, Any]]]:
        async def work(call: RestCall) -> Mapping[str, Any]:
            body = await BODIES.run(parse_json, await call.body())
            return await call.unless_gone(serve(model, body, call.context))

        return work

    def _readiness(self, request: Request, content: dict[str, Any]) -> Response:
        return JSONResponse(content) if self._is_ready() else not_ready_response(request)


def _infer_request(
    model: str, version: str, body: InferBody, tensors: Sequence[Tensor]
) -> InferRequest:
    return InferRequest(
        model=model,
        version=version,
        top_k=body.parameters.top_k,
        inputs=tensors,
        outputs=[output.name for output in body.outputs],
    )


def _version(request: Request) -> str:
    """That of the path, empty where it names none."""
    return str(request.path_params.get("version", ""))


def _check_same(field: str, given: str, of_path: str) -> None:
    if given not in ("", of_path):
        description = f"expected {shown(of_path)} of the path, got "
        raise invalid_input([FieldViolation(field, description + shown(given))])


def _header_length(request: Request, body_length: int) -> int:
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return body_length
    if re.fullmatch("[0-9]{1,9}", given) is None or int(given) > body_length:
        expected = f"a number of bytes in [0, {body_length}], the body's"
        description = f"expected {expected}, got {shown(given)}"
        raise invalid_input([FieldViolation(HEADER_LENGTH, description)])
    return int(given)


def _parsed_body(content: bytes) -> InferBody:
    payload = parse_json(content)
    # Only the numbers of a tensor may be many.
    return validation.parsed_loosely(InferBody, payload)


def _tensors(inputs: Sequence[InferInput], binary: bytes) -> list[Tensor]:
    check_names([one.name for one in inputs])
    tensors, offset = [], 0
    for index, one in enumerate(inputs):
        field = f"inputs.{index}"
        data: Any = one.data
        if one.parameters.is_binary:
            size = one.parameters.binary_data_size
            if data is not None:
                description = "expected none beside binary_data_size, got both"
                raise invalid_input([FieldViolation(f"{field}.data", description)])
            if size > len(binary) - offset:
                description = f"expected at most the {len(binary) - offset} bytes left, got {size}"
                place = f"{field}.parameters.binary_data_size"
                raise invalid_input([FieldViolation(place, description)])
            data, offset = binary[offset : offset + size], offset + size
        elif data is None:
            raise invalid_input([FieldViolation(f"{field}.data", "required")])
        else:
            data = _listed_values(one, field)
        tensors.append(tensor_of(one.name, one.datatype, one.shape, data, field))
    if offset != len(binary):
        description = f"expected {offset} bytes behind the JSON (binary_data_size), got "
        raise invalid_input([FieldViolation("request", description + str(len(binary)))])
    return tensors


def _listed_values(one: InferInput, field: str) -> list[Any]:
    """The values of a tensor in JSON: base64 texts, or numbers; true is no number."""
    check_datatype(one.datatype, field)
    values = flattened(one.data or (), one.shape, field)
    if one.datatype == "BYTES":
        return [_decoded(value, f"{field}.data") for value in values]
    wrong = next((value for value in values if type(value) not in (int, float)), None)
    if None in values or wrong is not None:
        description = f"expected numbers, got {shown(wrong)}"
        raise invalid_input([FieldViolation(f"{field}.data", description)])
    return values


def _decoded(value: Any, field: str) -> bytes:
    try:
        if isinstance(value, str):
            return bytes(from_base64(value))
    except ValueError as err:
        raise invalid_input([FieldViolation(field, str(err))]) from err
    raise invalid_input([FieldViolation(field, f"expected base64 texts, got {shown(value)}")])


def _binary_names(body: InferBody, outputs: Sequence[Tensor]) -> set[str]:
    usual = body.parameters.binary_data_output
    wanted = {one.name: one.parameters.is_binary(usual) for one in body.outputs}
    return {one.name for one in outputs if wanted.get(one.name, usual)}


def _infer_response(body: InferBody, inferred: InferResponse, request_id: str) -> Response:
    binary = _binary_names(body, inferred.outputs)
    parts = [output.raw() for output in inferred.outputs if output.name in binary]
    head = {
        "model_name": inferred.model.name,
        "model_version": inferred.model.version,
        "id": body.id or request_id,
        **({"parameters": inferred.parameters} if inferred.parameters else {}),
        "outputs": [
            _described(output, is_binary=output.name in binary) for output in inferred.outputs
        ],
    }
    text = json_text(head).encode()
    if not parts:
        return Response(text, media_type="application/json")
    return Response(
        b"".join([text, *parts]),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(text))},
    )


def _described(output: Tensor, *, is_binary: bool) -> dict[str, Any]:
    """An output tensor with its values, or with the number of bytes they take behind the JSON."""
    tensor = {"name": output.name, "shape": list(output.shape), "datatype": output.datatype}
    if is_binary:
        return {**tensor, "parameters": {"binary_data_size": len(output.raw())}}
    return {**tensor, "data": _listed(output)}


def _listed(tensor: Tensor) -> list[Any]:
    if tensor.datatype == "BYTES":
        return [bytes(value).decode() for value in tensor.values]
    return [value.item() for value in tensor.values]  # type: ignore[union-attr]
