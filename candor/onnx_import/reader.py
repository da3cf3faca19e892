"""Reads an ONNX file of any exporter; what imports the package ``onnx`` is behind it.

The file is read as data; nothing that it names is run.
"""

from dataclasses import replace
from pathlib import Path

from candor.onnx_import.assembly import BATCHES, Draft, best_plan, shapes_of
from candor.onnx_import.branches import without_branches
from candor.onnx_import.classifier import image_input, logits_output
from candor.onnx_import.convert import graph_of
from candor.onnx_import.description import Description
from candor.onnx_import.files import read_model
from candor.onnx_import.limits import OnnxImportError, OnnxLimits
from candor.onnx_import.network import OnnxNetwork, network_of
from candor.onnx_import.normal_form import normalized
from candor.onnx_import.roles import with_roles

_LIMITS = OnnxLimits()


def read_onnx(
    path: Path,
    *,
    input_size: tuple[int, int] | None = None,
    output: str | None = None,
    limits: OnnxLimits = _LIMITS,
) -> OnnxNetwork:
    """Read an ONNX file, opset 9 to 22, fixed or free batch, weights inside or beside it.

    Args:
        input_size: (height, width) where the file leaves them open; must agree where it does not.
        output: name of the output with the logits; needed where there are several.
    Raises:
        OnnxImportError: the file is missing, damaged or too large; its external data leaves its
            folder; a weight is NaN; an operator is missing (named with its node); input or output
            is not that of a classifier.
    """
    model, files = read_model(path, limits)
    model = normalized(model, str(path), limits)
    try:
        graph = graph_of(model)
        image = image_input(graph, input_size)
        names = logits_output(graph, output)
        batches = (image.batch,) if image.batch else BATCHES
        graph = without_branches(graph, shapes_of(image, batches), batches, limits)
        graph = with_roles(graph, image.name, limits)
        draft = Draft(graph.before([names[0]]), image, *names, limits)
        plan, assembled = best_plan(draft)
    except OnnxImportError as err:
        raise OnnxImportError(f"{path}: {err}") from err
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    producer = f"{model.producer_name} {model.producer_version}".strip()
    network = network_of(Description(draft, plan, metadata, producer), assembled)
    return replace(network, files=files)
