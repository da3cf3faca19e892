"""Measurements of the masking panel, image by image.

What the panel concludes from them is in `candor.audit.sections.checks`; here nothing is judged.
"""

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from candor.attacks.batching import PaddedBatches
from candor.attacks.fgsm import fgsm
from candor.attacks.gradients import score_gradients
from candor.attacks.margin import Score, holds, margin_score, other_class
from candor.attacks.pgd import pgd
from candor.attacks.projection import random_directions, random_start
from candor.audit.plan import Budget
from candor.audit.records import Row
from candor.audit.stage import Batch, Subject
from candor.search.network import has_second_derivative
from candor.terms import Goal

PANEL_EPS_L2 = 1.0
BUDGETS_L2 = (0.25, 0.5, 1.0, 2.0, 4.0)
RESTARTS = 5
RUNS = 5  # of the same image, to see a random output
MOST_TARGETS = 9
SLOPE_STEP_RMSE = 1e-3
CURVATURE_STEP_RMSE = 1e-2
_NOISE_BATCH = 250
_PROBABILITY_TOLERANCE = 1e-5


def panel(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    """One row an image: what its gradients, stronger and weaker attacks, and noise did."""
    columns: dict[str, list[object]] = {
        "position": list(batch.positions),
        "is_correct": (~_fooled(subject.network, batch.images, batch.labels)).tolist(),
        **_gradients(subject.network, batch),
        **_outputs(subject.network, batch),
        **_attacks(subject, batch, budget),
        **_noise(subject.network, batch, budget),
        **_corruptions(subject.network, batch),
    }
    return [
        {name: values[row] for name, values in columns.items()}
        for row in range(len(batch.positions))
    ]


def _gradients(network: nn.Module, batch: Batch) -> dict[str, list[object]]:
    """Whether the gradient exists, agrees with the slope, and reflects the curvature around it.

    A piecewise linear network has curvature only in its kinks: its second derivative is zero
    everywhere although its gradient changes, so no gradient sees what comes.
    """
    score = margin_score(batch.labels)
    _, _, gradients = score_gradients(network, batch.images, score)
    norms = gradients.flatten(1).norm(dim=1)
    root = math.sqrt(batch.images[0].numel())
    uphill = gradients / norms.clamp_min(1e-30)[:, None, None, None]
    step = SLOPE_STEP_RMSE * root
    with torch.no_grad():
        ahead = score(network(batch.images + step * uphill))
        behind = score(network(batch.images - step * uphill))
    slopes = (ahead - behind) / (2 * step)
    errors = (slopes - norms).abs() / torch.maximum(slopes.abs(), norms).clamp_min(1e-30)
    sideways = random_directions(batch.images, batch.seeds("panel-curvature"))
    moved = batch.images + CURVATURE_STEP_RMSE * root * sideways
    _, _, gradients_there = score_gradients(network, moved, score)
    change = (gradients_there - gradients).flatten(1).norm(dim=1) / norms.clamp_min(1e-30)
    return {
        "has_zero_gradient": (norms == 0).tolist(),
        "slope_error": torch.where(norms == 0, 1.0, errors).tolist(),
        "gradient_change": torch.where(norms == 0, 0.0, change).tolist(),
        "has_zero_curvature": _zero_curvatures(network, batch.images, score, sideways),
    }


def _zero_curvatures(
    network: nn.Module, images: Tensor, score: Score, directions: Tensor
) -> list[object]:
    """Whether the second derivative is zero, by image; None where the network has none to give."""
    if not has_second_derivative(network, images[:1]):
        return [None] * len(images)
    zeros: list[object] = (_curvature(network, images, score, directions) == 0).tolist()
    return zeros


def _curvature(network: nn.Module, images: Tensor, score: Score, directions: Tensor) -> Tensor:
    """(B,) length of the second derivative's product with a direction."""
    with torch.enable_grad():
        inputs = images.detach().requires_grad_()
        (gradients,) = torch.autograd.grad(score(network(inputs)).sum(), inputs, create_graph=True)
        slopes = (gradients * directions).sum()
        if not slopes.requires_grad:  # the gradient is a constant
            return torch.zeros(len(images))
        (products,) = torch.autograd.grad(slopes, inputs, allow_unused=True)
    if products is None:
        return torch.zeros(len(images))
    lengths: Tensor = products.flatten(1).norm(dim=1)
    return lengths


@torch.no_grad()
def _outputs(network: nn.Module, batch: Batch) -> dict[str, list[object]]:
    runs = torch.stack([network(batch.images) for _ in range(RUNS)])
    size = runs[0].abs().amax(dim=1).clamp_min(1e-12)
    spread = (runs - runs[0]).abs().amax(dim=(0, 2)) / size
    sums = (runs[0].sum(dim=1) - 1).abs() < _PROBABILITY_TOLERANCE
    is_share = sums & (runs[0] >= 0).all(dim=1)
    return {"output_spread": spread.tolist(), "has_probabilities": is_share.tolist()}


def _attacks(subject: Subject, batch: Batch, budget: Budget) -> dict[str, list[object]]:
    network, images, labels, eps = subject.padded, batch.images, batch.labels, PANEL_EPS_L2
    steps = budget.descent_steps

    def fooled_by_pgd(
        length: float,
        count: int = steps,
        *,
        start: Tensor | None = None,
        score: Score | None = None,
    ) -> Tensor:
        return pgd(network, images, labels, length, steps=count, start=start, score=score).is_found

    unbounded = math.sqrt(images[0].numel())  # reaches every corner of the box
    single = fgsm(network, images, labels, eps).is_found
    restarted = torch.zeros(len(labels), dtype=torch.bool)
    for restart in range(RESTARTS):
        start = random_start(images, eps, batch.seeds(f"panel-start-{restart}"))
        restarted |= fooled_by_pgd(eps, start=start)
    targeted = torch.zeros_like(restarted)
    with torch.no_grad():
        logits = network(images)
    for rank in range(1, 1 + min(MOST_TARGETS, len(subject.card.classes) - 1)):
        targets = other_class(logits, labels, rank)
        targeted |= fooled_by_pgd(eps, score=_towards(labels, targets))
    columns: dict[str, list[object]] = {
        "fgsm": single.tolist(),
        "pgd": fooled_by_pgd(eps).tolist(),
        "pgd_double": fooled_by_pgd(eps, 2 * steps).tolist(),
        "pgd_restarts": restarted.tolist(),
        "pgd_targeted": targeted.tolist(),
        "pgd_unbounded": fooled_by_pgd(unbounded).tolist(),
        "pgd_budgets": torch.stack([fooled_by_pgd(length) for length in BUDGETS_L2], 1).tolist(),
        "transfer": [None] * len(labels),
        "undefended": [None] * len(labels),
    }
    if subject.independent is not None:
        found = pgd(PaddedBatches(subject.independent), images, labels, eps, steps=steps)
        columns["transfer"] = _fooled(network, found.images, labels).tolist()
    if subject.undefended is not None:
        found = pgd(PaddedBatches(subject.undefended), images, labels, eps, steps=steps)
        columns["undefended"] = found.is_found.tolist()
    return columns


@torch.no_grad()
def _noise(network: nn.Module, batch: Batch, budget: Budget) -> dict[str, list[object]]:
    """Whether any of many random perturbations of the panel's length fools the network."""
    fooled: list[object] = []
    for image, label, seed in zip(
        batch.images, batch.labels, batch.seeds("panel-noise"), strict=True
    ):
        generator = Generator().manual_seed(seed)
        hits = 0
        for start in range(0, budget.noise_trials, _NOISE_BATCH):
            count = min(_NOISE_BATCH, budget.noise_trials - start)
            noise = torch.randn(count, *image.shape, generator=generator).to(image)
            noise *= PANEL_EPS_L2 / noise.flatten(1).norm(dim=1)[:, None, None, None]
            trials = (image + noise).clamp(0.0, 1.0)
            hits += int(_fooled(network, trials, label.expand(count)).sum())
        fooled.append(hits)
    return {"noise_hits": fooled}


@torch.no_grad()
def _corruptions(network: nn.Module, batch: Batch) -> dict[str, list[object]]:
    """Predictions under changes that no attacker chose."""
    images = batch.images
    seeds = batch.seeds("panel-corruption")
    noise = torch.stack(
        [torch.randn(images.shape[1:], generator=Generator().manual_seed(seed)) for seed in seeds]
    ).to(images)
    changed = {
        "noise 0.02": (images + 0.02 * noise).clamp(0.0, 1.0),
        "noise 0.05": (images + 0.05 * noise).clamp(0.0, 1.0),
        "rotation 10": _rotated(images, 10.0),
        "rotation 30": _rotated(images, 30.0),
        "blur 3x3": functional.avg_pool2d(
            functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1
        ),
        "contrast 0.5": 0.5 + 0.5 * (images - 0.5),
    }
    kept = {
        name: (~_fooled(network, altered, batch.labels)).tolist()
        for name, altered in changed.items()
    }
    rows: list[object] = [
        {name: flags[row] for name, flags in kept.items()} for row in range(len(images))
    ]
    return {"corruptions": rows}


def _rotated(images: Tensor, degrees: float) -> Tensor:
    angle = math.radians(degrees)
    matrix = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]]
    ).to(images)
    grid = functional.affine_grid(
        matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False
    )
    turned: Tensor = functional.grid_sample(
        images, grid, padding_mode="border", align_corners=False
    )
    return turned.clamp(0.0, 1.0)


def _towards(labels: Tensor, targets: Tensor) -> Score:
    def score(logits: Tensor) -> Tensor:
        own = logits.gather(1, labels[:, None])[:, 0]
        margins: Tensor = own - logits.gather(1, targets[:, None])[:, 0]
        return margins

    return score


@torch.no_grad()
def _fooled(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return holds(network(images), labels, Goal.ATTACK)
