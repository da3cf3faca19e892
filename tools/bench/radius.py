"""Measure 3: attack radii of solver `fast` against `paper`, three networks."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candor import terms
from candor.models.folder import load_model
from candor.runtime.compiled import compile_network, share_sizes
from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.stack.archives import MODELS_DIR
from candor.terms import Goal, SearchStatus
from tools.bench.inputs import ROBUST, SHAPE, correct_images, released_network
from tools.bench.table import Options, Row
from tools.small_models import SMALL_MODEL, SMALL_PLAIN_MODEL

_BATCH = 32
_CLEARLY_WORSE, _WORSE_SHARE = 1.05, 0.02
_FEWER_STEPS = 10.0


def measure(options: Options) -> list[Row]:
    """Images that the network has right, the same for both solvers.

    Steps are evaluations of the network on one image: every step of either solver, and one for each
    forward pass that verifies an end.  BTR has no goal of its own; the shipped network's is
    measured beside.
    """
    rows = []
    for name, network in _networks(options):
        goals = (Goal.ATTACK, Goal.BTR) if name == SMALL_MODEL else (Goal.ATTACK,)
        compiled = compile_network(network, share_sizes(_BATCH, torch.device("cpu"))[1:], SHAPE)
        images, labels = correct_images(options, compiled, options.image_count)
        for goal in goals:
            ours = _radii(compiled, images, labels, goal, "fast", terms.FAST_RADIUS_STEPS)
            theirs = _radii(compiled, images, labels, goal, "paper", terms.PAPER_STEPS)
            rows += _rows(f"3 {goal} radius, {name}", *ours, *theirs)
    return rows


def _networks(options: Options) -> Iterator[tuple[str, nn.Module]]:
    """A released one, and those that Candor ships: the robust one and its plain twin."""
    yield f"resnet44-{ROBUST}", released_network(options, ROBUST)
    for name in (SMALL_MODEL, SMALL_PLAIN_MODEL):
        yield name, load_model(MODELS_DIR / name).network


class _Counted(nn.Module):
    """Counts the images that a compiled network evaluates, on several threads at once."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.most_threads = getattr(network, "most_threads", torch.get_num_threads())
        self._batches: list[int] = []

    @property
    def images(self) -> int:
        return sum(self._batches)

    def forward(self, images: Tensor) -> Tensor:
        self._batches.append(len(images))
        logits: Tensor = self.network(images)
        return logits


def _radii(
    network: nn.Module, images: Tensor, labels: Tensor, goal: Goal, solver: str, steps: int
) -> tuple[NDArray[np.float64], int]:
    """(N,) RMSE, infinite where none was found, and the images evaluated."""
    counted = _Counted(network).eval()
    plan = plan_goal(goal, labels, steps=steps)
    result = run_searches(
        counted, images, plan, solver=solver, batch_size=_BATCH, execute=in_shares
    )
    is_found = np.array([status is SearchStatus.FOUND for status in result.statuses])
    return np.where(is_found, result.rmse.numpy(), np.inf), counted.images


def _rows(
    measure_name: str,
    ours: NDArray[np.float64],
    our_steps: int,
    theirs: NDArray[np.float64],
    their_steps: int,
) -> list[Row]:
    # Where neither found one they are equal; where only paper did, ours is infinitely worse.
    with np.errstate(invalid="ignore"):
        ratios = np.where(np.isinf(ours) & np.isinf(theirs), 1.0, ours / theirs)
    count = len(ours)
    median, worse = float(np.median(ratios)), float((ratios > _CLEARLY_WORSE).mean())
    fewer = their_steps / our_steps
    quantiles = np.quantile(ratios, (0.05, 0.25, 0.5, 0.75, 0.95), method="inverted_cdf")
    return [
        Row(
            measure=measure_name,
            ours=float(np.median(ours)),
            baseline=float(np.median(theirs)),
            unit="RMSE, median",
            ratio=1.0 / median,
            goal="median ratio fast / paper <= 1.00, at most 2 % worse by > 5 %",
            is_met=median <= 1.0 and worse <= _WORSE_SHARE,
            n=count,
            detail=(
                f"fast / paper: quantiles 5 25 50 75 95 % "
                f"{' '.join(f'{value:.3f}' for value in quantiles)}, max {ratios.max():.3f}; "
                f"{worse:.1%} worse by > 5 %; "
                f"not found: fast {np.isinf(ours).sum()}, paper {np.isinf(theirs).sum()}"
            ),
        ),
        Row(
            measure=f"{measure_name}, steps an image",
            ours=our_steps / count,
            baseline=their_steps / count,
            unit="evaluations",
            ratio=fewer,
            goal=f">= {_FEWER_STEPS:g} x fewer",
            is_met=fewer >= _FEWER_STEPS,
            n=count,
        ),
    ]
