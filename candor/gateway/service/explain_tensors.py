"""Explanations as tensors of the Open Inference Protocol: one for each image of a request.

The standard has no explanations; ours take the same inputs as a prediction, a mask beside them, and
the parameters that say what is asked.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from candor.contracts import api
from candor.contracts.violations import shown
from candor.gateway.service.tensor_parameters import ExplainParameters
from candor.gateway.service.tensors import DTYPES, INPUT, Tensor, bad, images_of

MASK = "mask"
_Read = Callable[[api.Explanation], Any]
# Datatype of every output, and what it holds of an explanation.
_OUTPUTS: Mapping[str, tuple[str, _Read]] = {
    "explanations": ("BYTES", lambda one: one.image_png),
    "labels": ("BYTES", lambda one: one.predicted_after.name.encode()),
    "flips": ("BOOL", lambda one: one.flips),
    "confidences_before": ("FP32", lambda one: one.confidence_before),
    "confidences_after": ("FP32", lambda one: one.confidence_after),
    "rho_1": ("FP32", lambda one: one.rho_1),
    "rho_1_5": ("FP32", lambda one: one.rho_1_5),
    "rmse": ("FP32", lambda one: one.rmse),
    "rho_inf": ("FP32", lambda one: one.rho_inf),
    "rmse_inside": ("FP32", lambda one: one.rmse if one.rmse_inside is None else one.rmse_inside),
    "sparsity": ("FP32", lambda one: one.sparsity),
    "radius_notes": ("BYTES", lambda one: one.radius_note.encode()),
}
OUTPUTS = tuple(_OUTPUTS)


def requests_of(
    inputs: Sequence[Tensor], parameters: ExplainParameters
) -> tuple[str, list[dict[str, Any]]]:
    """Path of the images in the request, and one request of the service for each.

    Raises:
        ServiceError: INVALID_INPUT: other inputs than an image and perhaps a mask for each.
    """
    given = {one.name: (place, one) for place, one in enumerate(inputs)}
    if len(given) != len(inputs) or not {INPUT} <= given.keys() <= {INPUT, MASK}:
        got = ", ".join(shown(one.name) for one in inputs) or "none"
        raise bad("inputs", f"expected {INPUT} and perhaps {MASK}, got {got}")
    place, tensor = given[INPUT]
    field = f"inputs.{place}"
    images = images_of(tensor, field)
    masks = _masks(given.get(MASK), parameters, len(images))
    return field, [
        {**parameters.request(mask), "image": image}
        for image, mask in zip(images, masks, strict=True)
    ]


def _masks(
    given: tuple[int, Tensor] | None, parameters: ExplainParameters, count: int
) -> Sequence[bytes | None]:
    if given is None:
        return [None] * count
    place, tensor = given
    if parameters.mask is not None or parameters.box is not None:
        raise bad(f"inputs.{place}", "expected none beside the parameters mask or box, got one")
    if tensor.datatype != "BYTES" or tensor.shape != (count,):
        expected = f"BYTES of shape [{count}], a PNG for each image"
        raise bad(
            f"inputs.{place}", f"expected {expected}, got {tensor.datatype} {list(tensor.shape)}"
        )
    return [bytes(value) for value in tensor.values]


def outputs_of(explanations: Sequence[api.Explanation]) -> dict[str, Tensor]:
    """All outputs by name, each of shape [N]; ``rmse_inside`` is the RMSE where no region is."""
    return {
        name: _output(name, datatype, [read(one) for one in explanations])
        for name, (datatype, read) in _OUTPUTS.items()
    }


def _output(name: str, datatype: str, values: list[Any]) -> Tensor:
    data = values if datatype == "BYTES" else np.array(values, DTYPES[datatype])
    return Tensor(name, datatype, (len(values),), data, holds_files=name == "explanations")
