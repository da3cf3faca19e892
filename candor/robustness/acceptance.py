"""The acceptance test: is a network one that explanations can be computed for?"""

import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from candor.contracts.card import Acceptance, MetricCard, StepCost
from candor.contracts.radius import MEDIAN_RADIUS, is_noise, radius_note
from candor.robustness.ara import accuracy_interval
from candor.robustness.measure import median_of, search_radii
from candor.runtime.memory import peak_bytes
from candor.search.network import has_second_derivative
from candor.terms import Goal

LEAST_IMAGES = 100
_RADIUS_IMAGES, _RADIUS_STEPS = 16, 40
_BATCH = 16
_COMPARED = 8  # images whose gradient and whose logits alone are looked at
_BATCH_TOLERANCE = 1e-3  # of the largest logit: float32 summed in another order
_STEP = 1e-3  # of finite differences, RMSE
_GRADIENT_TOLERANCE = 0.1
_SUM_TOLERANCE = 1e-3  # of probabilities, to 1
_ROUNDS = 3
_MIB = 2**20
_UNKNOWN = "Accepted without data: neither accuracy nor attack radius were measured."
_UNRESOLVED = "No attack changed half of the right predictions: explanations need a large rho."
_REMEDY = "`candor robustify` with images of your own changes that."
_METHOD = "acceptance test"


class NotAccepted(ValueError):
    """The network failed the acceptance test; the message says where."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the card gets."""

    acceptance: Acceptance
    metrics: tuple[MetricCard, ...]


def accept(network: nn.Module, images: Tensor, labels: Tensor, data: str, rho: float) -> Accepted:
    """The whole test of a network that others trained; on unlabelled images where there are none.

    Args:
        network, images, labels, data, rho: as in `examine`.
    Raises:
        NotAccepted: see `examine`; also fewer than 100 labelled images, an accuracy no better than
            chance, or one output that looks like a probability.
    """
    count = len(labels)
    if 0 < count < LEAST_IMAGES:
        raise NotAccepted(f"data: expected at least {LEAST_IMAGES} labelled images, got {count}")
    accepted = examine(network, images, labels, data, rho)
    if count:
        logits = _logits(network, images[:LEAST_IMAGES])
        _check_sigmoid(logits)
        _check_accuracy(accepted.metrics[0], logits.shape[1])
    return accepted


def examine(network: nn.Module, images: Tensor, labels: Tensor, data: str, rho: float) -> Accepted:
    """What the card says of a network, and whether it can be explained at all.

    Args:
        network: in evaluation mode, from (B, C, H, W) in [0, 1] to logits (B, V).
        images: (N, C, H, W) float32, N at least 1.     labels: (N,) int64, or (0,) for none.
        data: name of the data set.     rho: RMSE of explanations that the card recommends.
    Raises:
        NotAccepted: probabilities instead of logits, not in evaluation mode, a gradient that is
            not finite, zero or wrong.
    """
    count, few = len(labels), images[:_COMPARED]
    logits = _logits(network, images)
    _check_logits(logits)
    difference = _batch_difference(network, few, logits[:_COMPARED])
    norm, error = _gradient(network, few)
    radius = _median_radius(network, images, labels, logits, data) if count else None
    acceptance = Acceptance(
        image_count=count,
        data=data,
        batch_difference=difference,
        gradient_norm=norm,
        gradient_error=error,
        has_second_derivative=has_second_derivative(network, images[:1]),
        steps=tuple(_step_cost(network, images, size) for size in (1, 8)),
        median_radius=None if radius is None else radius.value,
        meaning=_meaning(radius, rho) if count else _UNKNOWN,
    )
    if not count:
        return Accepted(acceptance, ())
    radii = () if radius is None else (radius,)
    return Accepted(acceptance, (_accuracy(logits, labels, data), *radii))


def _meaning(radius: MetricCard | None, rho: float) -> str:
    """What a median attack radius means for explanations, and what can be done."""
    if radius is None:
        return _UNRESOLVED
    note = radius_note(radius.value, rho)
    return f"{note} {_REMEDY}" if is_noise(radius.value, rho) else note


@torch.no_grad()
def _logits(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(part) for part in torch.split(images, _BATCH)])


