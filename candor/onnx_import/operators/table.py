"""Every operator that can be imported, by name and the version from which on it means this."""

from candor.onnx_import.limits import OnnxImportError
from candor.onnx_import.operators import (
    activations,
    constants,
    convolution,
    elementwise,
    indexing,
    linear,
    microsoft,
    normalization,
    pooling,
    reductions,
    resize,
    shapes,
)
from candor.onnx_import.operators.operator import Operator, Versions

_FAMILIES = (
    activations,
    constants,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    reductions,
    resize,
    shapes,
)
TABLE: dict[str, Versions] = {
    name: versions for family in _FAMILIES for name, versions in family.OPERATORS.items()
}


OWN_DOMAINS = ("", "ai.onnx")
# Domains of other organisations whose operators are known, too: tools that optimise a file for
# ONNX Runtime write them.
_OTHERS: dict[str, dict[str, Versions]] = {"com.microsoft": microsoft.OPERATORS}
BRANCHING = frozenset({"If"})  # has graphs inside; never run, see `candor.onnx_import.branches`


def find_operator(domain: str, name: str, opset: int, node: str) -> Operator:
    """The meaning of an operator in a version of the operator set.

    Args:
        node: its name in the file, for the message.
    Raises:
        OnnxImportError: it is missing.
    """
    table = TABLE if domain in OWN_DOMAINS else _OTHERS.get(domain, {})
    versions = table.get(name, ())
    known = [operator for since, operator in versions if since <= opset]
    if not known:
        full = f"{domain}.{name}" if domain else name
        raise OnnxImportError(
            f"node {node!r}: operator {full} (opset {opset}) is not supported; "
            "expected those of image classifiers in floating point"
        )
    return known[-1]
