"""Half-Huber ReLU against Eq. 11, its derivatives, and what export makes of it."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from candor.nets.activations import HalfHuberReLU, half_huber_relu

CURVATURES = pytest.mark.parametrize("curvature", [0.5, 1.0, 4.0])
SHAPES = pytest.mark.parametrize("shape", [(1, 2, 5, 3), (3, 2, 5, 3), (8, 2, 5, 3)], ids=str)


def equation_11(value, curvature):
    if value < 0:
        return 0.0
    if value < 1 / (2 * curvature):
        return curvature * value**2
    return value - 1 / (4 * curvature)


def derivatives(inputs, curvature):
    inputs = inputs.requires_grad_()
    (first,) = torch.autograd.grad(
        half_huber_relu(inputs, curvature).sum(), inputs, create_graph=True
    )
    (second,) = torch.autograd.grad(first.sum(), inputs)
    return first.detach(), second


@CURVATURES
def test_values_are_those_of_the_three_pieces(curvature):
    inputs = torch.linspace(-2, 2, 401, dtype=torch.float64)
    expected = [equation_11(value, curvature) for value in inputs.tolist()]
    assert half_huber_relu(inputs, curvature).tolist() == pytest.approx(expected, abs=1e-12)


@SHAPES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept_and_the_input_is_not_modified(shape, dtype):
    inputs = torch.randn(shape, dtype=dtype)
    before = inputs.clone()
    outputs = HalfHuberReLU()(inputs)
    assert (outputs.shape, outputs.dtype) == (inputs.shape, dtype)
    assert torch.equal(inputs, before)


@CURVATURES
def test_first_derivative_is_continuous_at_both_singular_points(curvature):
    knee = 1 / (2 * curvature)
    step = 1e-9
    points = torch.tensor([-step, 0.0, step, knee - step, knee, knee + step], dtype=torch.float64)
    first, _ = derivatives(points, curvature)
    assert first.tolist() == pytest.approx([0, 0, 0, 1, 1, 1], abs=1e-7)


@CURVATURES
def test_second_derivative_is_that_of_the_quadratic_piece_at_its_ends(curvature):
    knee = 1 / (2 * curvature)
    points = torch.tensor([-1.0, 0.0, knee / 2, knee, knee + 1], dtype=torch.float64)
    _, second = derivatives(points, curvature)
    jump = 2 * curvature
    assert second.tolist() == [0.0, jump, jump, jump, 0.0]


@CURVATURES
@SHAPES
def test_gradients_of_both_orders_agree_with_finite_differences(shape, curvature):
    knee = 1 / (2 * curvature)
    inputs = torch.rand(shape, dtype=torch.float64) * 4 - 2
    # Away from the two points where the second derivative jumps.
    for point in (0.0, knee):
        inputs = torch.where((inputs - point).abs() < 1e-2, point + 0.05, inputs)
    inputs.requires_grad_()
    assert gradcheck(lambda x: half_huber_relu(x, curvature), inputs)
    assert gradgradcheck(lambda x: half_huber_relu(x, curvature), inputs)


@SHAPES
def test_exported_module_computes_the_same(shape):
    network = nn.Sequential(nn.Conv2d(2, 4, 3), HalfHuberReLU(2.0))
    images = torch.randn(shape)
    exported = torch.export.export(network, (images,)).module()
    torch.testing.assert_close(exported(images), network(images))


def test_graph_has_no_branch_on_values():
    graph = torch.fx.symbolic_trace(HalfHuberReLU()).graph  # raises where Python would branch
    assert any(node.op == "output" for node in graph.nodes)


@pytest.mark.parametrize("curvature", [0.0, -1.0, float("inf"), float("nan")])
def test_curvature_out_of_range_is_refused(curvature):
    with pytest.raises(ValueError, match=r"^curvature: expected \(0, inf\), got "):
        HalfHuberReLU(curvature)