def _check_logits(logits: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise NotAccepted(f"outputs: expected logits (B, V), V >= 2, got {tuple(logits.shape)}")
    if not bool(logits.isfinite().all()):
        raise NotAccepted("outputs: expected finite logits, got NaN or infinity")
    is_share = (logits >= 0).all() & ((logits.sum(1) - 1).abs() < _SUM_TOLERANCE).all()
    if bool(is_share):
        raise NotAccepted(
            "outputs: expected logits, got probabilities (every row sums to 1); import the network "
            "without its last softmax"
        )
    if len(logits) > 1 and float(logits.std(0).max()) == 0:
        raise NotAccepted("outputs: expected logits that depend on the image, got equal ones")


def _check_sigmoid(logits: Tensor) -> None:
    """Of one output z the network makes the logits (0, z)."""
    if logits.shape[1] != 2 or bool(logits[:, 0].any()):
        return
    if bool(((logits[:, 1] >= 0) & (logits[:, 1] <= 1)).all()):
        raise NotAccepted(
            f"outputs: expected one logit, got values within [0, 1] for {len(logits)} images, "
            "which look like probabilities; import the network without its last sigmoid"
        )


@torch.no_grad()
def _batch_difference(network: nn.Module, images: Tensor, logits: Tensor) -> float:
    """Largest difference of a logit between an image alone and in a batch."""
    training = [name for name, module in network.named_modules() if module.training]
    alone = torch.cat([network(image[None]) for image in images])
    difference = float((alone - logits).abs().max())
    largest = _BATCH_TOLERANCE * max(1.0, float(logits.abs().max()))
    if training or not difference <= largest:
        where = f" ({training[0] or 'the network'} is in training mode)" if training else ""
        raise NotAccepted(
            "evaluation mode: expected the same logits for an image alone and in a batch, within "
            f"{largest:.2g}, got a difference of {difference:.2g}{where}"
        )
    return difference


def _gradient(network: nn.Module, images: Tensor) -> tuple[float, float]:
    """Median L2 norm of the input gradient of the margin, and its error along itself."""
    inputs = images.clone().requires_grad_()
    first = network(inputs).topk(2, dim=1)
    margins = first.values[:, 0] - first.values[:, 1]
    if not margins.requires_grad:
        raise NotAccepted("gradient: expected one of the input, got none")
    (gradient,) = torch.autograd.grad(margins.sum(), inputs, allow_unused=True)
    if gradient is None:
        raise NotAccepted("gradient: expected one of the input, got none")
    is_finite = gradient.isfinite().flatten(1).all(1)
    if not bool(is_finite.all()):
        raise NotAccepted(
            "gradient: expected finite numbers, got NaN or infinity on "
            f"{int((~is_finite).sum())} of {len(images)} images"
        )
    norms = gradient.flatten(1).norm(dim=1)
    if 2 * int((norms == 0).sum()) > len(images):
        raise NotAccepted(
            "gradient: expected one that is not zero, got zero on "
            f"{int((norms == 0).sum())} of {len(images)} images"
        )
    error = float(_difference_errors(network, images, gradient, first.indices).median())
    if not error <= _GRADIENT_TOLERANCE:
        raise NotAccepted(
            f"gradient: expected to agree with finite differences within {_GRADIENT_TOLERANCE:.0%}"
            f", got {error:.0%} off"
        )
    return float(norms.median()), error


@torch.no_grad()
def _difference_errors(
    network: nn.Module, images: Tensor, gradient: Tensor, classes: Tensor
) -> Tensor:
    """Relative difference of each image's slope along its gradient: the best of three steps.

    A long step leaves the straight part of a network, a short one drowns in float32.
    """
    norms = gradient.flatten(1).norm(dim=1)
    direction = gradient / norms.clamp_min(1e-30)[:, None, None, None]
    scale = _STEP * images[0].numel() ** 0.5
    found = []
    for step in (scale, scale / 10, scale / 100):
        ends = [network(images + sign * step * direction) for sign in (1, -1)]
        picked = [end.gather(1, classes) for end in ends]
        margins = [pair[:, 0] - pair[:, 1] for pair in picked]
        slopes = (margins[0] - margins[1]) / (2 * step)
        found.append((slopes / norms.clamp_min(1e-30) - 1).abs())
    return torch.stack(found).amin(0)[norms > 0]


def _accuracy(logits: Tensor, labels: Tensor, data: str) -> MetricCard:
    correct = int((logits.argmax(1) == labels).sum())
    interval = accuracy_interval(correct, len(labels))
    return MetricCard(
        name="accuracy",
        value=interval.value,
        low=interval.low,
        high=interval.high,
        image_count=len(labels),
        data=data,
        method=_METHOD,
    )


def _check_accuracy(accuracy: MetricCard, class_count: int) -> None:
    chance = 1.0 / class_count
    if accuracy.low <= chance:
        raise NotAccepted(
            f"accuracy: expected better than chance ({chance:.2%}), got {accuracy.value:.1%} "
            f"[{accuracy.low:.1%}, {accuracy.high:.1%}] of {accuracy.image_count} images; are "
            "weights, preprocessing and class names those of one model?"
        )


def _median_radius(
    network: nn.Module, images: Tensor, labels: Tensor, logits: Tensor, data: str
) -> MetricCard | None:
    """Of attacks by `fast` on the first images that are classified correctly.

    None where there are none, or half are unresolved.
    """
    chosen = (logits.argmax(1) == labels).nonzero()[:_RADIUS_IMAGES, 0]
    if not len(chosen):
        return None
    result = search_radii(
        network,
        images[chosen],
        labels[chosen],
        Goal.ATTACK,
        solver="fast",
        steps=_RADIUS_STEPS,
        seeds=torch.zeros(len(chosen), dtype=torch.int64),
        batch_size=8,
    )
    found = median_of(result, torch.ones(len(chosen), dtype=torch.bool), seed=0)
    if found is None:
        return None
    return MetricCard(
        name=MEDIAN_RADIUS,
        **asdict(found.interval),
        image_count=found.image_count,
        data=data,
        method=_METHOD,
    )


def _step_cost(network: nn.Module, images: Tensor, size: int) -> StepCost:
    """Of one gradient, which is what a step of a search costs: median time and largest memory."""
    repeats = -(-size // len(images))
    batch = images.repeat(repeats, 1, 1, 1)[:size].clone().requires_grad_()

    def step() -> None:
        torch.autograd.grad(network(batch).sum(), batch)

    used, seconds = peak_bytes(step), []  # the first one also warms
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return StepCost(
        batch_size=size, milliseconds=1e3 * float(np.median(seconds)), mebibytes=used / _MIB
    )
