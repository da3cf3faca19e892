"""An imported ONNX graph as a torch network with gradients.

What comes out is an ordinary torch module of one's own weights: it takes any batch, can be copied,
compiled, fine-tuned and differentiated twice.  Its graph is kept as data
(`candor.onnx_import.description`), its weights as a state dict; `build_onnx` makes the module of
both again, without the package ``onnx``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from candor.onnx_import.assembly import Assembled, assemble
from candor.onnx_import.description import Description, read, written
from candor.onnx_import.limits import OnnxLimits

_LIMITS = OnnxLimits()


@dataclass(frozen=True, slots=True)
class OnnxNetwork:
    """An imported classifier.

    Attributes:
        module: (B, C, H, W) float32, B >= 1, to (B, V) float32; in evaluation mode, its weights
            need gradients.  Its values are those of the file: pixels are not scaled or normalised
            unless the graph does so.
        input_shape: (C, H, W), also where the file has its channels last.
        classes: V, columns of the output; 1 for a single sigmoid.
        opset: version of the operators of the file.
        graph: the graph without its weights, deterministic JSON; `build_onnx` reads it.
        output_activation: "softmax" or "sigmoid" where the file ended in one, which was cut off so
            that ``module`` gives logits; "" where it ended without.
        cam_layer: dotted name of the submodule whose output (B, K, h, w) Grad-CAM uses; None where
            there is none (transformers).
        metadata: free texts of the file, by key; nothing is read from them here.
        producer: name and version of the exporter, as the file says.
        files: the file and those of its external data; none where it was built again.
    """

    module: nn.Module
    input_shape: tuple[int, int, int]
    classes: int
    opset: int
    graph: bytes
    output_activation: str
    cam_layer: str | None
    metadata: Mapping[str, str]
    producer: str
    files: tuple[Path, ...] = ()


def build_onnx(graph: bytes, *, limits: OnnxLimits = _LIMITS) -> OnnxNetwork:
    """The network of `OnnxNetwork.graph`, its weights zero: load its state dict next.

    ``network.module.load_state_dict(state, strict=True)`` fills it; names and shapes are those of
    the module that `candor.onnx_import.reader.read_onnx` gave.

    Raises:
        OnnxImportError: the bytes are no such graph, or a node of it cannot be computed.
    """
    description = read(graph, limits)
    return network_of(description, assemble(description.draft, description.plan), graph)


def weight_bytes(graph: bytes, *, limits: OnnxLimits = _LIMITS) -> int:
    """Bytes of the state dict that fills a graph, before anything is built; raises as above."""
    parts = read(graph, limits).draft.graph
    tensors = (parts.initial[name] for name in parts.kept)
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def network_of(
    description: Description, assembled: Assembled, graph: bytes | None = None
) -> OnnxNetwork:
    """The network of a graph that has been assembled."""
    draft = description.draft
    return OnnxNetwork(
        module=assembled.module.eval(),
        input_shape=draft.image.shape,
        classes=assembled.classes,
        opset=draft.graph.opset,
        graph=written(description) if graph is None else graph,
        output_activation=draft.activation,
        cam_layer=assembled.cam_layer,
        metadata=description.metadata,
        producer=description.producer,
    )
