"""The acceptance test: is an imported network one that explanations can be computed for?"""

import resource
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from candor.contracts.card import Acceptance, MetricCard, StepCost
from candor.robustness.ara import accuracy_interval
from candor.robustness.measure import radii_of, search_radii
from candor.terms import Goal

LEAST_IMAGES = 100
_RADIUS_IMAGES, _RADIUS_STEPS = 16, 40
_BATCH = 16
_BATCH_TOLERANCE = 1e-3  # of the largest logit: float32 summed in another order
_STEP = 1e-3  # of finite differences, RMSE
_GRADIENT_TOLERANCE = 0.1
_ROUNDS = 3
_VISIBLE, _FAINT = 0.02, 0.005  # RMSE
_UNKNOWN = "Accepted without data: neither accuracy nor attack radius were measured."


class NotAccepted(ValueError):
    """The network failed the acceptance test; the message says where."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the card gets."""

    acceptance: Acceptance
    metrics: tuple[MetricCard, ...]


def accept(network: nn.Module, images: Tensor, labels: Tensor, data: str) -> Accepted:
    """Run the test on labelled images; on unlabelled noise where ``labels`` is empty.

    Args:
        network: in evaluation mode, from (B, C, H, W) in [0, 1] to logits (B, V).
        images: (N, C, H, W) float32.     labels: (N,) int64, or (0,) for none.
        data: name of the data set.
    Raises:
        NotAccepted: probabilities instead of logits, not in evaluation mode, a gradient that is
            not finite, zero or wrong, or an accuracy no better than chance.
    """
    count = len(labels)
    if 0 < count < LEAST_IMAGES:
        raise NotAccepted(f"data: expected at least {LEAST_IMAGES} labelled images, got {count}")
    logits = _logits(network, images)
    _check_logits(logits)
    difference = _batch_difference(network, images[:8], logits[:8])
    norm, error = _gradient(network, images[:8])
    metrics = _accuracy(logits, labels, data) if count else ()
    radius = _median_radius(network, images, logits) if count else None
    acceptance = Acceptance(
        image_count=count,
        data=data,
        batch_difference=difference,
        gradient_norm=norm,
        gradient_error=error,
        steps=tuple(_step_cost(network, images, size) for size in (1, 8)),
        median_radius=radius,
        meaning=meaning_of(radius) if count else _UNKNOWN,
    )
    return Accepted(acceptance, metrics)


def meaning_of(radius: float | None) -> str:
    """What a median attack radius (RMSE) means for explanations, in one sentence."""
    if radius is None:
        return "No attack was found on half of the images: explanations need a large rho."
    flips = f"Changes of RMSE {radius:.2g} already flip half of the predictions: "
    if radius < _FAINT:
        return flips + "its explanations will look like noise; see `candor robustify`."
    if radius < _VISIBLE:
        return flips + "its explanations will be faint; see `candor robustify`."
    return flips + "its explanations will show structures."


@torch.no_grad()
def _logits(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(part) for part in torch.split(images, _BATCH)])


