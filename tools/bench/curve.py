"""Measure 9: how sure an explanation makes the network after so many evaluations."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.search.geometry import draw_to_rho, lengths_of, per_row
from candor.search.goals import log_odds
from candor.terms import Goal
from tools.bench.baseline import plain_explanations, plain_network, target_log_odds
from tools.bench.inputs import ROBUST, other_targets, released_network, test_images
from tools.bench.table import Options, Row

_EVALUATIONS = (3, 5, 8, 12, 20, 35)
_RHO = 0.1
_BATCH = 32
_STEP_SHARE = 2.5  # of PGD: all steps together, in rho

# Perturbed images after so many evaluations.
_Method = Callable[[Tensor, Tensor, int], Tensor]


def measure(options: Options) -> list[Row]:
    """Median confidence of the target at RMSE rho: `fast`, the plain loop, projected ascent.

    All end clipped to the box and drawn to rho, and none counts the evaluation of its answer.
    """
    network = released_network(options, ROBUST)
    images, labels = test_images(options, options.image_count)
    return rows_of(network, images, other_targets(labels, 10, options.seed))


def rows_of(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    evaluations: tuple[int, ...] = _EVALUATIONS,
) -> list[Row]:
    """One row for each number of evaluations."""
    plain = plain_network(network)
    methods: dict[str, _Method] = {
        "fast": lambda part, wanted, steps: _fast(network, part, wanted, steps),
        "plain": lambda part, wanted, steps: plain_explanations(
            plain, part, wanted, rho=_RHO, steps=steps
        ),
        "ascent": lambda part, wanted, steps: projected_ascent(network, part, wanted, steps),
    }
    return [
        _row(
            steps,
            {
                name: _confidences(network, method, images, targets, steps)
                for name, method in methods.items()
            },
        )
        for steps in evaluations
    ]


def projected_ascent(network: nn.Module, images: Tensor, targets: Tensor, steps: int) -> Tensor:
    """(B, C, H, W) plain PGD for the target: steps of one length, projected into the ball."""
    radius = _RHO * images[0].numel() ** 0.5
    deltas = torch.zeros_like(images)
    for _ in range(steps):
        inputs = (images + deltas).requires_grad_()
        (gradients,) = torch.autograd.grad(log_odds(network(inputs), targets).sum(), inputs)
        lengths = lengths_of(gradients).clamp_min(1e-12)
        deltas = deltas + per_row(_STEP_SHARE * radius / steps / lengths, gradients) * gradients
        deltas = per_row((radius / lengths_of(deltas)).clamp_max(1.0), deltas) * deltas
        deltas = (images + deltas).clamp(0.0, 1.0) - images
    return images + deltas


def _fast(network: nn.Module, images: Tensor, targets: Tensor, steps: int) -> Tensor:
    plan = plan_goal(Goal.EXPLAIN_FOR, targets, steps=steps, rho=_RHO)
    return run_searches(
        network, images, plan, solver="fast", batch_size=len(images), execute=in_shares
    ).images


def _confidences(
    network: nn.Module, method: _Method, images: Tensor, targets: Tensor, steps: int
) -> Tensor:
    """(N,) confidence of the target in float32, the images clipped and drawn to rho."""
    found = []
    for part, wanted in zip(torch.split(images, _BATCH), torch.split(targets, _BATCH), strict=True):
        rhos = torch.full((len(part),), _RHO, dtype=torch.float64)
        drawn = draw_to_rho(method(part, wanted, steps).clamp(0.0, 1.0), part, rhos)
        found.append(target_log_odds(network, drawn, wanted).sigmoid())
    return torch.cat(found)


def _row(steps: int, found: dict[str, Tensor]) -> Row:
    medians = {name: float(values.median()) for name, values in found.items()}
    better = float((found["fast"] >= found["plain"]).double().mean())
    quartiles = {name: np.quantile(values, (0.25, 0.75)) for name, values in found.items()}
    shown = "; ".join(f"{name} {low:.3f} to {high:.3f}" for name, (low, high) in quartiles.items())
    return Row(
        measure=f"9 confidence at rho {_RHO:g}, {steps} evaluations",
        ours=medians["fast"],
        baseline=medians["plain"],
        unit="median",
        ratio=medians["fast"] / max(medians["plain"], 1e-12),
        goal="no lower than plain loop and projected ascent",
        is_met=medians["fast"] >= max(medians.values()),
        n=len(found["fast"]),
        detail=(
            f"projected ascent {medians['ascent']:.3f}; quartiles: {shown}; fast no lower than "
            f"plain on {better:.0%}"
        ),
    )
