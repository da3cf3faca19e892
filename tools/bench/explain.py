"""Measure 2: time to one explanation, and how sure it makes the network."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor, nn

from candor import terms
from candor.runtime.packaged import SearchNetworks
from candor.runtime.threads import in_shares, on_threads
from candor.search.batch import plan_goal, run_searches
from candor.search.geometry import draw_to_rho
from candor.terms import Goal
from tools.bench.baseline import (
    EXPLANATION_STEPS,
    fastest_threads,
    plain_explanations,
    plain_network,
    target_log_odds,
)
from tools.bench.inputs import (
    ROBUST,
    other_targets,
    released_network,
    served_network,
    test_images,
)
from tools.bench.machine import precisions
from tools.bench.table import Options, Row

_RHO = 0.1
_SPEED_GOAL = 10.0


def measure(options: Options) -> list[Row]:
    """Each image alone, both ways in turn, from the image to the verified answer.

    In every precision there is: the steps in bfloat16 are verified in float32, as workers do.  The
    baseline overshoots rho; its images are compared as they would have to be answered, clipped and
    drawn to rho, and what that costs is not counted against it.
    """
    network = released_network(options, ROBUST)
    images, labels = test_images(options, options.image_count)
    targets = other_targets(labels, 10, options.seed)
    return [
        row
        for precision in precisions(torch.device("cpu"))
        for row in _rows(
            network, served_network(options, ROBUST, precision), precision, images, targets
        )
    ]


def _rows(
    network: nn.Module,
    served: SearchNetworks,
    precision: str,
    images: Tensor,
    targets: Tensor,
) -> list[Row]:
    plain = plain_network(network)
    threads = fastest_threads(lambda: plain_explanations(plain, images[:1], targets[:1], rho=_RHO))

    def both(image: Tensor, target: Tensor) -> _Turn:
        return _both(plain, served, image, target, threads)

    both(images[:1], targets[:1])  # a first turn that does not count
    turns = list(map(both, torch.split(images, 1), torch.split(targets, 1)))
    ours = torch.cat([turn.ours for turn in turns])
    theirs = torch.cat([turn.theirs for turn in turns])
    rhos = torch.full((len(theirs),), _RHO, dtype=torch.float64)
    theirs = draw_to_rho(theirs.clamp(0.0, 1.0), images, rhos)
    return [
        _time_row(precision, [turn.seconds for turn in turns]),
        _confidence_row(
            precision,
            target_log_odds(network, ours, targets),
            target_log_odds(network, theirs, targets),
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Turn:
    """One image's explanations (1, C, H, W), and the seconds of ours and of the plain loop."""

    ours: Tensor
    theirs: Tensor
    seconds: tuple[float, float]


def _both(
    plain: nn.Module,
    served: SearchNetworks,
    image: Tensor,
    target: Tensor,
    threads: int,
) -> _Turn:
    """``threads``: of the plain loop."""
    plan = plan_goal(Goal.EXPLAIN_FOR, target, steps=terms.FAST_EXPLAIN_STEPS, rho=_RHO)
    started = time.perf_counter()
    ours = run_searches(
        served.verifier,
        image,
        plan,
        solver="fast",
        batch_size=1,
        searcher=served.searcher,
        execute=in_shares,
    ).images
    with on_threads(threads):
        middle = time.perf_counter()
        theirs = plain_explanations(plain, image, target, rho=_RHO)
        end = time.perf_counter()
    return _Turn(ours, theirs, (middle - started, end - middle))


def _time_row(precision: str, seconds: list[tuple[float, float]]) -> Row:
    ours, theirs = (1000.0 * np.array(column) for column in zip(*seconds, strict=True))
    ratio = float(np.median(theirs / ours))
    return Row(
        measure=f"2 explanation, batch 1, {precision}, time",
        ours=float(np.median(ours)),
        baseline=float(np.median(theirs)),
        unit="ms",
        ratio=ratio,
        goal=f">= {_SPEED_GOAL:g} x faster than {EXPLANATION_STEPS} plain steps",
        is_met=ratio >= _SPEED_GOAL,
        n=len(seconds),
        detail=f"{terms.FAST_EXPLAIN_STEPS} steps; ratios {_quartiles(theirs / ours, '.2f')}",
    )


def _confidence_row(precision: str, ours: Tensor, theirs: Tensor) -> Row:
    our_confidences, their_confidences = special.expit(ours.numpy()), special.expit(theirs.numpy())
    median, baseline = float(np.median(our_confidences)), float(np.median(their_confidences))
    better = float((ours > theirs).double().mean())
    return Row(
        measure=f"2 explanation, {precision}, target confidence",
        ours=median,
        baseline=baseline,
        unit="median",
        ratio=median / baseline,
        goal="no lower at the same rho",
        is_met=median >= baseline,
        n=len(ours),
        detail=(
            f"ours {_quartiles(our_confidences, '.3f')}, "
            f"plain {_quartiles(their_confidences, '.3f')}; ours higher on {better:.0%}"
        ),
    )


def _quartiles(values: NDArray[Any], form: str) -> str:
    shown = (format(value, form) for value in np.quantile(values, (0.0, 0.25, 0.5, 0.75, 1.0)))
    return "min, quartiles, max " + " ".join(shown)
