"""`/v2` (Open Inference Protocol) and KServe's `/v1/models/{model}:predict` and `:explain`.

Tensors travel as JSON, or behind it as bytes (the extension
``binary_tensor_data``): then the header ``Inference-Header-Content-Length`` says where they begin.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from candor.contracts import limits
from candor.contracts.api import Base64Bytes
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.gateway.config.settings import Settings
from candor.gateway.observability import request_log
from candor.gateway.observability.request_log import RequestLog
from candor.gateway.service import validation
from candor.gateway.service.open_inference import (
    EXTENSIONS,
    SERVER_NAME,
    InferRequest,
    OpenInference,
    Tensor,
    tensor_of,
)
from candor.gateway.transport.rest.endpoints import REFUSALS, rest_request_context, unless_gone
from candor.gateway.transport.rest.errors import error_response
from candor.gateway.transport.rest.request_body import ClientGone, parse_json, read_body

HEADER_LENGTH = "inference-header-content-length"
_CLIENT_GONE_STATUS = 499


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    parameters: dict[str, Any] = Field(default_factory=dict)


class InferInput(_Part):
    """One input tensor; ``data`` of BYTES are base64 texts."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any] | None = None


class InferOutput(_Part):
    """One output asked for."""

    name: str


class InferBody(_Part):
    """`POST /v2/models/{model}/infer`; ``parameters`` may have ``top_k``."""

    id: str = ""
    inputs: tuple[InferInput, ...] = Field(min_length=1, max_length=8)
    outputs: tuple[InferOutput, ...] = Field(default=(), max_length=8)


class InstancesBody(BaseModel):
    """`POST /v1/models/{model}:predict` or `:explain`: fields of a request each, or ``b64``."""

    instances: list[dict[str, Any]] = Field(min_length=1, max_length=limits.MAX_INSTANCES)


class _Bytes(BaseModel):
    values: list[Base64Bytes]


def add_open_inference(
    app: FastAPI,
    protocol: OpenInference,
    observer: RequestLog,
    is_ready: Callable[[], bool],
    settings: Settings,
) -> None:
    """Adds both protocols' paths."""
    door = _Door(protocol, observer, is_ready, settings)
    gets: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("/v2", door.server),
        ("/v2/health/live", door.live),
        ("/v2/health/ready", door.ready),
        ("/v2/models/{model}", door.model),
        ("/v2/models/{model}/ready", door.model_ready),
        ("/v2/models/{model}/versions/{version}", door.model),
        ("/v2/models/{model}/versions/{version}/ready", door.model_ready),
    )
    for path, endpoint in gets:
        app.add_api_route(path, endpoint, methods=["GET"], response_model=None, responses=REFUSALS)
    posts: tuple[tuple[str, Callable[..., Any], type[BaseModel]], ...] = (
        ("/v2/models/{model}/infer", door.infer, InferBody),
        ("/v2/models/{model}/versions/{version}/infer", door.infer, InferBody),
        ("/v1/models/{model}:predict", door.predict, InstancesBody),
        ("/v1/models/{model}:explain", door.explain, InstancesBody),
    )
    app.state.unparsed += [InferBody, InstancesBody]
    for path, endpoint, body in posts:
        reference = {"$ref": f"#/components/schemas/{body.__name__}"}
        schema = {"application/json": {"schema": reference}}
        app.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            response_model=None,
            responses=REFUSALS,
            openapi_extra={"requestBody": {"required": True, "content": schema}},
        )


