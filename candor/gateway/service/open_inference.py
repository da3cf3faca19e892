"""The Open Inference Protocol (v2) and KServe's v1 over the service, independent of the transport.

A request of either has several images; each of them becomes a request of the service, so limits,
deadlines and errors are the same as on the other paths.
"""

import asyncio
import math
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from candor.contracts import api, limits
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.contracts.names import split_name, versioned
from candor.contracts.violations import shown
from candor.gateway.access.request_context import RequestContext
from candor.gateway.pools import ANSWERS
from candor.gateway.service.candor_service import CandorService

ResponseT = TypeVar("ResponseT")

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
    """An infer request of either transport.

    Attributes:
        version: empty for the primary, or the canary by its share.
        outputs: names of the wanted ones; empty for all.
    """

    model: str
    version: str
    top_k: int
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


def tensor_of(name: str, datatype: str, shape: Sequence[int], data: Any, field: str) -> Tensor:
    """A tensor from flat or nested values, or from raw bytes.

    Args:
        field: path of the tensor in its request, for messages.

    Raises:
        ServiceError: INVALID_INPUT: another datatype than BYTES or FP32, or not as many values as
            the shape says.
    """
    check_datatype(datatype, field)
    count = _count(shape, field)
    try:
        if datatype == "BYTES":
            values: Any = _split(data) if isinstance(data, bytes) else list(data)
        else:
            values = np.frombuffer(data, "<f4") if isinstance(data, bytes) else _single(data)
    except (ValueError, TypeError, OverflowError, struct.error) as err:
        raise _bad(
            f"{field}.data", f"expected {datatype} values of this shape, got others"
        ) from err
    if len(values) != count:
        raise _bad(f"{field}.data", f"expected {count} values (shape), got {len(values)}")
    return Tensor(name, datatype, tuple(shape), values)


def check_datatype(datatype: str, field: str) -> None:
    """Raises: ServiceError: INVALID_INPUT: not one that an input may have."""
    if datatype not in ("BYTES", "FP32"):
        raise _bad(f"{field}.datatype", f"expected BYTES or FP32, got {shown(datatype)}")


def _single(numbers: Any) -> NDArray[Any]:
    """As float32.  Raises: OverflowError: one is beyond it, which would become an infinity."""
    wide = np.asarray(numbers, np.float64)
    if wide.size and np.abs(wide[np.isfinite(wide)]).max(initial=0.0) > np.finfo(np.float32).max:
        raise OverflowError("beyond float32")
    return wide.astype("<f4")


def flattened(data: Sequence[Any], shape: Sequence[int], field: str) -> list[Any]:
    """The values of a JSON tensor, flat or nested as its shape says.

    Raises:
        ServiceError: INVALID_INPUT: nested in another way than the shape.
    """
    values, nested = list(data), [len(data)]
    while any(isinstance(one, list) for one in values):
        sizes = {len(one) if isinstance(one, list) else -1 for one in values}
        nested.append(sizes.pop())
        if sizes or len(nested) > 8:
            raise _bad(f"{field}.data", "expected lists of equal length, got others")
        values = [value for one in values for value in one]
    if len(nested) > 1 and nested != list(shape):
        raise _bad(f"{field}.data", f"expected lists of shape {list(shape)}, got {nested}")
    return values


def _count(shape: Sequence[int], field: str) -> int:
    if len(shape) > 8 or any(not 0 <= size <= limits.MAX_BODY_BYTES for size in shape):
        expected = f"at most 8 sizes in [0, {limits.MAX_BODY_BYTES}]"
        raise _bad(f"{field}.shape", f"expected {expected}, got {shown(list(shape))}")
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
        unknown = sorted(set(request.outputs) - set(OUTPUTS))
        if unknown:
            raise _bad("outputs", f"expected some of {', '.join(OUTPUTS)}, got {shown(unknown[0])}")
        if len(set(request.outputs)) != len(request.outputs):
            raise _bad("outputs", "expected each once, got one twice")
        fields = {"model": self._exact(request.model, request.version), "top_k": request.top_k}
        payloads = [{**fields, "image": image} for image in _images(request.inputs[0])]
        answers = await self._all("inputs.0", self._service.predict, payloads, request_context)
        outputs = _outputs([answer.predictions for answer in answers])
        wanted = request.outputs or OUTPUTS
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
        raise _bad("inputs", f"expected one input named {INPUT}, got {got}")


def _images(tensor: Tensor) -> list[dict[str, Any]]:
    if tensor.datatype == "BYTES":
        images: list[dict[str, Any]] = [{"encoded": value} for value in tensor.values]
    else:
        images = _planes(tensor)
    _check_count("inputs.0.shape", len(images))
    return images


def _planes(tensor: Tensor) -> list[dict[str, Any]]:
    if len(tensor.shape) not in (3, 4):
        raise _bad(
            "inputs.0.shape", f"expected [N, C, H, W] or [C, H, W], got {list(tensor.shape)}"
        )
    shape = tensor.shape[-3:]
    count = tensor.shape[0] if len(tensor.shape) == 4 else 1
    _check_count("inputs.0.shape", count)
    planes = np.asarray(tensor.values, "<f4").reshape(count, -1)
    return [{"tensor": {"shape": shape, "data": plane.tobytes()}} for plane in planes]


def _instances(model: str, body: Any) -> list[dict[str, Any]]:
    """Requests of the service; ``b64`` of an instance stands for an encoded image."""
    if not isinstance(body, Mapping):
        raise _bad("request", f"expected an object with instances, got {shown(body)}")
    unknown = sorted(body.keys() - {"instances"})
    if unknown:
        raise _bad(unknown[0][:60], "no such field")
    instances = body.get("instances")
    if not isinstance(instances, list):
        raise _bad("instances", f"expected a list, got {shown(instances)}")
    _check_count("instances", len(instances))
    return [_instance(model, index, one) for index, one in enumerate(instances)]


def _instance(model: str, index: int, instance: Any) -> dict[str, Any]:
    if not isinstance(instance, Mapping):
        raise _bad(f"instances.{index}", f"expected an object, got {shown(instance)}")
    fields, place = dict(instance), f"instances.{index}"
    if "b64" in fields and "image" in fields:
        raise _bad(f"{place}.image", "expected one of b64, image, got both")
    named = fields.get("model", model)
    if named != model:
        raise _bad(f"{place}.model", f"expected {shown(model)} of the path, got {shown(named)}")
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


def _check_count(field: str, count: int) -> None:
    if not 1 <= count <= limits.MAX_INSTANCES:
        raise _bad(field, f"expected [1, {limits.MAX_INSTANCES}] images, got {count}")


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
