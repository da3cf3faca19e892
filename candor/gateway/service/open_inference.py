"""The Open Inference Protocol (v2) and KServe's v1, free of any transport, over the service.

Both bring several images a request; each is a request of
the service, so limits, deadlines and errors are the same as through the other paths.
"""

import asyncio
import math
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from candor.contracts import api, limits
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.contracts.names import split_name, versioned
from candor.gateway.access.request_context import RequestContext
from candor.gateway.service.candor_service import CandorService
from candor.gateway.service.validation import shown

AnswerT = TypeVar("AnswerT")

SERVER_NAME = "candor"
EXTENSIONS = ("binary_tensor_data",)
PLATFORM = "candor_v1"
INPUT = "image"
OUTPUTS = ("indices", "labels", "confidences")
_OUTPUT_TYPES = {"indices": "INT64", "labels": "BYTES", "confidences": "FP32"}
_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named tensor.

    Attributes:
        values: of FP32 and INT64 an array, of BYTES a list; row-major, as many as ``shape`` says.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | Sequence[bytes]

    def raw(self) -> bytes:
        """Little endian; BYTES as length (4 bytes) and content of each element."""
        if isinstance(self.values, np.ndarray):
            return bytes(self.values.astype(_DTYPES[self.datatype]).tobytes())
        return b"".join(struct.pack("<I", len(value)) + value for value in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """A request of either door.

    Attributes:
        version: empty for the primary, or the canary by its share.
        top_k: None for the default.
        outputs: names of those wanted; empty for all.
    """

    model: str
    version: str
    top_k: Any
    inputs: Sequence[Tensor]
    outputs: Sequence[str]


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """Outputs in the order they were asked for, and the model that gave them."""

    model: api.ModelRef
    outputs: tuple[Tensor, ...]


def tensor_of(name: str, datatype: str, shape: Sequence[int], data: Any, field: str) -> Tensor:
    """A tensor of flat or nested values, or of raw bytes.

    Raises:
        ServiceError: INVALID_INPUT: another datatype than BYTES or FP32, or not as many values as
            the shape says.
    """
    count = _count(shape, field)
    try:
        if datatype == "BYTES":
            values: Any = _split(data) if isinstance(data, bytes) else list(data)
        elif datatype == "FP32":
            is_raw = isinstance(data, bytes)
            values = np.frombuffer(data, "<f4") if is_raw else np.asarray(data, "<f4").ravel()
        else:
            raise _bad(f"{field}.datatype", f"got {shown(datatype)}, allowed BYTES, FP32")
    except (ValueError, TypeError, OverflowError, struct.error) as err:
        raise _bad(f"{field}.data", f"got values that are no {datatype} of this shape") from err
    if len(values) != count:
        raise _bad(f"{field}.data", f"got {len(values)} values, allowed {count} (shape)")
    return Tensor(name, datatype, tuple(shape), values)


def _count(shape: Sequence[int], field: str) -> int:
    if len(shape) > 8 or any(not 0 <= size <= limits.MAX_BODY_BYTES for size in shape):
        raise _bad(f"{field}.shape", f"got {shown(list(shape))}, allowed sizes of 0 and more")
    return math.prod(shape)


def _split(data: bytes) -> list[bytes]:
    values: list[bytes] = []
    offset = 0
    while offset < len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        offset += 4 + length
        if offset > len(data) or len(values) > limits.MAX_INSTANCES:
            raise ValueError("an element ends beyond the tensor")
        values.append(data[offset - length : offset])
    return values


class OpenInference:
    """Predictions and explanations for many images at once."""

    def __init__(self, service: CandorService) -> None:
        self._service = service

    def metadata(self, model: str, version: str) -> dict[str, Any]:
        """As ModelMetadata and `GET /v2/models/{model}` tell it.

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
        """Of one version, or of the primary where none is named.

        Raises:
            ServiceError: MODEL_NOT_FOUND, MODEL_NOT_READY.
        """
        return self._service.get_model(self._exact(model, version))

    def _exact(self, model: str, version: str) -> str:
        """``model``, with the version where one is named beside it."""
        if not version:
            return model
        named = self._service.get_model(model).model
        is_exact = split_name(model)[1] != ""
        known = (named.version,) if is_exact else self._service.models.versions_beside(named)
        if version not in known:
            description = f"got {shown(version)}, available {', '.join(known)}"
            raise ServiceError(
                ErrorCode.MODEL_NOT_FOUND,
                f"version: {description}",
                violations=[FieldViolation("version", description)],
            )
        return versioned(named.name, version)

    async def infer(self, request: InferRequest, request_context: RequestContext) -> InferAnswer:
        """The strongest classes of every image."""
        unknown = sorted(set(request.outputs) - set(OUTPUTS))
        if unknown:
            raise _bad("outputs", f"got {shown(unknown[0])}, allowed {', '.join(OUTPUTS)}")
        asked = {"model": self._exact(request.model, request.version)}
        if request.top_k is not None:
            asked["top_k"] = request.top_k
        payloads = [{**asked, "image": image} for image in _images(request.inputs)]
        answered = await self._all("inputs.0", self._service.predict, payloads, request_context)
        outputs = _outputs([answer.predictions for answer in answered])
        wanted = request.outputs or OUTPUTS
        return InferAnswer(answered[0].model, tuple(outputs[name] for name in wanted))

    async def predict(
        self, model: str, body: Any, request_context: RequestContext
    ) -> dict[str, Any]:
        """KServe v1: the strongest classes of every instance."""
        payloads = _instances(model, body)
        answered = await self._all("instances", self._service.predict, payloads, request_context)
        return {
            "predictions": [
                [one.model_dump(mode="json") for one in answer.predictions] for answer in answered
            ]
        }

    async def explain(
        self, model: str, body: Any, request_context: RequestContext
    ) -> dict[str, Any]:
        """KServe v1: every instance is an `ExplainRequest`, every explanation its answer."""
        payloads = _instances(model, body)
        answered = await self._all("instances", self._service.explain, payloads, request_context)
        return {"explanations": [answer.model_dump(mode="json") for answer in answered]}

    async def _all(
        self,
        field: str,
        serve: Callable[[Any, RequestContext], Awaitable[AnswerT]],
        payloads: Sequence[dict[str, Any]],
        request_context: RequestContext,
    ) -> list[AnswerT]:
        """All answers in order, of one version; the first refusal ends the rest and says where."""
        served = await self._service.route(payloads[0], request_context)
        payloads = [{**payload, "model": served} for payload in payloads]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(_named(f"{field}.{place}", serve(payload, request_context)))
                    for place, payload in enumerate(payloads)
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]


async def _named(place: str, answering: Awaitable[AnswerT]) -> AnswerT:
    try:
        return await answering
    except ServiceError as err:
        if not err.violations:
            raise
        violations = [FieldViolation(f"{place}.{v.field}", v.description) for v in err.violations]
        message = "; ".join(f"{v.field}: {v.description}" for v in violations)
        raise ServiceError(
            err.code, message, violations=violations, retry_seconds=err.retry_seconds
        ) from err


def _images(inputs: Sequence[Tensor]) -> list[dict[str, Any]]:
    if len(inputs) != 1 or inputs[0].name != INPUT:
        got = ", ".join(shown(one.name) for one in inputs[:5]) or "none"
        raise _bad("inputs", f"got {got}, allowed one named {INPUT}")
    tensor = inputs[0]
    if tensor.datatype == "BYTES":
        images: list[dict[str, Any]] = [{"encoded": value} for value in tensor.values]
    else:
        images = _planes(tensor)
    _check_count("inputs.0.shape", len(images))
    return images


def _planes(tensor: Tensor) -> list[dict[str, Any]]:
    if len(tensor.shape) not in (3, 4):
        raise _bad("inputs.0.shape", f"got {list(tensor.shape)}, allowed [N, C, H, W] or [C, H, W]")
    shape = tensor.shape[-3:]
    count = tensor.shape[0] if len(tensor.shape) == 4 else 1
    _check_count("inputs.0.shape", count)
    planes = np.asarray(tensor.values, "<f4").reshape(count, -1)
    return [{"tensor": {"shape": shape, "data": plane.tobytes()}} for plane in planes]


def _instances(model: str, body: Any) -> list[dict[str, Any]]:
    """An instance has the fields of a request; ``b64`` stands for an encoded image."""
    instances = body.get("instances") if isinstance(body, Mapping) else None
    if not isinstance(instances, list):
        raise _bad("instances", f"got {shown(instances)}, allowed a list")
    _check_count("instances", len(instances))
    return [_instance(model, place, one) for place, one in enumerate(instances)]


def _instance(model: str, place: int, instance: Any) -> dict[str, Any]:
    if not isinstance(instance, Mapping):
        raise _bad(f"instances.{place}", f"got {shown(instance)}, allowed an object")
    fields = dict(instance)
    if "b64" in fields:
        fields["image"] = {"encoded": fields.pop("b64")}
    return {**fields, "model": model}


def _check_count(field: str, count: int) -> None:
    if not 1 <= count <= limits.MAX_INSTANCES:
        raise _bad(field, f"got {count} images, allowed [1, {limits.MAX_INSTANCES}]")


def _outputs(predictions: Sequence[Sequence[api.ClassConfidence]]) -> dict[str, Tensor]:
    shape = (len(predictions), len(predictions[0]))
    flat = [one for row in predictions for one in row]
    values: dict[str, Any] = {
        "indices": np.array([one.index for one in flat], "<i8"),
        "labels": [one.name.encode() for one in flat],
        "confidences": np.array([one.confidence for one in flat], "<f4"),
    }
    return {name: Tensor(name, _OUTPUT_TYPES[name], shape, values[name]) for name in OUTPUTS}


def _bad(field: str, description: str) -> ServiceError:
    return invalid_input([FieldViolation(field, description)])