class _Door:
    def __init__(
        self,
        protocol: OpenInference,
        observer: RequestLog,
        is_ready: Callable[[], bool],
        settings: Settings,
    ) -> None:
        self._protocol = protocol
        self._request_log = observer
        self._is_ready = is_ready
        self._body_seconds = settings.body_seconds
        self._version = settings.build_version

    async def server(self) -> dict[str, Any]:
        """Name, version and extensions of this server."""
        return {"name": SERVER_NAME, "version": self._version, "extensions": EXTENSIONS}

    async def live(self) -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    async def ready(self, request: Request) -> Response:
        """Every model answered a real prediction and a real search step lately."""
        return self._readiness(request, {"ready": True})

    async def model(self, request: Request, model: str, version: str = "") -> Response:
        """Inputs and outputs of a model."""

        async def tell() -> Response:
            return _json(self._protocol.metadata(model, version))

        return await self._watched("get_model", model, request, tell())

    async def model_ready(self, request: Request, model: str, version: str = "") -> Response:
        """The model answered lately."""

        async def tell() -> Response:
            self._protocol.details(model, version)
            return self._readiness(request, {"name": model, "ready": True})

        return await self._watched("get_model", model, request, tell())

    async def infer(self, request: Request, model: str, version: str = "") -> Response:
        """The strongest classes of every image."""
        return await self._watched(
            "predict_many", model, request, self._infer(request, model, version)
        )

    async def predict(self, request: Request, model: str) -> Response:
        """KServe v1: the strongest classes of every instance."""
        work = self._instances(request, model, self._protocol.predict)
        return await self._watched("predict_many", model, request, work)

    async def explain(self, request: Request, model: str) -> Response:
        """KServe v1: explanations of every instance."""
        work = self._instances(request, model, self._protocol.explain)
        return await self._watched("explain_many", model, request, work)

    async def _infer(self, request: Request, model: str, version: str) -> Response:
        request_context = rest_request_context(request)
        content = await read_body(request, self._body_seconds)
        length = _header_length(request, len(content))
        body = await asyncio.to_thread(_parsed_body, content[:length])
        tensors = await asyncio.to_thread(_tensors, body.inputs, content[length:])
        asked = InferRequest(
            model=model,
            version=version,
            top_k=body.parameters.get("top_k"),
            inputs=tensors,
            outputs=[output.name for output in body.outputs],
        )
        answer = await unless_gone(request, self._protocol.infer(asked, request_context))
        head: dict[str, Any] = {
            "model_name": answer.model.name,
            "model_version": answer.model.version,
            "id": body.id or request_context.request_id,
        }
        return _infer_response(head, answer.outputs, _binary_names(body, answer.outputs))

    async def _instances(
        self,
        request: Request,
        model: str,
        serve: Callable[..., Coroutine[Any, Any, dict[str, Any]]],
    ) -> Response:
        request_context = rest_request_context(request)
        content = await read_body(request, self._body_seconds)
        body = await asyncio.to_thread(parse_json, content)
        answer = await unless_gone(request, serve(model, body, request_context))
        # In a thread: explanations are megabytes.
        return await asyncio.to_thread(_json, answer)

    def _readiness(self, request: Request, answer: dict[str, Any]) -> Response:
        if self._is_ready():
            return _json(answer)
        error = ServiceError(ErrorCode.MODEL_NOT_READY, "not ready", retry_seconds=1.0)
        return error_response(error, request)

    async def _watched(
        self, verb: str, model: str, request: Request, work: Coroutine[Any, Any, Response]
    ) -> Response:
        try:
            with self._request_log.watch(
                request_log.Call(verb, request.state.request_id, model), request.headers
            ):
                return await work
        except ServiceError as err:
            return error_response(err, request)
        except ClientGone:
            return Response(status_code=_CLIENT_GONE_STATUS)


def _header_length(request: Request, body_length: int) -> int:
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return body_length
    if not given.isascii() or not given.isdigit() or int(given[:12]) > body_length:
        description = f"got {given[:20]!r}, allowed at most the body's {body_length} bytes"
        raise invalid_input([FieldViolation(HEADER_LENGTH, description)])
    return int(given[:12])


def _parsed_body(content: bytes) -> InferBody:
    payload = parse_json(content)
    # Numbers of a tensor are many; all else is not.
    return validation.parsed_loosely(InferBody, payload)


def _tensors(inputs: Sequence[InferInput], binary: bytes) -> list[Tensor]:
    tensors, offset = [], 0
    for place, one in enumerate(inputs):
        field = f"inputs.{place}"
        size = one.parameters.get("binary_data_size")
        data: Any = one.data
        if size is not None:
            if not isinstance(size, int) or not 0 <= size <= len(binary) - offset:
                description = (
                    f"got {validation.shown(size)}, allowed at most {len(binary) - offset}"
                )
                raise invalid_input([FieldViolation(f"{field}.parameters", description)])
            data, offset = binary[offset : offset + size], offset + size
        elif data is None:
            raise invalid_input([FieldViolation(f"{field}.data", "required")])
        elif one.datatype == "BYTES":
            data = validation.parsed_loosely(_Bytes, {"values": data}).values
        tensors.append(tensor_of(one.name, one.datatype, one.shape, data, field))
    return tensors


def _binary_names(body: InferBody, outputs: Sequence[Tensor]) -> set[str]:
    usual = body.parameters.get("binary_data_output") is True
    wanted = {one.name: one.parameters.get("binary_data", usual) is True for one in body.outputs}
    return {one.name for one in outputs if wanted.get(one.name, usual)}


def _infer_response(
    head: Mapping[str, Any], outputs: Sequence[Tensor], binary: set[str]
) -> Response:
    described, parts = [], []
    for one in outputs:
        tensor: dict[str, Any] = {
            "name": one.name,
            "shape": list(one.shape),
            "datatype": one.datatype,
        }
        if one.name in binary:
            parts.append(one.raw())
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            tensor["data"] = _listed(one)
        described.append(tensor)
    text = json.dumps({**head, "outputs": described}).encode()
    if not parts:
        return Response(text, media_type="application/json")
    return Response(
        b"".join([text, *parts]),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(text))},
    )


def _listed(tensor: Tensor) -> list[Any]:
    if tensor.datatype == "BYTES":
        return [bytes(value).decode() for value in tensor.values]
    return [value.item() for value in tensor.values]  # type: ignore[union-attr]


def _json(answer: Mapping[str, Any]) -> Response:
    return Response(json.dumps(answer), media_type="application/json")
