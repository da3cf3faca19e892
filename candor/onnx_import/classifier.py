"""What of a graph makes it an image classifier: its input, its logits, the layer for Grad-CAM."""

from collections.abc import Sequence
from dataclasses import dataclass

from candor.onnx_import.build import Value
from candor.onnx_import.graph import Graph, Node
from candor.onnx_import.limits import OnnxImportError
from candor.onnx_import.module import Step
from candor.onnx_import.operators.dtypes import FLOATS, UINT8, type_name

_MOST_CHANNELS = 4
# A last activation may be followed by these, which change no number.
_PASSING = frozenset({"Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze"})


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The input of a graph.

    Attributes:
        shape: (C, H, W).
        batch: images of one run; None for any number.
    """

    name: str
    shape: tuple[int, int, int]
    channels_last: bool
    batch: int | None

    def sizes(self, batch: int) -> tuple[int, ...]:
        channels, height, width = self.shape
        if self.channels_last:
            return batch, height, width, channels
        return batch, channels, height, width


def image_input(graph: Graph, input_size: tuple[int, int] | None) -> ImageInput:
    """
    Bytes (UINT8, as TensorFlow's files take them) are computed as numbers from 0 to 255.

    Raises:
        OnnxImportError: there is no single input of images, or its size is open.
    """
    names = [value.name for value in graph.inputs]
    if len(graph.inputs) != 1:
        raise OnnxImportError(f"input: expected one, the images; got {len(names)}: {names[:8]}")
    (value,) = graph.inputs
    if value.element_type not in FLOATS | {UINT8}:
        name = type_name(value.element_type)
        raise OnnxImportError(f"input {value.name!r}: expected floating point or UINT8, got {name}")
    dims = value.sizes
    if len(dims) != 4:
        raise OnnxImportError(f"input {value.name!r}: expected (N, C, H, W), got {_words(dims)}")
    last = not _is_channels(dims[1]) and _is_channels(dims[3])
    channels = dims[3] if last else dims[1]
    if channels is None:
        raise OnnxImportError(
            f"input {value.name!r}: expected a fixed number of channels, got {_words(dims)}"
        )
    height, width = dims[1:3] if last else dims[2:4]
    size = _size(value.name, (height, width), input_size)
    return ImageInput(value.name, (channels, *size), last, dims[0])


def _is_channels(size: int | None) -> bool:
    return size is not None and size <= _MOST_CHANNELS


def _size(
    name: str, given: tuple[int | None, int | None], wanted: tuple[int, int] | None
) -> tuple[int, int]:
    height, width = given
    if wanted is None:
        if height is None or width is None:
            raise OnnxImportError(
                f"input {name!r}: the file leaves height or width open; name the input size"
            )
        return height, width
    if (height or wanted[0], width or wanted[1]) != wanted:
        raise OnnxImportError(f"input {name!r}: expected size {given}, got {wanted}")
    return wanted


def _words(dims: Sequence[int | None]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in dims)})"


def logits_output(graph: Graph, output: str | None) -> tuple[str, str]:
    """Name of the logits and the activation that follows them, which is left out.

    Raises:
        OnnxImportError: there are several outputs and none was named, or no such output.
    """
    if output is None and len(graph.outputs) != 1:
        raise OnnxImportError(f"output: expected the name of one of {list(graph.outputs)}")
    name = graph.outputs[0] if output is None else output
    if name not in graph.outputs:
        raise OnnxImportError(f"output: expected one of {list(graph.outputs)}, got {name!r}")
    producers = {made: node for node in graph.nodes for made in node.outputs}
    node = producers.get(name)
    while node is not None and node.kind in _PASSING:
        node = producers.get(node.inputs[0])
    if node is not None and node.kind in ("Softmax", "Sigmoid"):
        return node.inputs[0], node.kind.lower()
    return name, ""


def class_count(name: str, value: Value) -> int:
    """V of an output (B, V), (B, V, 1, 1), (B, 1, 1, V), or (B,) of a single sigmoid.

    Raises:
        OnnxImportError: the output has another shape.
    """
    shape = value.shapes[0]
    if not value.data[0].is_floating_point():
        kind = str(value.data[0].dtype).removeprefix("torch.")
        raise OnnxImportError(f"output {name!r}: expected logits in floating point, got {kind}")
    wide = [size for size in shape[1:] if size != 1]
    if not shape or len(wide) > 1:
        raise OnnxImportError(f"output {name!r}: expected logits (B, V), got shape {shape}")
    return wide[0] if wide else 1


def cam_step(steps: list[Step], values: dict[str, Value]) -> int | None:
    """Index of the step whose maps are pooled, or flattened, into features; None without one."""
    makers = {name: index for index, step in enumerate(steps) for name in step.node.outputs}
    for step in reversed(steps):
        if step.values and _ends_maps(step.node, values):
            return makers.get(step.values[0][1])
    return None


def _ends_maps(node: Node, values: dict[str, Value]) -> bool:
    source, result = values[node.inputs[0]].shapes[0], values[node.outputs[0]].shapes[0]
    if len(source) != 4 or source[2] * source[3] == 1 or source[0] != result[0]:
        return False
    if node.kind in ("GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", "ReduceMean"):
        return result[1:] in ((source[1],), (source[1], 1, 1))
    whole = source[1] * source[2] * source[3]
    return node.kind in ("Flatten", "Reshape") and result[1:] == (whole,)
