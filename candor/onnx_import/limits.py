"""What an ONNX file may cost, and the one error of this room."""

from dataclasses import dataclass


class OnnxImportError(ValueError):
    """An ONNX file is damaged, unsafe, or not an image classifier that can be imported.

    The message is one line that names the file or node, the value and what was expected.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxLimits:
    """Bounds on a file of an untrusted origin.

    Attributes:
        file_bytes: of the file and its external data together.
        nodes: of the graph, functions inlined.
        tensor_elements: of any one tensor between two nodes, for one image.
    """

    file_bytes: int = 4 << 30
    nodes: int = 50_000
    tensor_elements: int = 1 << 28
