"""Operators against the node tests of the onnx package, and their gradients in float64."""

import warnings
from collections import Counter

import pytest
import torch

from candor.onnx_import.limits import OnnxImportError
from tools.onnx_nodes import PAGE, module_of, node_tests, outcome_of, page

# Operators of image classifiers: none of their node tests may be refused for a missing operator.
_NEEDED = {
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Div",
    "Einsum", "Elu", "Erf", "Expand", "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool",
    "GroupNormalization", "HardSigmoid", "HardSwish", "InstanceNormalization",
    "LayerNormalization", "LeakyRelu", "MatMul", "MaxPool", "Mish", "Mul", "PRelu", "Pad",
    "Pow", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Shape",
    "Sigmoid", "Slice", "Softmax", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile",
    "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
_LEAST_PASSED = 1290  # of 1,884 with onnx 1.23
# Smooth almost everywhere, so that finite differences say what the gradient should be.
_SMOOTH = _NEEDED - {"Shape", "Where", "ReduceMax"} | {
    "Celu", "DepthToSpace", "Exp", "GlobalMaxPool", "LRN", "LogSoftmax", "LpNormalization",
    "MeanVarianceNormalization", "ReduceL2", "ReduceLogSumExp", "Selu", "Softsign",
    "SpaceToDepth", "Sum", "Swish", "Trilu",
}  # fmt: skip
_STEP = 1e-6
_AWAY = 0.0137


@pytest.fixture(scope="module")
def cases():
    return node_tests()


def test_every_node_test_passes_or_is_refused_by_name(cases) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes = [outcome_of(case) for case in cases]
    failed = [
        f"{outcome.name}: {outcome.reason}" for outcome in outcomes if outcome.status == "failed"
    ]
    assert failed == []
    refused = [outcome for outcome in outcomes if outcome.status == "refused"]
    unnamed = [o for o in refused if not o.reason.startswith(("node '", "input '", "tensor '"))]
    assert unnamed == []
    missing = [o.reason for o in refused if o.operator in _NEEDED and "operator" in o.reason]
    assert missing == []
    assert PAGE.read_text() == page(outcomes), "python -m tools.onnx_nodes --write"
    counts = Counter(outcome.status for outcome in outcomes)
    assert counts["passed"] >= _LEAST_PASSED, counts


def _is_smooth(case) -> bool:
    nodes = case.model.graph.node
    inputs = case.data_sets[0][0]
    whole = [array for array in inputs if getattr(array, "dtype", None) == "float32"]
    small = all(array.size <= 4096 for array in inputs if hasattr(array, "size"))
    return len(nodes) == 1 and nodes[0].op_type in _SMOOTH and bool(whole) and small


def test_gradients_agree_with_finite_differences(cases) -> None:
    """Along one random direction of all inputs together, in float64."""
    checked, wrong = set(), []
    for case in filter(_is_smooth, cases):
        try:
            slopes = _slopes(case)
        except OnnxImportError:  # the test above says which these are
            continue
        if slopes is not None:
            checked.add(case.model.graph.node[0].op_type)
            exact, finite = slopes
            if abs(exact - finite) > 1e-5 * max(1.0, abs(finite)):
                wrong.append(f"{case.name}: gradient {exact}, differences {finite}")
    assert wrong == []
    assert len(checked) >= 50, sorted(_SMOOTH - checked)


def _slopes(case) -> tuple[float, float] | None:
    """Directional derivative by autograd and by central differences; None without a real output."""
    module, live = module_of(case.model, case.data_sets[0][0])
    module.double()
    generator = torch.Generator().manual_seed(1)
    points = {k: v.double() if v.is_floating_point() else v for k, v in live.items()}
    # Whole numbers, as some tests have, lie on the kinks of activations, and equal ones tie.
    points = {
        k: v + _AWAY * torch.rand(v.shape, generator=generator, dtype=v.dtype)
        if v.is_floating_point()
        else v
        for k, v in points.items()
    }
    ways = {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in points.items()
        if value.is_floating_point() and not name.endswith(("mean", "var"))
    }

    def total(step: float | torch.Tensor) -> torch.Tensor:
        moved = {n: v + step * ways[n] if n in ways else v for n, v in points.items()}
        result = module.run(moved, 1)[case.model.graph.output[0].name]
        mix = torch.randn(result.shape, generator=torch.Generator().manual_seed(2))
        return (result * mix.double()).sum()

    if not ways:
        return None
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    start = total(zero)
    if not start.requires_grad:  # the result is whole numbers, or does not depend on the values
        return None
    (exact,) = torch.autograd.grad(start, zero)
    with torch.no_grad():
        finite = (total(_STEP) - total(-_STEP)) / (2 * _STEP)
    return float(exact), float(finite)
