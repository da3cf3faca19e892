"""The acceptance test: what it measures, against closed forms, and every reason to refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from candor.contracts.radius import radius_note
from candor.robustness.acceptance import (
    LEAST_IMAGES,
    NotAccepted,
    accept,
    examine,
)
from candor.runtime.memory import peak_bytes
from tests.search.linear import LinearClassifier, nearest_rmse

SHAPE = (3, 8, 6)
RHO = 0.1
NONE = torch.zeros(0, dtype=torch.int64)


def images_of(count: int = 16) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


class Changed(nn.Module):
    """A linear network whose logits something is done to."""

    def __init__(self, change: Callable[[Tensor], Tensor], class_count: int = 3) -> None:
        super().__init__()
        self.linear = LinearClassifier(SHAPE, class_count)
        self.change = change
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.linear(images))


class Once(torch.autograd.Function):
    """The square, which torch may differentiate once."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return values**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return 2 * context.saved_tensors[0] * gradients[0]


class FalseGradient(torch.autograd.Function):
    """The values themselves, with twice their gradient."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return 2 * gradients[0]


def test_a_linear_network_has_the_numbers_of_the_closed_form() -> None:
    network, images = LinearClassifier(SHAPE, 3), images_of(LEAST_IMAGES)
    labels = network(images).argmax(1)
    accepted = accept(network, images, labels, "some/test", RHO)
    found = accepted.acceptance
    few = network(images[:8]).topk(2).indices
    norms = (network.head.weight[few[:, 0]] - network.head.weight[few[:, 1]]).norm(dim=1)
    assert found.gradient_norm == pytest.approx(float(norms.median()), rel=1e-5)
    assert found.gradient_error < 1e-3
    assert found.batch_difference < 1e-5
    assert (found.image_count, found.data) == (LEAST_IMAGES, "some/test")
    assert [step.batch_size for step in found.steps] == [1, 8]
    assert all(step.milliseconds > 0 for step in found.steps)
    metric, radius = accepted.metrics
    assert (metric.value, metric.image_count) == (1.0, LEAST_IMAGES)
    assert 0.96 < metric.low < 1.0
    few = images[:16]
    exact = nearest_rmse(network, few, labels[:16]).quantile(0.5).item()
    assert exact <= radius.value <= 1.03 * exact  # the box takes some ways off
    assert (radius.name, radius.image_count) == ("median_radius", 16)
    assert radius.low <= radius.value <= radius.high
    assert found.median_radius == radius.value
    assert found.meaning.startswith(radius_note(radius.value, RHO))


def test_without_data_neither_accuracy_nor_radius_is_claimed() -> None:
    accepted = accept(LinearClassifier(SHAPE, 3), images_of(), NONE, "", RHO)
    assert accepted.metrics == ()
    assert accepted.acceptance.median_radius is None
    assert "without data" in accepted.acceptance.meaning


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits.softmax(1), "without its last softmax"),
        (lambda logits: logits / 0, "outputs: expected finite"),
        (lambda logits: logits * 0, "depend on the image"),
        (lambda logits: logits[:, :1], r"V >= 2, got \(16, 1\)"),
        (lambda logits: logits + logits.mean(0), "evaluation mode"),
        (lambda logits: nn.functional.dropout(logits, 0.5, training=True), "evaluation mode"),
        (lambda logits: logits.detach(), "gradient: expected one of the input"),
        (lambda logits: (logits * 3).round() + 0 * logits, "gradient: .* not zero"),
        (FalseGradient.apply, r"finite differences within 10%, got 50% off"),
        (lambda logits: logits + (logits - logits.detach()).abs().sqrt(), "gradient: .*NaN"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_refused(
    change: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(NotAccepted, match=message):
        accept(Changed(change), images_of(), NONE, "", RHO)


def test_a_part_in_training_mode_is_named() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(144, 3)).eval()
    network[1].train()
    with pytest.raises(NotAccepted, match="evaluation mode: .*1 is in training mode"):
        accept(network, images_of(), NONE, "", RHO)


def test_one_probability_in_place_of_a_logit_is_noticed() -> None:
    def two(logits: Tensor) -> Tensor:
        share = logits[:, :1].sigmoid()
        return torch.cat([torch.zeros_like(share), share], dim=1)

    images = images_of(LEAST_IMAGES)
    network = Changed(two, 2)
    with pytest.raises(NotAccepted, match="without its last sigmoid"):
        accept(network, images, network(images).argmax(1), "some", RHO)


def test_labels_that_the_network_does_not_know_are_no_better_than_chance() -> None:
    network, images = LinearClassifier(SHAPE, 3), images_of(LEAST_IMAGES)
    wrong = (network(images).argmax(1) + 1) % 3
    with pytest.raises(NotAccepted, match=r"better than chance \(33.33%\), got 0.0%"):
        accept(network, images, wrong, "some", RHO)
    # A network that trained here is examined whatever it knows.
    assert examine(network, images, wrong, "some", RHO).metrics[0].value == 0.0


def test_fewer_than_a_hundred_labelled_images_are_not_enough() -> None:
    network, images = LinearClassifier(SHAPE, 3), images_of(LEAST_IMAGES - 1)
    with pytest.raises(NotAccepted, match="at least 100 labelled images, got 99"):
        accept(network, images, network(images).argmax(1), "some", RHO)


def test_second_derivative_is_looked_for() -> None:
    images = images_of()
    assert accept(Changed(torch.tanh), images, NONE, "", RHO).acceptance.has_second_derivative
    assert not accept(Changed(Once.apply), images, NONE, "", RHO).acceptance.has_second_derivative


@pytest.mark.parametrize("batch", [1, 8])
def test_memory_is_that_of_the_tensors_that_live_at_one_time(batch: int) -> None:
    network = nn.Sequential(nn.Linear(1000, 500, bias=False), nn.ReLU(), nn.Linear(500, 2))
    network.eval().requires_grad_(False)
    inputs = torch.rand(batch, 1000).requires_grad_()

    def step() -> None:
        torch.autograd.grad(network(inputs).sum(), inputs)

    # At the end of the way back: the ReLU's output is gone, gradients of both sides are there.
    least = 4 * batch * (500 + 1000)
    for _ in range(2):  # it does not depend on what ran before
        assert least <= peak_bytes(step) <= 2 * least


def test_memory_that_was_there_before_does_not_count() -> None:
    held = torch.rand(1_000_000)
    assert peak_bytes(lambda: held.view(1000, 1000).t()) == 0
    assert peak_bytes(lambda: held + 1) == 4_000_000
