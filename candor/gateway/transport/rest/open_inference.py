"""`/v2` (Open Inference Protocol) and KServe's `/v1/models/{model}:predict` and `:explain`.

Tensors travel as JSON, or as bytes behind it (the extension ``binary_tensor_data``); then the
header ``Inference-Header-Content-Length`` says where the bytes begin.
"""

import base64
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

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
    check_names,
)
from candor.gateway.service.tensor_parameters import (
    ExplainParameters,
    InputPart,
    OutputPart,
    RequestParameters,
)
from candor.gateway.service.tensors import Tensor, check_datatype, flattened, tensor_of
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


class TensorBody(BaseModel):
    """What every body of `POST /v2/models/{model}/...` has.

    Some clients repeat the path's model; another one than in the path is an error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model_name: str = ""
    model_version: str = ""

    id: str = ""
    inputs: tuple[InferInput, ...] = Field(min_length=1, max_length=8)
    outputs: tuple[InferOutput, ...] = Field(default=(), max_length=8)


class InferBody(TensorBody):
    """`POST /v2/models/{model}/infer`."""

    parameters: RequestParameters = RequestParameters()


class ExplainBody(TensorBody):
    """`POST /v2/models/{model}/explain`: the inputs ``image`` and perhaps ``mask``."""

    parameters: ExplainParameters


class InstancesBody(BaseModel):
    """`POST /v1/models/{model}:predict` or `:explain`: fields of a request each, or ``b64``."""

    instances: list[dict[str, Any]] = Field(min_length=1, max_length=limits.MAX_INSTANCES)


BodyT = TypeVar("BodyT", bound=TensorBody)


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
    explain = reference(app, ExplainBody)
    posts: tuple[tuple[str, Callable[..., Any], Rule, dict[str, Any]], ...] = (
        ("/v2/models/{model}/infer", endpoints.infer, Scope.PREDICT, infer),
        ("/v2/models/{model}/versions/{version}/infer", endpoints.infer, Scope.PREDICT, infer),
        ("/v2/models/{model}/explain", endpoints.explain_images, Scope.EXPLAIN, explain),
        (
            "/v2/models/{model}/versions/{version}/explain",
            endpoints.explain_images,
            Scope.EXPLAIN,
            explain,
        ),
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

        async def infer(call: RestCall) -> Response:
            body, asked = await _read(InferBody, call, model)
            check_names([one.name for one in asked.inputs])
            asked = replace(asked, top_k=body.parameters.top_k)
            inferred = await call.unless_gone(self._protocol.infer(asked, call.context))
            return _infer_response(body, inferred, call.context.request_id)

        return await self._calls.respond("predict_many", request, infer, model=model)

    async def explain_images(self, request: Request, model: str) -> Response:
        """An explanation of every image, as tensors; the standard has no such path."""

        async def explain(call: RestCall) -> Response:
            body, asked = await _read(ExplainBody, call, model)
            work = self._protocol.explain_images(asked, body.parameters, call.context)
            return _infer_response(body, await call.unless_gone(work), call.context.request_id)

        return await self._calls.respond("explain_many", request, explain, model=model)

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


async def _read(kind: type[BodyT], call: RestCall, model: str) -> tuple[BodyT, InferRequest]:
    """The body of a request for ``model`` of its path, and what it asks for."""
    content, version = await call.body(), _version(call.request)
    length = _header_length(call.request, len(content))
    body = await BODIES.run(_parsed_body, kind, content[:length])
    _check_same("model_name", body.model_name, model)
    if version:
        _check_same("model_version", body.model_version, version)
    return body, InferRequest(
        model=model,
        version=version or body.model_version,
        inputs=await BODIES.run(_tensors, body.inputs, content[length:]),
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


def _parsed_body(kind: type[BodyT], content: bytes) -> BodyT:
    payload = parse_json(content)
    # Only the numbers of a tensor may be many.
    return validation.parsed_loosely(kind, payload)


def _tensors(inputs: Sequence[InferInput], binary: bytes) -> list[Tensor]:
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


def _binary_names(body: InferBody | ExplainBody, outputs: Sequence[Tensor]) -> set[str]:
    usual = body.parameters.binary_data_output
    wanted = {one.name: one.parameters.is_binary(usual) for one in body.outputs}
    return {one.name for one in outputs if wanted.get(one.name, usual)}


def _infer_response(
    body: InferBody | ExplainBody, inferred: InferResponse, request_id: str
) -> Response:
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
    if tensor.holds_files:
        return [base64.b64encode(bytes(value)).decode() for value in tensor.values]
    if tensor.datatype == "BYTES":
        return [bytes(value).decode() for value in tensor.values]
    return [value.item() for value in tensor.values]  # type: ignore[union-attr]