def _check_logits(logits: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise NotAccepted(f"outputs: expected logits (B, V), V >= 2, got {tuple(logits.shape)}")
    if not bool(logits.isfinite().all()):
        raise NotAccepted("outputs: expected finite logits, got NaN or infinity")
    sums = logits.sum(1)
    if bool((logits >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        raise NotAccepted(
            "outputs: expected logits, got probabilities (every row sums to 1); import the network "
            "without its last softmax"
        )
    if float(logits.std(0).max()) == 0:
        raise NotAccepted("outputs: expected logits that depend on the image, got equal ones")


@torch.no_grad()
def _batch_difference(network: nn.Module, images: Tensor, logits: Tensor) -> float:
    alone = torch.cat([network(image[None]) for image in images])
    difference = float((alone - logits).abs().max())
    largest = _BATCH_TOLERANCE * max(1.0, float(logits.abs().max()))
    if network.training or difference > largest:
        raise NotAccepted(
            f"evaluation mode: expected the same logits for an image alone and in a batch (within "
            f"{largest:.2g}), got a difference of {difference:.2g}"
        )
    return difference


def _gradient(network: nn.Module, images: Tensor) -> tuple[float, float]:
    """Median L2 norm of the input gradient of the margin, and its error along itself."""
    inputs = images.clone().requires_grad_()
    first = network(inputs).topk(2, dim=1)
    margins = first.values[:, 0] - first.values[:, 1]
    if not margins.requires_grad:
        raise NotAccepted("gradient: expected one of the input, got none")
    (gradient,) = torch.autograd.grad(margins.sum(), inputs)
    norms = gradient.flatten(1).norm(dim=1)
    if not bool(gradient.isfinite().all()) or float(norms.median()) == 0:
        raise NotAccepted("gradient: expected finite values that are not zero, got others")
    errors = _difference_errors(network, images, gradient, first.indices)
    if not float(errors.median()) <= _GRADIENT_TOLERANCE:
        raise NotAccepted(
            f"gradient: expected to agree with finite differences within {_GRADIENT_TOLERANCE:.0%}"
            f", got {float(errors.median()):.0%}"
        )
    return float(norms.median()), float(errors.median())


@torch.no_grad()
def _difference_errors(
    network: nn.Module, images: Tensor, gradient: Tensor, classes: Tensor
) -> Tensor:
    """Relative difference of each image's slope along its gradient: the best of three steps."""
    norms = gradient.flatten(1).norm(dim=1)
    direction = gradient / norms.clamp_min(1e-30)[:, None, None, None]
    scale = _STEP * images[0].numel() ** 0.5
    found = []
    for step in (scale, scale / 10, scale / 100):
        ends = [network(images + sign * step * direction) for sign in (1, -1)]
        picked = [end.gather(1, classes) for end in ends]
        margins = [pair[:, 0] - pair[:, 1] for pair in picked]
        found.append((((margins[0] - margins[1]) / (2 * step)) / norms - 1).abs())
    return torch.stack(found).amin(0)


def _accuracy(logits: Tensor, labels: Tensor, data: str) -> tuple[MetricCard, ...]:
    correct = int((logits.argmax(1) == labels).sum())
    interval = accuracy_interval(correct, len(labels))
    chance = 1.0 / logits.shape[1]
    if interval.low <= chance:
        raise NotAccepted(
            f"accuracy: expected better than chance ({chance:.2%}), got {interval.value:.1%} "
            f"[{interval.low:.1%}, {interval.high:.1%}] of {len(labels)} images; are weights, "
            "preprocessing and class names those of one model?"
        )
    metric = MetricCard(
        name="accuracy",
        value=interval.value,
        low=interval.low,
        high=interval.high,
        image_count=len(labels),
        data=data,
        method="acceptance test",
    )
    return (metric,)


def _median_radius(network: nn.Module, images: Tensor, logits: Tensor) -> float | None:
    """Of attacks by `fast` on what the network itself predicts; None where half are unresolved."""
    chosen = images[:_RADIUS_IMAGES]
    result = search_radii(
        network,
        chosen,
        logits[:_RADIUS_IMAGES].argmax(1),
        Goal.ATTACK,
        solver="fast",
        steps=_RADIUS_STEPS,
        seeds=torch.zeros(len(chosen), dtype=torch.int64),
        batch_size=8,
    )
    radii, is_unresolved = radii_of(result)
    if 2 * int(np.sum(is_unresolved)) >= len(radii):
        return None
    return float(np.median(radii))


def _step_cost(network: nn.Module, images: Tensor, size: int) -> StepCost:
    """Median milliseconds of a gradient, and what it adds to the largest memory of the process."""
    batch = images[:size].clone().requires_grad_()
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        torch.autograd.grad(network(batch).sum(), batch)
        seconds.append(time.perf_counter() - started)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return StepCost(
        batch_size=size, milliseconds=1e3 * float(np.median(seconds)), mebibytes=used / 1024
    )
