"""The Open Inference Protocol (v2) and KServe's v1 over the service, independent of the transport.

A request of either has several images; each of them becomes a request of the service, so limits,
deadlines and errors are the same as on the other paths.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel

from candor.contracts import api, limits
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError
from candor.contracts.names import split_name, versioned
from candor.contracts.violations import shown
from candor.gateway.access.request_context import RequestContext
from candor.gateway.pools import ANSWERS
from candor.gateway.service import explain_tensors
from candor.gateway.service.candor_service import CandorService
from candor.gateway.service.tensor_parameters import ExplainParameters
from candor.gateway.service.tensors import INPUT, Tensor, bad, check_count, images_of

ResponseT = TypeVar("ResponseT")

SERVER_NAME = "candor"
EXTENSIONS = ("binary_tensor_data",)
PLATFORM = "candor_v1"
OUTPUTS = ("indices", "labels", "confidences")
_OUTPUT_TYPES = {"indices": "INT64", "labels": "BYTES", "confidences": "FP32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """An infer request of either transport.

    Attributes:
        version: empty for the primary, or the canary by its share.
        outputs: names of the wanted ones; empty for all.
    """

    model: str
    version: str
    top_k: int = limits.DEFAULT_TOP_K
    inputs: Sequence[Tensor]
    outputs: Sequence[str]


@dataclass(frozen=True, slots=True)
class InferResponse:
    """Outputs in the order of the request, and the model that computed them."""

    model: api.ModelRef
    outputs: tuple[Tensor, ...]

    @property
    def parameters(self) -> dict[str, bool]:
        """What the protocol has no field for."""
        return marks(self.model)


def marks(model: api.ModelRef) -> dict[str, bool]:
    """What an answer has to say of its model besides the name."""
    return {"is_accepted_without_data": True} if model.is_accepted_without_data else {}


class OpenInference:
    """Predictions and explanations for many images at once."""

    def __init__(self, service: CandorService) -> None:
        self._service = service

    def metadata(self, model: str, version: str) -> dict[str, Any]:
        """The metadata of ModelMetadata and `GET /v2/models/{model}`.

        Raises:
            ServiceError: MODEL_NOT_FOUND, MODEL_NOT_READY.
        """
        details = self.details(model, version)
        spec = details.input
        versions = self._service.models.versions_beside(details.model)
        outputs = [(name, _OUTPUT_TYPES[name], [-1, -1]) for name in OUTPUTS]
        return {
            "name": details.model.name,
            "versions": list(versions),
            "platform": PLATFORM,
            "inputs": [
                {"name": INPUT, "datatype": "BYTES", "shape": [-1]},
                {
                    "name": INPUT,
                    "datatype": "FP32",
                    "shape": [-1, spec.channels, spec.height, spec.width],
                },
            ],
            "outputs": [
                {"name": name, "datatype": datatype, "shape": shape}
                for name, datatype, shape in outputs
            ],
        }

    def details(self, model: str, version: str) -> api.ModelDetails:
        """One version of a model, or the primary where ``version`` is empty.

        Raises:
            ServiceError: MODEL_NOT_FOUND, MODEL_NOT_READY.
        """
        return self._service.get_model(self._exact(model, version))

    def _exact(self, model: str, version: str) -> str:
        """``model`` as NAME@VERSION where ``version`` is not empty."""
        if not version:
            return model
        named = self._service.get_model(model).model
        is_exact = split_name(model)[1] != ""
        known = (named.version,) if is_exact else self._service.models.versions_beside(named)
        if version not in known:
            description = f"expected one of {', '.join(known)}, got {shown(version)}"
            raise ServiceError(
                ErrorCode.MODEL_NOT_FOUND,
                f"version: {description}",
                violations=[FieldViolation("version", description)],
            )
        return versioned(named.name, version)

    async def infer(self, request: InferRequest, request_context: RequestContext) -> InferResponse:
        """The strongest classes of every image."""
        wanted = _wanted(request, OUTPUTS)
        fields = {"model": self._exact(request.model, request.version), "top_k": request.top_k}
        images = images_of(request.inputs[0], "inputs.0")
        payloads = [{**fields, "image": image} for image in images]
        answers = await self._all("inputs.0", self._service.predict, payloads, request_context)
        outputs = _outputs([answer.predictions for answer in answers])
        return InferResponse(answers[0].model, tuple(outputs[name] for name in wanted))

    async def explain_images(
        self, request: InferRequest, parameters: ExplainParameters, request_context: RequestContext
    ) -> InferResponse:
        """One explanation of every image, see `candor.gateway.service.explain_tensors`."""
        wanted = _wanted(request, explain_tensors.OUTPUTS)
        model = self._exact(request.model, request.version)
        field, asked = explain_tensors.requests_of(request.inputs, parameters)
        payloads = [{"model": model, **fields} for fields in asked]
        answers = await self._all(field, self._service.explain, payloads, request_context)
        outputs = explain_tensors.outputs_of([one.explanations[0] for one in answers])
        return InferResponse(answers[0].model, tuple(outputs[name] for name in wanted))

    async def predict(
        self, model: str, body: Any, request_context: RequestContext
    ) -> dict[str, Any]:
        """The strongest classes of every instance, for KServe v1."""
        payloads = _instances(model, body)
        answers = await self._all("instances", self._service.predict, payloads, request_context)
        return {
            "predictions": [
                [one.model_dump(mode="json") for one in answer.predictions] for answer in answers
            ],
            **marks(answers[0].model),
        }

    async def explain(
        self, model: str, body: Any, request_context: RequestContext
    ) -> dict[str, Any]:
        """One `ExplainResponse` for every instance, an `ExplainRequest`, for KServe v1."""
        payloads = _instances(model, body)
        answers = await self._all("instances", self._service.explain, payloads, request_context)
        # In a thread: base64 of many images.
        return {"explanations": await ANSWERS.run(_dumped, answers)}

    async def _all(
        self,
        field: str,
        call: Callable[[Any, RequestContext], Awaitable[ResponseT]],
        payloads: Sequence[dict[str, Any]],
        request_context: RequestContext,
    ) -> list[ResponseT]:
        """All responses in order, of one version.

        The first error ends the other calls; its violations name the place in the request.
        """
        name = await self._service.route(payloads[0], request_context)
        payloads = [{**payload, "model": name} for payload in payloads]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        _with_path(f"{field}.{index}", call(payload, request_context))
                    )
                    for index, payload in enumerate(payloads)
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]


def _wanted(request: InferRequest, outputs: Sequence[str]) -> Sequence[str]:
    """Names of the outputs that a request wants, all where it names none."""
    unknown = sorted(set(request.outputs) - set(outputs))
    if unknown:
        raise bad("outputs", f"expected some of {', '.join(outputs)}, got {shown(unknown[0])}")
    if len(set(request.outputs)) != len(request.outputs):
        raise bad("outputs", "expected each once, got one twice")
    return request.outputs or outputs


def _dumped(responses: Sequence[BaseModel]) -> list[dict[str, Any]]:
    return [one.model_dump(mode="json") for one in responses]


async def _with_path(path: str, response: Awaitable[ResponseT]) -> ResponseT:
    try:
        return await response
    except ServiceError as err:
        if not err.violations:
            raise
        violations = [FieldViolation(f"{path}.{v.field}", v.description) for v in err.violations]
        message = "; ".join(f"{v.field}: {v.description}" for v in violations)
        raise ServiceError(
            err.code, message, violations=violations, retry_seconds=err.retry_seconds
        ) from err


def check_names(names: Sequence[str]) -> None:
    """Raises: ServiceError: INVALID_INPUT: these inputs are not the one of every model."""
    if list(names) != [INPUT]:
        got = ", ".join(map(shown, names[:5])) or "none"
        raise bad("inputs", f"expected one input named {INPUT}, got {got}")


def _instances(model: str, body: Any) -> list[dict[str, Any]]:
    """Requests of the service; ``b64`` of an instance stands for an encoded image."""
    if not isinstance(body, Mapping):
        raise bad("request", f"expected an object with instances, got {shown(body)}")
    unknown = sorted(body.keys() - {"instances"})
    if unknown:
        raise bad(unknown[0][:60], "no such field")
    instances = body.get("instances")
    if not isinstance(instances, list):
        raise bad("instances", f"expected a list, got {shown(instances)}")
    check_count("instances", len(instances))
    return [_instance(model, index, one) for index, one in enumerate(instances)]


def _instance(model: str, index: int, instance: Any) -> dict[str, Any]:
    if not isinstance(instance, Mapping):
        raise bad(f"instances.{index}", f"expected an object, got {shown(instance)}")
    fields, place = dict(instance), f"instances.{index}"
    if "b64" in fields and "image" in fields:
        raise bad(f"{place}.image", "expected one of b64, image, got both")
    named = fields.get("model", model)
    if named != model:
        raise bad(f"{place}.model", f"expected {shown(model)} of the path, got {shown(named)}")
    image: Any = instance.get("image")
    region: Any = instance.get("region")
    if _is_b64(image):
        fields["image"] = {"encoded": image["b64"]}
    if "b64" in fields:
        fields["image"] = {"encoded": fields.pop("b64")}
    if isinstance(region, Mapping) and _is_b64(region.get("mask")):
        fields["region"] = {**region, "mask": region["mask"]["b64"]}
    return {**fields, "model": model}


def _is_b64(value: Any) -> bool:
    """Whether KServe's way of writing bytes stands here."""
    return isinstance(value, Mapping) and value.keys() == {"b64"}


def _outputs(predictions: Sequence[Sequence[api.ClassConfidence]]) -> dict[str, Tensor]:
    shape = (len(predictions), len(predictions[0]))
    flat = [one for row in predictions for one in row]
    values: dict[str, Any] = {
        "indices": np.array([one.index for one in flat], "<i8"),
        "labels": [one.name.encode() for one in flat],
        "confidences": np.array([one.confidence for one in flat], "<f4"),
    }
    return {name: Tensor(name, _OUTPUT_TYPES[name], shape, values[name]) for name in OUTPUTS}
